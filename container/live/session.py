"""One client's session: audio is pushed, and frames are produced by the wall clock."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from container.live.frame_clock import FPS, FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.frame_messages import MAX_BACKGROUNDS, FrameMessage
from container.live.send_queue import SendQueue, SlowClient
from container.live.session_options import SessionOptions
from container.live.text_speaker import TextSpeaker
from container.speech.requests import SpeechRequest
from inference.errors import InvalidRequest
from inference.requests.body import load_object, validate

if TYPE_CHECKING:
    from container.speech.synthesizer import Synthesizer
    from inference.avatar import AvatarPackage, AvatarSession, TimedFrame

STATS_INTERVAL = 5 * FPS  # frames between `stats` events
MAX_COMMAND_CHARS = 4096
MAX_SAY_CHARS = 16_384  # of the command `say`: a text of 2000 characters, escaped, and the rest
INPUT_END_S = 0.5  # without new audio, after which an utterance counts as complete: clients may send no flush
MAX_INLINE_BYTES = 1 << 16  # of audio that is pushed in the event loop; a larger message is pushed in a thread


class Runner(Protocol):
    """A function that calls another one in a thread."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]: ...


class LiveSession:
    """Handles a client's messages and fills its queue. All methods but `render_next_frame` run in the event loop."""

    def __init__(
        self,
        package: AvatarPackage,
        encoder: FrameEncoder,
        options: SessionOptions,
        run: Runner,
        clock: FrameClock,
        synthesizer: Synthesizer | None = None,
    ) -> None:
        """Open the session and queue its `ready` event. synthesizer: of the texts that the client sends, if any.

        Raises: WeightsNotFound if the package has no audio encoder, InvalidRequest if an option does not fit it.
        """
        self._package, self._encoder, self._run, self._clock = package, encoder, run, clock
        self.queue = SendQueue(clock.counts)
        self._partial_sample = b""  # the first byte of a sample whose second byte is in the next message
        self._has_audio = False
        self._is_speaking = False
        self._waiting_since_s = 0.0  # time of the last audio or frame of speech, by the clock
        self._n_frames = 0  # frames produced
        self._n_before_restart = 0  # frames produced before `start` restarted the session
        self._options, self._session = options, self._open(options)
        self._texts = TextSpeaker(synthesizer, lambda: self._session, self._report_unspoken)
        self.is_closed = False
        self._send_event("ready", **self._describe())

    @property
    def is_silent(self) -> bool:
        """Whether all audio that was pushed, and every text, has been spoken."""
        return not self._session.has_speech and self._texts.is_idle

    @property
    def generation(self) -> int:
        """Number of interrupts so far."""
        return self._session.generation

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that is pushed."""
        return self._session.sample_rate

    async def handle_message(self, message: bytes | str) -> None:
        """Push audio, or execute a command.

        Raises: VisemeError if the message is invalid or too much audio is queued. The session can continue.
        """
        if isinstance(message, str):
            self._handle_command(parse_command(message))
        else:
            await self._push_audio(message)

    async def _push_audio(self, message: bytes) -> None:
        samples = self._partial_sample + message
        n_bytes = len(samples) // 2 * 2
        self._partial_sample = samples[n_bytes:]
        self._has_audio = True
        pcm = np.frombuffer(samples[:n_bytes], "<i2").astype(np.int16, copy=False)
        if n_bytes <= MAX_INLINE_BYTES:
            self._session.push_audio(pcm)
        else:
            await self._run(self._session.push_audio, pcm)
        self._waiting_since_s = self._clock.elapsed_s()

    def _handle_command(self, command: dict[str, Any]) -> None:
        kind = command.pop("type")
        if kind == "flush":
            self._partial_sample = b""
            self._session.flush()
        elif kind == "interrupt":
            self._interrupt()
        elif kind == "close":
            self.is_closed = True
        elif kind == "say":
            self._texts.say(validate(SpeechRequest, command))
            self._has_audio = True
        elif kind == "start":
            self._restart(self._options.with_changes(command))
        else:
            raise InvalidRequest(f"message of type {str(kind)[:40]!r}; expected start, say, flush, interrupt or close")

    def _interrupt(self) -> None:
        self._texts.stop()
        self._interrupt_speech()
        self.queue.drop_frames()
        self._partial_sample, self._is_speaking = b"", False
        self._send_event("interrupted")

    def _interrupt_speech(self) -> None:
        self._session.interrupt()

    def _restart(self, options: SessionOptions) -> None:
        if self._has_audio or self._session.generation:
            raise InvalidRequest("message of type 'start': expected before the first audio and the first interrupt")
        # The previous session is not closed: a thread may still be rendering one of its frames.
        self._session, self._options, self._n_before_restart = self._open(options), options, self._n_frames
        self._send_event("ready", **self._describe())

    def _open(self, options: SessionOptions) -> AvatarSession:
        if options.background and self._package.n_frames > MAX_BACKGROUNDS:
            raise InvalidRequest(
                f"background=1: the avatar has {self._package.n_frames} frames; expected at most {MAX_BACKGROUNDS}"
            )
        if options.alpha and not self._package.has_mattes:
            raise InvalidRequest(
                f"alpha=1: {self._package.name} has no mattes; expected an avatar that has, such as the starter"
            )
        session = self._package.session(options.sample_rate)
        if not options.visemes:
            return session
        from container.live.viseme_session import VisemeAvatarSession  # imports the engine, as the package has

        return VisemeAvatarSession(self._package, options.sample_rate)

    async def produce_frames(self) -> None:
        """Queue each frame when it is due, until canceled. Frames are late if rendering takes longer than 40 ms."""
        while True:
            await self._clock.wait_until_due(self._n_frames)
            frame: FrameMessage = await self._run(
                self.render_next_frame, self._session, self._n_before_restart, self._options
            )
            if frame.frame < self._n_frames:
                continue  # the session restarted during rendering
            self._n_frames = frame.frame + 1
            if frame.generation != self._session.generation:
                if frame.is_speaking:
                    continue
                frame = replace(frame, generation=self._session.generation)
            self._send_speech_event(frame)
            self.queue.push_frame(frame)
            self._end_quiet_utterance(frame)
            if self._n_frames % STATS_INTERVAL == 0:
                self._send_event("stats", **self._stats())

    def render_next_frame(self, session: AvatarSession, n_before: int, options: SessionOptions) -> FrameMessage:
        """Render and encode the next frame of speech, or an idle frame if no speech is ready. Call it in a thread.

        n_before: added to the frame's number.
        """
        timed = take_frame(session, n_before)
        return self._encoder.make_message(
            timed, options.kind, with_background=options.background, with_alpha=options.alpha
        )

    def _send_speech_event(self, frame: FrameMessage) -> None:
        """Report the start and end of speech. Idle frames in the middle of it, while audio is late, do not end it."""
        if frame.is_speaking and not self._is_speaking:
            self._is_speaking = True
            self._send_event("speech_started", frame=frame.frame, pts_ms=frame.pts_ms)
        elif self._is_speaking and not frame.is_speaking and self.is_silent:
            self._is_speaking = False
            self._send_event("speech_finished", frame=frame.frame, pts_ms=frame.pts_ms)

    def _end_quiet_utterance(self, frame: FrameMessage) -> None:
        """End the utterance if its last frames have waited for audio long enough: then they are spoken without it."""
        now_s = self._clock.elapsed_s()
        if frame.is_speaking or not self._session.is_waiting:
            self._waiting_since_s = now_s
        elif now_s - self._waiting_since_s >= INPUT_END_S:
            self._session.flush()

    def send_error(self, code: str, message: str) -> None:
        self._send_event("error", code=code, message=message)

    def _report_unspoken(self, code: str, message: str) -> None:
        """Report why a text was not spoken. A client that reads nothing is disconnected by its next frame."""
        with contextlib.suppress(SlowClient):
            self.send_error(code, message)

    def _send_event(self, kind: str, **fields: Any) -> None:
        self.queue.push_event(kind, self._session.generation, **fields)

    def _describe(self) -> dict[str, Any]:
        package = self._package
        return {
            "avatar": package.name,
            "fps": FPS,
            "width": package.width,
            "height": package.height,
            "n_frames": package.n_frames,
        } | self._options.model_dump()

    def _stats(self) -> dict[str, Any]:
        return {
            "frames": self._n_frames,
            "dropped": self.queue.n_dropped,
            "queued_ms": round(self._session.queued_s * 1000),
            "late_ms": round(max(self._clock.lateness_s(self._n_frames - 1), 0.0) * 1000, 1),
        }

    def close(self) -> None:
        self._texts.stop()
        self._session.close()


def take_frame(session: AvatarSession, n_before: int = 0) -> TimedFrame:
    """Render the next frame of speech, or an idle frame if no speech is ready. n_before: added to its number."""
    timed = next(session.frames(), None)
    if timed is None:
        timed = session.idle()
    return replace(timed, frame=timed.frame + n_before) if n_before else timed


def parse_command(text: str) -> dict[str, Any]:
    """Decode a command. Raises: InvalidRequest if it is too long, or not a JSON object with a `type`."""
    if len(text) > MAX_SAY_CHARS:
        raise InvalidRequest(f"a command of {len(text)} characters; expected at most {MAX_SAY_CHARS}")
    command = load_object(text, "text message")
    if len(text) > MAX_COMMAND_CHARS and command.get("type") != "say":
        raise InvalidRequest(f"a command of {len(text)} characters; expected at most {MAX_COMMAND_CHARS}")
    if not isinstance(command.get("type"), str):
        raise InvalidRequest(f'{text[:40]!r}: expected an object with a "type"')
    return command
