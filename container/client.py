"""A client for live avatars that needs no engine: sessions over WebSocket or SageMaker, single frames over gRPC.

with LiveClient("ws://127.0.0.1:8080", "starter") as client:  # or "sagemaker://ENDPOINT"
    for frame in client.speak(pcm):
        show(frame.jpeg, frame.x, frame.y), play(frame.pcm)

with FrameClient("127.0.0.1:50051") as client:
    for frame in client.speak("starter", pcm):
        show(frame.jpeg)
"""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt

from container.live.frame_clock import FPS
from container.live.frame_messages import FrameMessage, unpack_frame
from container.live.legacy.audio_chunks import CHUNKS_AFTER, CHUNKS_BEFORE, LOOK_AHEAD_CHUNKS, OVERLAP_FRAMES
from container.rejections import RequestRejected, rejection_of

SAGEMAKER_SCHEME = "sagemaker:"
SEND_AHEAD_S = 5.0  # of speech that is sent before it is spoken
MAX_MESSAGE_BYTES = 64 << 20
TIMEOUT_S = 30.0  # for a message or a response
BATCH_FRAMES = 50  # per gRPC request
N_CONTEXT_CHUNKS = CHUNKS_BEFORE + CHUNKS_AFTER + LOOK_AHEAD_CHUNKS  # sent with a batch besides one for each frame

Samples = npt.NDArray[np.int16]


class MessageConnection(Protocol):
    """What a session needs of its connection: messages in both directions, bytes for binary ones."""

    def send(self, message: bytes | str, /) -> None:
        """Send a message."""

    def recv(self, timeout: float, /) -> bytes | str:
        """Return the next message. Raises: TimeoutError."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class SessionEvent:
    """An event of a session, such as ready, speech_started, speech_finished, interrupted or stats.

    fields: the event's other keys.
    """

    kind: str
    generation: int
    fields: dict[str, Any] = field(default_factory=dict)


class ClosingClient(ABC):
    """A client that is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()


class LiveClient(ClosingClient):
    """A session with one avatar. Receive in one thread; `interrupt` and `send` may be called from another."""

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8080",
        avatar: str = "starter",
        *,
        sample_rate: int = 16_000,
        frames: Literal["patch", "whole"] = "patch",
        alpha: bool = False,
        token: str | None = None,
        ca_file: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Open a session.

        url: ws:// or wss://; or sagemaker://ENDPOINT, with the AWS credentials and the region of this machine unless
        ?region=REGION names one. alpha: receive WebP patches or whole PNG images without
        the background, of an avatar with mattes.
        token, ca_file: of WebSocket servers. ca_file: PEM file of the authority that signed the server's certificate,
        if the system does not trust it.
        Raises: RequestRejected, OSError if the server cannot be reached, TimeoutError; for SageMaker
        ModuleNotFoundError without the extra sagemaker-live, ValueError if the URL is invalid.
        """
        options = {"sample_rate": str(sample_rate), "frames": frames} | ({"alpha": "1"} if alpha else {})
        self._open = ExitStack()
        opened: AbstractContextManager[MessageConnection]
        if url.startswith(SAGEMAKER_SCHEME):
            from container.sagemaker_stream import EndpointAddress, SageMakerStream

            query = urlencode({"avatar": avatar} | options)
            opened = closing(SageMakerStream(EndpointAddress.parse(url), query, timeout_s))
        else:
            path = f"/v1/avatars/{quote(avatar, safe='')}/session?{urlencode(options)}"
            opened = connect_websocket(url.rstrip("/") + path, token, ca_file, timeout_s)
        self._connection = self._open.enter_context(opened)
        self.sample_rate, self._timeout_s = sample_rate, timeout_s
        self._generation = 0  # interrupts sent
        try:
            self.ready = self.receive_event("ready")
        except BaseException:
            self.close()
            raise

    def send(self, pcm: Samples) -> None:
        """Send audio of any length: (n,) int16 mono at the session's sample rate."""
        with translate_errors():
            self._connection.send(pcm.astype("<i2").tobytes())

    def flush(self) -> None:
        """Mark the end of the utterance."""
        self._send_command("flush")

    def interrupt(self) -> None:
        """Drop all speech that is not spoken yet. A running iteration over `speak` ends."""
        self._generation += 1
        self._send_command("interrupt")

    def speak(self, pcm: Samples) -> Iterator[FrameMessage]:
        """Speak the audio, and yield its frames as they arrive, each with its part of the audio.

        Ends at the end of the speech, or at an interrupt. Raises: RequestRejected, TimeoutError.
        """
        generation, n_sent, n_spoken = self._generation, 0, 0
        while True:
            while n_sent < len(pcm) and n_sent - n_spoken < SEND_AHEAD_S * self.sample_rate:
                chunk = pcm[n_sent : n_sent + self.sample_rate]
                self.send(chunk)
                n_sent += len(chunk)
                if n_sent == len(pcm):
                    self.flush()
            message = self.receive()
            if message.generation > generation:
                return
            if message.generation < generation:
                continue
            if isinstance(message, SessionEvent):
                if message.kind == "speech_finished":
                    return
            elif message.is_speaking:
                n_spoken += len(message.pcm) // 2
                yield message

    def receive(self) -> FrameMessage | SessionEvent:
        """Return the next frame or event. Raises: RequestRejected if the server reports an error, TimeoutError."""
        with translate_errors():
            message = self._connection.recv(self._timeout_s)
        if isinstance(message, bytes):
            return unpack_frame(message)
        fields = json.loads(message)
        kind, generation = fields.pop("type"), fields.pop("generation", 0)
        if kind == "error":
            raise RequestRejected(fields["code"], fields["message"])
        return SessionEvent(kind, generation, fields)

    def receive_event(self, kind: str) -> SessionEvent:
        """Return the next event of this kind, and drop all messages before it."""
        while not (isinstance(message := self.receive(), SessionEvent) and message.kind == kind):
            pass
        return message

    def close(self) -> None:
        """Close the session."""
        self._open.close()

    def _send_command(self, kind: str) -> None:
        with translate_errors():
            self._connection.send(json.dumps({"type": kind}))


def connect_websocket(
    url: str, token: str | None, ca_file: Path | None, timeout_s: float
) -> AbstractContextManager[MessageConnection]:
    """Open a WebSocket. Raises: RequestRejected, OSError, TimeoutError."""
    from websockets.sync.client import connect

    with translate_errors():
        return connect(
            url,
            additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
            ssl=ssl.create_default_context(cafile=ca_file) if url.startswith("wss:") else None,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=None,  # `receive` detects a dead connection by its own timeout
            open_timeout=timeout_s,
        )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `RequestRejected` for a rejected handshake or a closed connection."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    try:
        yield
    except InvalidStatus as err:
        raise rejection_of(err.response.status_code, bytes(err.response.body or b"")) from err
    except ConnectionClosed as err:
        reason = err.rcvd.reason if err.rcvd is not None else ""
        raise RequestRejected("closed", f"the session is closed{': ' if reason else ''}{reason}") from err


@dataclass(frozen=True)
class ReceivedFrame:
    """One frame. bounds: left, top, right, bottom of the face, in pixels of the whole frame."""

    frame_id: int
    jpeg: bytes
    bounds: tuple[float, ...]
    network_ms: float


class FrameClient(ClosingClient):
    """A client for single frames by number."""

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        frames: Literal["patch", "whole"] = "whole",
        token: str | None = None,
        ca_file: Path | None = None,
        is_secure: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Create a client; it connects at the first call.

        is_secure: whether to use TLS.
        ca_file: PEM file of the authority that signed the server's certificate; implies TLS.
        """
        import grpc

        from container.protos.optimized_lipsyncsrv_pb2_grpc import OptimizedLipSyncServiceStub

        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        if ca_file is not None or is_secure:
            roots = None if ca_file is None else ca_file.read_bytes()
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = OptimizedLipSyncServiceStub(self._channel)
        self._metadata = [("viseme-frames", frames)] + (
            [("authorization", f"Bearer {token}")] if token is not None else []
        )
        self._timeout_s = timeout_s

    def avatars(self) -> list[str]:
        """Return the names of the avatars in the server's memory. Raises: RequestRejected, TimeoutError."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        return list(self._call(self._stub.ListModels, pb2.ListModelsRequest()).loaded_models)

    def frame(self, avatar: str, frame_id: int) -> ReceivedFrame:
        """Return a frame that speaks the audio features in the package. Raises: RequestRejected, TimeoutError."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        request = pb2.OptimizedInferenceRequest(model_name=avatar, frame_id=frame_id)
        return read_frame(self._call(self._stub.GenerateInference, request))

    def stream(self, avatar: str, frame_ids: Iterable[int]) -> Iterator[ReceivedFrame]:
        """Yield the same for many frames, each as soon as it is rendered. Raises: RequestRejected."""
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        requests = (pb2.OptimizedInferenceRequest(model_name=avatar, frame_id=one) for one in frame_ids)
        with translate_rpc_errors():
            for response in self._stub.StreamInference(requests, metadata=self._metadata):
                yield read_frame(response)

    def speak(self, avatar: str, pcm: Samples, first: int = 0, sample_rate: int = 16_000) -> Iterator[ReceivedFrame]:
        """Yield the package's frames from `first` on, speaking the audio: one for every 40 ms of it.

        pcm: (n,) int16 mono. Raises: RequestRejected, for instance if the package has too few frames; TimeoutError.
        """
        import container.protos.optimized_lipsyncsrv_pb2 as pb2

        chunks = split_chunks(pcm, sample_rate)
        n_frames = len(chunks) - N_CONTEXT_CHUNKS
        for batch_start in range(0, n_frames, BATCH_FRAMES):
            start, end = max(batch_start - OVERLAP_FRAMES, 0), min(batch_start + BATCH_FRAMES, n_frames)
            request = pb2.BatchInferenceWithAudioRequest(
                model_name=avatar,
                start_frame_id=first + start,
                frame_count=end - start,
                audio_chunks=chunks[start : end + N_CONTEXT_CHUNKS],
            )
            responses = self._call(self._stub.GenerateBatchWithAudio, request).responses
            for response in responses[batch_start - start :]:
                yield read_frame(response)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        with translate_rpc_errors():
            return method(request, timeout=self._timeout_s, metadata=self._metadata)


def split_chunks(pcm: Samples, sample_rate: int) -> list[bytes]:
    """Split audio into chunks of 40 ms, with chunks of silence before the first and after the last.

    Raises: ValueError if 40 ms are not a whole number of samples.
    """
    n_samples, remainder = divmod(sample_rate, FPS)
    if remainder:
        raise ValueError(f"sample rate {sample_rate}: expected a multiple of {FPS}, so that 40 ms are whole samples")
    n_frames = -(-len(pcm) // n_samples)
    padded = np.zeros((n_frames + N_CONTEXT_CHUNKS, n_samples), "<i2")
    padded[CHUNKS_BEFORE:].reshape(-1)[: len(pcm)] = pcm
    return [chunk.tobytes() for chunk in padded]


def read_frame(response: Any) -> ReceivedFrame:
    """Convert a response. Raises: RequestRejected if it contains an error."""
    if not response.success:
        raise RequestRejected("frame_refused", response.error)
    return ReceivedFrame(
        response.frame_id, response.prediction_data, tuple(response.bounds), response.inference_time_ms
    )


@contextmanager
def translate_rpc_errors() -> Iterator[None]:
    """Raise `RequestRejected` or TimeoutError for a call whose status is not OK."""
    import grpc

    try:
        yield
    except grpc.RpcError as err:
        if err.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError(err.details()) from err
        code = dict(err.trailing_metadata() or ()).get("viseme-code", err.code().name.lower())
        raise RequestRejected(code, err.details()) from err
