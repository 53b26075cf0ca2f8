"""A client for live avatars, without any engine: sessions over WebSocket, single frames over gRPC.

with LiveClient("ws://127.0.0.1:8080", "starter") as client:
    for frame in client.speak(pcm):
        show(frame.jpeg, frame.x, frame.y), play(frame.pcm)

with FrameClient("127.0.0.1:50051") as client:
    for still in client.speak("starter", pcm):
        show(still.jpeg)
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt

from container.live.frame_messages import FrameMessage, unpack_frame

FPS = 25
AHEAD_S = 5.0  # of speech that is sent before it is spoken
MAX_MESSAGE = 64 << 20  # bytes
PATIENCE_S = 30.0  # for a message, or an answer
LEAD, TAIL = 8, 7  # stretches of 40 ms that a batch needs before its frames and behind them
LOOK_AHEAD = 6  # more of them, that its last frames hear
BATCH = 50  # frames
# Of them that are asked for again, and thrown away: the first ones of a batch hear somewhat less than those behind
# them. Windows of the spectrogram fall on the same places every five frames.
SEAM = 5

Samples = npt.NDArray[np.int16]


class Refused(Exception):
    """The server said no. code: stable, such as avatar_not_found or overloaded."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Event:
    """What a session tells beside its frames: ready, speech_started, speech_finished, interrupted, stats."""

    kind: str
    generation: int
    about: dict[str, Any] = field(default_factory=dict)


class LiveClient:
    """A session with one avatar. Receives in one thread; `interrupt` and `send` may come from another."""

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8080",
        avatar: str = "starter",
        *,
        sample_rate: int = 16_000,
        frames: Literal["patch", "whole"] = "patch",
        token: str | None = None,
        ca_file: Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """url: ws:// or wss://. ca_file: PEM of who signed the server's certificate, where the system knows it not.

        Raises: Refused, OSError where nobody answers, TimeoutError.
        """
        from websockets.sync.client import connect

        query = urlencode({"sample_rate": sample_rate, "frames": frames})
        self._open = ExitStack()
        with spoken_of():
            connection = connect(
                f"{url.rstrip('/')}/v1/avatars/{quote(avatar, safe='')}/session?{query}",
                additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
                ssl=ssl.create_default_context(cafile=ca_file) if url.startswith("wss:") else None,
                max_size=MAX_MESSAGE,
                compression=None,
                ping_interval=None,  # `receive` finds out for itself when nothing comes any more
                open_timeout=patience_s,
            )
            self._socket = self._open.enter_context(connection)
        self.sample_rate, self._patience_s = sample_rate, patience_s
        self._generation = 0  # interrupts that were sent
        self.ready = self.receive_event("ready")

    def send(self, pcm: Samples) -> None:
        """Speech, any amount of it: (n,) int16 mono at the session's rate."""
        with spoken_of():
            self._socket.send(pcm.astype("<i2").tobytes())

    def flush(self) -> None:
        """The utterance is over."""
        self._tell("flush")

    def interrupt(self) -> None:
        """Drop what is not spoken yet; whoever iterates over `speak` comes to its end."""
        self._generation += 1
        self._tell("interrupt")

    def speak(self, pcm: Samples) -> Iterator[FrameMessage]:
        """Say this; its frames as they come, each with its sound. It ends with the speech, or at an interrupt.

        Raises: Refused, TimeoutError.
        """
        generation, n_sent, n_spoken = self._generation, 0, 0
        while True:
            while n_sent < len(pcm) and n_sent - n_spoken < AHEAD_S * self.sample_rate:
                piece = pcm[n_sent : n_sent + self.sample_rate]
                self.send(piece)
                n_sent += len(piece)
                if n_sent == len(pcm):
                    self.flush()
            message = self.receive()
            if message.generation > generation:
                return
            if message.generation < generation:
                continue
            if isinstance(message, Event):
                if message.kind == "speech_finished":
                    return
            elif message.is_speaking:
                n_spoken += len(message.pcm) // 2
                yield message

    def receive(self) -> FrameMessage | Event:
        """The next frame or event. Raises: Refused for an error that the server tells, TimeoutError."""
        with spoken_of():
            message = self._socket.recv(self._patience_s)
        if isinstance(message, bytes):
            return unpack_frame(message)
        about = json.loads(message)
        kind, generation = about.pop("type"), about.pop("generation", 0)
        if kind == "error":
            raise Refused(about["code"], about["message"])
        return Event(kind, generation, about)

    def receive_event(self, kind: str) -> Event:
        """The next event of that kind; what comes before it is dropped."""
        while not (isinstance(message := self.receive(), Event) and message.kind == kind):
            pass
        return message

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, kind: str) -> None:
        with spoken_of():
            self._socket.send(json.dumps({"type": kind}))


@contextmanager
def spoken_of() -> Iterator[None]:
    """What the library makes of refusals, and of the server's leaving, in our words."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    try:
        yield
    except InvalidStatus as err:
        raise refusal_of(err.response.status_code, bytes(err.response.body or b"")) from err
    except ConnectionClosed as err:
        said = err.rcvd.reason if err.rcvd is not None else ""
        raise Refused("closed", f"the session is over{': ' if said else ''}{said}") from err


def refusal_of(status: int, body: bytes) -> Refused:
    """Of the server's own form; a proxy in between may say something else."""
    try:
        error = json.loads(body)["error"]
        return Refused(str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return Refused("refused", f"status {status}: {body[:200].decode(errors='replace')}")


@dataclass(frozen=True)
class StillFrame:
    """One frame. bounds: left, top, right, bottom of the face in the whole frame."""

    frame_id: int
    jpeg: bytes
    bounds: tuple[float, ...]
    network_ms: float


class FrameClient:
    """Frames by their number."""

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        frames: Literal["patch", "whole"] = "whole",
        token: str | None = None,
        ca_file: Path | None = None,
        is_secure: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """is_secure: over TLS; so it is with a ca_file, the PEM of who signed the server's certificate."""
        import grpc

        from container.protos.optimized_lipsyncsrv_pb2_grpc import OptimizedLipSyncServiceStub

        options = [("grpc.max_receive_message_length", MAX_MESSAGE)]
        if ca_file is not None or is_secure:
            roots = None if ca_file is None else ca_file.read_bytes()
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = OptimizedLipSyncServiceStub(self._channel)
        self._metadata = [("viseme-frames", frames)] + (
            [("authorization", f"Bearer {token}")] if token is not None else []
        )
        self._patience_s = patience_s

    def avatars(self) -> list[str]:
        """The names of those in the server's memory."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        return list(self._ask(self._stub.ListModels, pb2.ListModelsRequest()).loaded_models)

    def frame(self, avatar: str, frame_id: int) -> StillFrame:
        """A frame with the sound that is packaged with it. Raises: Refused."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        request = pb2.OptimizedInferenceRequest(model_name=avatar, frame_id=frame_id)
        return still_of(self._ask(self._stub.GenerateInference, request))

    def stream(self, avatar: str, frame_ids: Iterable[int]) -> Iterator[StillFrame]:
        """The same for many, each sent when it is done. Raises: Refused."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        requests = (pb2.OptimizedInferenceRequest(model_name=avatar, frame_id=one) for one in frame_ids)
        with answered():
            for answer in self._stub.StreamInference(requests, metadata=self._metadata):
                yield still_of(answer)

    def speak(self, avatar: str, pcm: Samples, first: int = 0, sample_rate: int = 16_000) -> Iterator[StillFrame]:
        """The frames of the package from `first` on that say this, one for every 40 ms of it.

        pcm: (n,) int16 mono. Raises: Refused, also where the package has fewer frames.
        """
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        chunks = cut_chunks(pcm, sample_rate)
        n_frames = len(chunks) - LEAD - TAIL - LOOK_AHEAD
        for at in range(0, n_frames, BATCH):
            start, end = max(at - SEAM, 0), min(at + BATCH, n_frames)
            request = pb2.BatchInferenceWithAudioRequest(
                model_name=avatar,
                start_frame_id=first + start,
                frame_count=end - start,
                audio_chunks=chunks[start : end + LEAD + TAIL + LOOK_AHEAD],
            )
            for answer in self._ask(self._stub.GenerateBatchWithAudio, request).responses[at - start :]:
                yield still_of(answer)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: Any, request: Any) -> Any:
        with answered():
            return call(request, timeout=self._patience_s, metadata=self._metadata)


def cut_chunks(pcm: Samples, sample_rate: int) -> list[bytes]:
    """Stretches of 40 ms, silence before the first and behind the last."""
    n_samples, odd = divmod(sample_rate, FPS)
    if odd:
        raise ValueError(f"sample rate {sample_rate}: expected a multiple of {FPS}, so that 40 ms are whole samples")
    n_frames = -(-len(pcm) // n_samples)
    padded = np.zeros((LEAD + n_frames + TAIL + LOOK_AHEAD, n_samples), "<i2")
    padded[LEAD:].reshape(-1)[: len(pcm)] = pcm
    return [chunk.tobytes() for chunk in padded]


def still_of(answer: Any) -> StillFrame:
    """Raises: Refused."""
    if not answer.success:
        raise Refused("frame_refused", answer.error)
    return StillFrame(answer.frame_id, answer.prediction_data, tuple(answer.bounds), answer.inference_time_ms)


@contextmanager
def answered() -> Iterator[None]:
    """A status that is not OK as `Refused`, or as TimeoutError."""
    import grpc

    try:
        yield
    except grpc.RpcError as err:
        if err.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError(err.details()) from err
        code = dict(err.trailing_metadata() or ()).get("viseme-code", err.code().name.lower())
        raise Refused(code, err.details()) from err
