"""One client's session: its speech comes in, frames go out by the wall clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from container.live.frame_clock import FPS, Pacer
from container.live.frame_encoder import Pictures
from container.live.frame_messages import MOST_BACKGROUNDS, FrameMessage
from container.live.send_queue import Outbox
from container.live.session_options import SessionOptions
from inference.errors import InvalidRequest

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage, AvatarSession

STATS_EVERY = 5 * FPS  # frames
MAX_TEXT = 4096  # characters of a command
PIECE = 1 << 16  # bytes of sound that are taken in at once; of more, piece by piece in a thread


class Runner(Protocol):
    """Calls a function in a thread."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]: ...


class LiveSession:
    """Takes a client's messages, and fills its outbox. All but `make` happens in the event loop."""

    def __init__(
        self, package: AvatarPackage, pictures: Pictures, options: SessionOptions, run: Runner, pacer: Pacer
    ) -> None:
        """Raises: WeightsNotFound where the package cannot hear, InvalidRequest."""
        self._package, self._pictures, self._run, self._pacer = package, pictures, run, pacer
        self.outbox = Outbox()
        self._odd = b""  # half a sample, until the other half comes
        self._has_heard = False
        self._is_speaking = False
        self._n_given = 0  # frames
        self._n_before = 0  # of those, given before the session began anew
        self._options, self._session = options, self._open(options)
        self.is_closed = False
        self._tell("ready", **self._describe())

    @property
    def is_silent(self) -> bool:
        """Whether all speech that came was spoken."""
        return not self._session.has_speech

    async def take(self, message: bytes | str) -> None:
        """Sound, or a command. Raises: VisemeError where it is neither, or no more of it fits; the session goes on."""
        if isinstance(message, str):
            self._obey(parse_command(message))
        else:
            await self._hear(message)

    async def _hear(self, message: bytes) -> None:
        whole = self._odd + message
        n_bytes = len(whole) // 2 * 2
        self._odd = whole[n_bytes:]
        self._has_heard = True
        pcm = np.frombuffer(whole[:n_bytes], "<i2").astype(np.int16, copy=False)
        if n_bytes <= PIECE:
            self._session.push_audio(pcm)
        else:
            await self._run(self._session.push_audio, pcm)

    def _obey(self, command: dict[str, Any]) -> None:
        kind = command.pop("type")
        if kind == "flush":
            self._odd = b""
            self._session.flush()
        elif kind == "interrupt":
            self._interrupt()
        elif kind == "close":
            self.is_closed = True
        elif kind == "start":
            self._start_anew(self._options.with_changes(command))
        else:
            raise InvalidRequest(f"message of type {str(kind)[:40]!r}; expected start, flush, interrupt or close")

    def _interrupt(self) -> None:
        self._session.interrupt()
        self.outbox.drop_frames()
        self._odd, self._is_speaking = b"", False
        self._tell("interrupted")

    def _start_anew(self, options: SessionOptions) -> None:
        if self._has_heard or self._session.generation:
            raise InvalidRequest("message of type 'start': expected before any sound and any interrupt")
        # The old one is not closed: a frame of it may be on its way.
        self._session, self._options, self._n_before = self._open(options), options, self._n_given
        self._tell("ready", **self._describe())

    def _open(self, options: SessionOptions) -> AvatarSession:
        if options.background and self._package.n_frames > MOST_BACKGROUNDS:
            raise InvalidRequest(f"background=1: {self._package.n_frames} frames; expected {MOST_BACKGROUNDS} at most")
        return self._package.session(options.sample_rate)

    async def play(self) -> None:
        """Make each frame when it is due, for ever. Frames are late where making them takes longer than 40 ms."""
        while True:
            await self._pacer.until(self._n_given)
            made: FrameMessage = await self._run(self.make, self._session, self._n_before, self._options)
            if made.frame < self._n_given:
                continue  # the session began anew while it was made
            self._n_given = made.frame + 1
            if made.generation != self._session.generation:
                if made.is_speaking:
                    continue
                made = replace(made, generation=self._session.generation)
            self._announce(made)
            self.outbox.put_frame(made)
            if self._n_given % STATS_EVERY == 0:
                self._tell("stats", **self._measure())

    def make(self, session: AvatarSession, n_before: int, options: SessionOptions) -> FrameMessage:
        """The next frame, in a thread: of speech where some is ready, else of silence."""
        timed = next(session.frames(), None)
        if timed is None:
            timed = session.idle()
        if n_before:
            timed = replace(timed, frame=timed.frame + n_before)
        return self._pictures.message(timed, options.kind, tells_background=options.background)

    def _announce(self, frame: FrameMessage) -> None:
        """Say when speech begins and ends. Where sound is late, silence in the middle of it is no end."""
        if frame.is_speaking and not self._is_speaking:
            self._is_speaking = True
            self._tell("speech_started", frame=frame.frame, pts_ms=frame.pts_ms)
        elif self._is_speaking and not frame.is_speaking and self.is_silent:
            self._is_speaking = False
            self._tell("speech_finished", frame=frame.frame, pts_ms=frame.pts_ms)

    def tell_error(self, code: str, message: str) -> None:
        self._tell("error", code=code, message=message)

    def _tell(self, kind: str, **about: Any) -> None:
        self.outbox.put_event(kind, self._session.generation, **about)

    def _describe(self) -> dict[str, Any]:
        package = self._package
        return {
            "avatar": package.name,
            "fps": FPS,
            "width": package.width,
            "height": package.height,
            "n_frames": package.n_frames,
        } | self._options.model_dump()

    def _measure(self) -> dict[str, Any]:
        return {
            "frames": self._n_given,
            "dropped": self.outbox.n_dropped,
            "queued_ms": round(self._session.queued_s * 1000),
            "late_ms": round(max(self._pacer.lateness_s(self._n_given - 1), 0.0) * 1000, 1),
        }

    def close(self) -> None:
        self._session.close()


def parse_command(text: str) -> dict[str, Any]:
    """Raises: InvalidRequest."""
    if len(text) > MAX_TEXT:
        raise InvalidRequest(f"a command of {len(text)} characters; at most {MAX_TEXT} expected")
    try:
        command = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f"a text message that is no JSON: {text[:40]!r}") from err
    if not isinstance(command, dict) or not isinstance(command.get("type"), str):
        raise InvalidRequest(f'{text[:40]!r}: expected an object with a "type"')
    return command
