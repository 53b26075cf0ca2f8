"""One client's session: audio goes in, timed frames come out. Its only clock is the audio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from inference.audio.avatar_features import AVATAR_FPS, Features
from inference.audio.mel import Samples
from inference.audio.resample import Resampler
from inference.avatar.manifest import IdleRange
from inference.avatar.ping_pong import PingPongPosition
from inference.avatar.timed_frame import TimedFrame
from inference.avatar.utterance import FeatureRow, Utterance
from inference.errors import InvalidRequest, Overloaded
from inference.faces import FaceBox
from inference.media import Frame

MAX_QUEUED_S = 120.0  # speech that was pushed and not spoken yet
MAX_UTTERANCES = 256  # waiting, however short
MAX_PLANNED = 16  # frames that an interrupt takes back
NO_PATCH: Frame = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class PendingFrame:
    """Inputs of the next frame, taken while the lock was held; the session may be interrupted meanwhile."""

    utterance: Utterance
    windows: list[Samples]
    pcm: Samples
    position: PingPongPosition


@dataclass(frozen=True)
class PlannedFrame:
    """A frame that is not rendered yet: `timed` has an empty patch. features: (16, numbers); None in silence."""

    timed: TimedFrame
    features: Features | None


class SessionPackage(Protocol):
    """The part of `AvatarPackage` that a session uses."""

    @property
    def n_frames(self) -> int: ...

    @property
    def idle(self) -> IdleRange: ...

    @property
    def look_ahead_windows(self) -> int: ...

    def box(self, i: int, /) -> FaceBox: ...

    def encode_audio(self, window: Samples, /) -> FeatureRow: ...

    def render(self, i: int, features: Features, /) -> Frame: ...

    def silent_patch(self, i: int, /) -> Frame: ...


class AvatarSession:
    """Push audio, take frames; any thread may do either. Frame n of the session is at n / 25 s.

    Speech and silence share one frame count: a frame gets its number when it is taken, by `frames` or by `idle`.
    """

    def __init__(
        self,
        package: SessionPackage,
        sample_rate: int = 16_000,
        max_queued_s: float = MAX_QUEUED_S,
        wait_ms: float = 0.0,
    ) -> None:
        """See `AvatarPackage.session`. wait_ms: audio that a frame waits for if the avatar looks less far ahead."""
        Resampler(sample_rate)  # rejects unsupported sample rates
        self.package, self.sample_rate = package, sample_rate
        self.generation = 0
        self._wait_ms = wait_ms
        self._max_queued = round(max_queued_s * sample_rate)
        self._utterances: deque[Utterance] = deque()
        self._is_open = False  # whether the last utterance is still arriving
        self._n_frames = 0
        self._position = PingPongPosition()
        self._positions: deque[PingPongPosition] = deque(maxlen=MAX_PLANNED)  # before each of the last frames
        self._is_closed = False
        self._lock = threading.Lock()  # held briefly: pushing and interrupting never wait for a network
        self._render_lock = threading.Lock()  # held while a frame is rendered

    @property
    def queued_s(self) -> float:
        """Seconds of speech that were pushed and not spoken yet."""
        with self._lock:
            return self._n_queued() / self.sample_rate

    @property
    def n_frames(self) -> int:
        """Number of frames that were taken, and not taken back."""
        with self._lock:
            return self._n_frames

    @property
    def has_speech(self) -> bool:
        """Whether pushed speech was not spoken yet; its end may wait for more audio, or for `flush`."""
        with self._lock:
            return any(not one.is_over for one in self._utterances)

    @property
    def is_waiting(self) -> bool:
        """Whether the next frame of speech waits for more audio, or for `flush`."""
        with self._lock:
            return self._is_open and not self._utterances[0].is_ready

    def push_audio(self, pcm: Samples) -> None:
        """Push speech: (n,) int16 mono at the session's rate, any n. Speech after a flush is another utterance.

        Raises: InvalidRequest for other arrays, or after close; Overloaded if over two minutes are queued. Then none of
        it is queued.
        """
        if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
            found = f"{pcm.dtype} of {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
            raise InvalidRequest(f"audio as {found}; expected an int16 array of one axis")
        with self._lock:
            self._check_open()
            n_queued = self._n_queued()
            if n_queued + len(pcm) > self._max_queued:
                raise Overloaded(
                    f"{n_queued / self.sample_rate:.1f} s of speech queued and {len(pcm) / self.sample_rate:.1f} s "
                    f"pushed; at most {self._max_queued / self.sample_rate:g} s expected: push no faster than real time"
                )
            if len(pcm) == 0:
                return
            if not self._is_open:
                self._start_utterance()
            self._utterances[-1].push(pcm)

    def flush(self) -> None:
        """End the utterance: its last frames need no more audio. Without an open utterance nothing happens."""
        with self._lock:
            self._check_open()
            if self._is_open:
                self._utterances[-1].end()
                self._is_open = False

    @property
    def is_ready(self) -> bool:
        """Whether the next frame is one of speech, all of whose audio is there."""
        with self._lock:
            return next((one.is_ready for one in self._utterances if not one.is_over), False)

    def interrupt(self, next_frame: int | None = None) -> None:
        """Drop all speech at once, also the frame that is being rendered; `generation` rises.

        next_frame: number of the first planned frame that nothing has shown; it and later ones are taken back, at most
        the last 16, and their numbers are given again. None: none is.
        """
        with self._lock:
            self._check_open()
            self._drop_speech()
            self.generation += 1
            while next_frame is not None and self._n_frames > next_frame and self._positions:
                self._n_frames -= 1
                self._position = self._positions.pop()

    def frames(self) -> Iterator[TimedFrame]:
        """Yield the frames of speech that are ready now, each rendered when it is taken. Ends at an interrupt."""
        return self._frames_of_generation(self.generation)

    def _frames_of_generation(self, generation: int) -> Iterator[TimedFrame]:
        while (frame := self._render_next(generation)) is not None:
            yield frame

    def idle(self) -> TimedFrame:
        """Render the next frame of silence, mouth closed, even if speech is ready.

        Raises: InvalidRequest after close.
        """
        with self._render_lock:
            with self._lock:
                self._check_open()
                idle = self.package.idle
                position = self._position.step_within(idle.first, idle.last)
            patch = self.package.silent_patch(position.frame)
            with self._lock:
                return self._emit_silence(position, patch)

    def plan(self) -> PlannedFrame:
        """Take the next frame of speech if it is ready, or else one of silence, and leave it to `render`.

        Raises: InvalidRequest after close.
        """
        with self._render_lock:
            generation = self.generation
            pending = self._next_pending(generation)
            if pending is not None:
                rows = self._encode_windows(pending.windows, generation)
                with self._lock:
                    if rows is not None and generation == self.generation and not self._is_closed:
                        features = pending.utterance.stack_rows(rows)
                        pending.utterance.advance(rows)
                        timed = self._emit(pending.position, NO_PATCH, pending.pcm, is_speaking=True)
                        return PlannedFrame(timed, features)
            with self._lock:
                self._check_open()
                idle = self.package.idle
                position = self._position.step_within(idle.first, idle.last)
                return PlannedFrame(self._emit_silence(position, NO_PATCH), None)

    def render(self, planned: PlannedFrame) -> TimedFrame:
        """Render a planned frame. Any number of threads may do so at the same time."""
        timed, package = planned.timed, self.package
        if planned.features is None:
            return replace(timed, patch=package.silent_patch(timed.background))
        return replace(timed, patch=package.render(timed.background, planned.features))

    def close(self) -> None:
        """Drop everything. Afterwards nothing can be pushed or taken. May be called again."""
        with self._lock:
            self._drop_speech()
            self._is_closed = True

    def _render_next(self, generation: int) -> TimedFrame | None:
        with self._render_lock:
            pending = self._next_pending(generation)
            if pending is None:
                return None
            package, position = self.package, pending.position
            rows = self._encode_windows(pending.windows, generation)
            if rows is None or generation != self.generation:
                return None
            patch = package.render(position.frame, pending.utterance.stack_rows(rows))
            with self._lock:
                if generation != self.generation or self._is_closed:
                    return None
                pending.utterance.advance(rows)
                return self._emit(position, patch, pending.pcm, is_speaking=True)

    def _encode_windows(self, windows: list[Samples], generation: int) -> list[FeatureRow] | None:
        """Return the features of each window, or None if the session was interrupted: they would be of no use."""
        rows: list[FeatureRow] = []
        for window in windows:
            if generation != self.generation:
                return None
            rows.append(self.package.encode_audio(window))
        return rows

    def _next_pending(self, generation: int) -> PendingFrame | None:
        with self._lock:
            if generation != self.generation or self._is_closed:
                return None
            while self._utterances and self._utterances[0].is_over:
                self._utterances.popleft()
            if not self._utterances or not self._utterances[0].is_ready:
                return None
            first = self._utterances[0]
            return PendingFrame(first, first.take_windows(), first.pcm(), self._position.step(self.package.n_frames))

    def _emit(self, position: PingPongPosition, patch: Frame, pcm: Samples, *, is_speaking: bool) -> TimedFrame:
        frame = TimedFrame(
            self._n_frames, self.generation, is_speaking, position.frame, self.package.box(position.frame), patch, pcm
        )
        self._n_frames += 1
        self._positions.append(self._position)
        self._position = position
        return frame

    def _emit_silence(self, position: PingPongPosition, patch: Frame) -> TimedFrame:
        first, last = (n * self.sample_rate // AVATAR_FPS for n in (self._n_frames, self._n_frames + 1))
        return self._emit(position, patch, np.zeros(last - first, np.int16), is_speaking=False)

    def _start_utterance(self) -> None:
        if len(self._utterances) >= MAX_UTTERANCES:
            raise Overloaded(f"{len(self._utterances)} utterances are queued; at most {MAX_UTTERANCES} expected")
        self._utterances.append(Utterance(self.sample_rate, self.package.look_ahead_windows, self._wait_ms))
        self._is_open = True

    def _n_queued(self) -> int:
        return sum(one.n_pending for one in self._utterances)

    def _drop_speech(self) -> None:
        self._utterances.clear()
        self._is_open = False

    def _check_open(self) -> None:
        if self._is_closed:
            raise InvalidRequest("the session is closed")
