"""One listener's avatar: speech goes in, timed frames come out. It knows the audio's clock and no other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inference.audio.features import FPS, Features
from inference.audio.mel import Samples
from inference.audio.resample import Resampler
from inference.avatar.manifest import IdleRange
from inference.avatar.ping_pong import PingPongPosition
from inference.avatar.timed_frame import TimedFrame
from inference.avatar.utterance import FeatureRow, Utterance
from inference.errors import InvalidRequest, Overloaded
from inference.faces import FaceBox
from inference.media import Frame

MAX_QUEUED_S = 120.0  # of speech that was pushed and not yet spoken
MAX_UTTERANCES = 256  # that wait behind one another, however short


@dataclass(frozen=True)
class PendingFrame:
    """What the next frame of speech is made of, as it was found: the session may be interrupted meanwhile."""

    utterance: Utterance
    windows: list[Samples]
    pcm: Samples
    position: PingPongPosition


class SessionPackage(Protocol):
    """What a session needs of its package. `AvatarPackage` has it."""

    @property
    def n_frames(self) -> int: ...

    @property
    def idle(self) -> IdleRange: ...

    def box(self, i: int, /) -> FaceBox: ...

    def encode_audio(self, window: Samples, /) -> FeatureRow: ...

    def render(self, i: int, features: Features, /) -> Frame: ...

    def silent_patch(self, i: int, /) -> Frame: ...


class AvatarSession:
    """Push speech, take frames; any thread may do either. Frame n of the session lies at n / 25 s.

    Speech and silence share one count: a frame is numbered when it is taken, by `frames` or by `idle`.
    """

    def __init__(self, package: SessionPackage, sample_rate: int = 16_000, max_queued_s: float = MAX_QUEUED_S) -> None:
        """See `AvatarPackage.session`."""
        Resampler(sample_rate)  # refuses a rate that no speech comes at
        self.package, self.sample_rate = package, sample_rate
        self.generation = 0
        self._max_queued = round(max_queued_s * sample_rate)
        self._utterances: deque[Utterance] = deque()
        self._is_open = False  # whether the last utterance is still coming
        self._n_frames = 0
        self._position = PingPongPosition()
        self._is_closed = False
        self._lock = threading.Lock()  # held for moments only: pushing and interrupting never wait for a network
        self._render_lock = threading.Lock()  # held while a frame is made

    @property
    def queued_s(self) -> float:
        """Seconds of speech that were pushed and not yet spoken."""
        with self._lock:
            return self._n_queued() / self.sample_rate

    @property
    def has_speech(self) -> bool:
        """Whether speech was pushed that is not spoken yet; its end may wait for more sound, or for `flush`."""
        with self._lock:
            return any(not one.is_over for one in self._utterances)

    def push_audio(self, pcm: Samples) -> None:
        """More speech: (n,) int16 mono at the session's rate, any n. Speech after a flush is another utterance.

        Raises: InvalidRequest for other arrays, or once closed; Overloaded where over two minutes wait already, and
        then takes none of it.
        """
        if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
            found = f"{pcm.dtype} of {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
            raise InvalidRequest(f"audio as {found}; expected an int16 array of one axis")
        with self._lock:
            self._check_open()
            n_queued = self._n_queued()
            if n_queued + len(pcm) > self._max_queued:
                raise Overloaded(
                    f"{n_queued / self.sample_rate:.1f} s of speech wait and {len(pcm) / self.sample_rate:.1f} s more "
                    f"came; at most {self._max_queued / self.sample_rate:g} s expected: push no faster than is spoken"
                )
            if len(pcm) == 0:
                return
            if not self._is_open:
                self._start_utterance()
            self._utterances[-1].push(pcm)

    def flush(self) -> None:
        """The utterance is over: its last frames need no more sound. Without one, nothing happens."""
        with self._lock:
            self._check_open()
            if self._is_open:
                self._utterances[-1].end()
                self._is_open = False

    def interrupt(self) -> None:
        """Drop all speech at once. Not even a frame that is being made is given any more; `generation` rises."""
        with self._lock:
            self._check_open()
            self._drop_speech()
            self.generation += 1

    def frames(self) -> Iterator[TimedFrame]:
        """The frames of speech that are ready now, each made as it is taken; it ends at an interrupt."""
        return self._frames_of_generation(self.generation)

    def _frames_of_generation(self, generation: int) -> Iterator[TimedFrame]:
        while (frame := self._render_next(generation)) is not None:
            yield frame

    def idle(self) -> TimedFrame:
        """The next frame of silence, mouth shut, whether speech is ready or not. Raises: InvalidRequest once closed."""
        with self._render_lock:
            with self._lock:
                self._check_open()
                idle = self.package.idle
                position = self._position.step_within(idle.first, idle.last)
            patch = self.package.silent_patch(position.frame)
            with self._lock:
                first, last = (n * self.sample_rate // FPS for n in (self._n_frames, self._n_frames + 1))
                return self._emit(position, patch, np.zeros(last - first, np.int16), is_speaking=False)

    def close(self) -> None:
        """Drop everything; nothing can be pushed or taken any more. May be called again."""
        with self._lock:
            self._drop_speech()
            self._is_closed = True

    def _render_next(self, generation: int) -> TimedFrame | None:
        with self._render_lock:
            pending = self._next_pending(generation)
            if pending is None:
                return None
            package, position = self.package, pending.position
            rows: list[FeatureRow] = [package.encode_audio(window) for window in pending.windows]
            patch = package.render(position.frame, pending.utterance.stack_rows(rows))
            with self._lock:
                if generation != self.generation or self._is_closed:
                    return None
                pending.utterance.advance(rows)
                return self._emit(position, patch, pending.pcm, is_speaking=True)

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
        self._position = position
        return frame

    def _start_utterance(self) -> None:
        if len(self._utterances) >= MAX_UTTERANCES:
            raise Overloaded(f"{len(self._utterances)} utterances wait; at most {MAX_UTTERANCES} expected")
        self._utterances.append(Utterance(self.sample_rate))
        self._is_open = True

    def _n_queued(self) -> int:
        return sum(one.n_pending for one in self._utterances)

    def _drop_speech(self) -> None:
        self._utterances.clear()
        self._is_open = False

    def _check_open(self) -> None:
        if self._is_closed:
            raise InvalidRequest("the session is closed")
