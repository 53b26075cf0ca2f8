"""A live session's visemes: of each frame of speech, from the audio that the frame belongs to."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.audio import Resampler, SampleBuffer
from inference.audio.mel import Samples
from inference.avatar import AvatarSession, TimedFrame
from inference.avatar.session import SessionPackage
from inference.errors import WrongWeights
from inference.visemes import (
    BLENDSHAPES,
    FPS,
    LOOK_AHEAD_MS,
    OCULUS_VISEMES,
    VisemeFrame,
    VisemeStream,
    VisemeUpdate,
)
from inference.visemes.network import load_network

DIGITS = 3  # of weights
REST: dict[str, Any] = {
    "phoneme": "_",
    "viseme": "sil",
    "weights": {name: float(name == "sil") for name in OCULUS_VISEMES},
    "blendshapes": dict.fromkeys(BLENDSHAPES, 0.0),
}


class UtteranceVisemes:
    """The visemes of one utterance, frame by frame, while it arrives. Audio waits until a frame needs it.

    Push in any thread, but take frames in one thread: it runs the network.
    """

    def __init__(self, rate: int) -> None:
        self._rate, self._resampler = rate, Resampler(rate)
        self._samples = SampleBuffer()
        self._lock = threading.Lock()  # held briefly, of the samples
        self._stream: VisemeStream | None = None
        self._n_run = 0  # samples that the stream has received
        self._frames: deque[VisemeFrame] = deque()
        self._is_finished = False
        self.n_taken = 0
        self.has_ended = False

    def push(self, pcm: Samples) -> None:
        with self._lock:
            self._samples.append(pcm)

    @property
    def is_over(self) -> bool:
        """Whether it is complete and every frame was taken; as `Utterance` counts them."""
        return self.has_ended and self.n_taken * self._rate // FPS >= self._samples.end

    def take(self) -> VisemeFrame | None:
        """Return the visemes of the next frame; None if its audio has not arrived, or the last step began before it."""
        index, self.n_taken = self.n_taken, self.n_taken + 1
        while not (self._frames and self._frames[-1].index >= index) and not self._is_finished and self._run():
            pass
        while self._frames and self._frames[0].index < index:
            self._frames.popleft()
        return self._frames[0] if self._frames and self._frames[0].index == index else None

    def _run(self) -> bool:
        """Run the network on the audio of one more frame. Return whether there was any left."""
        stream = self._stream = self._stream or VisemeStream(load_network())
        with self._lock:
            end = min(self._n_run + self._rate // FPS, self._samples.end)
            samples, is_last = self._samples.read(self._n_run, end), self.has_ended
            self._samples.discard_before(end)
        self._n_run += len(samples)
        if len(samples):
            self._add(stream.push(self._resampler.push(samples)))
        elif is_last:
            self._add(stream.push(self._resampler.finish()))
            self._add(stream.finish())
            self._is_finished = True
        return len(samples) > 0

    def _add(self, update: VisemeUpdate) -> None:
        self._frames += update.frames


class VisemeAvatarSession(AvatarSession):
    """A session whose frames have visemes. In silence the first frame after speech or an interrupt has those of rest.

    An interrupt and a push must not overlap; one thread at a time takes frames.
    """

    def __init__(self, package: SessionPackage, sample_rate: int) -> None:
        super().__init__(package, sample_rate, wait_ms=LOOK_AHEAD_MS)
        self._utterance_visemes: deque[UtteranceVisemes] = deque()
        self._viseme_generation = 0  # of the utterances
        self._viseme_lock = threading.Lock()  # held briefly, of the list
        self._rest_generation: int | None = 0  # in which rest was reported and nothing was spoken since
        load_in_background()  # before speech arrives

    def push_audio(self, pcm: Samples) -> None:
        """See `AvatarSession.push_audio`."""
        with self._viseme_lock:
            super().push_audio(pcm)
            if len(pcm) == 0:
                return
            waiting = self._waiting_visemes()
            if not waiting or waiting[-1].has_ended:
                waiting.append(UtteranceVisemes(self.sample_rate))
            waiting[-1].push(pcm)

    def flush(self) -> None:
        """See `AvatarSession.flush`."""
        with self._viseme_lock:
            super().flush()
            waiting = self._waiting_visemes()
            if waiting:
                waiting[-1].has_ended = True

    def _waiting_visemes(self) -> deque[UtteranceVisemes]:
        """Return the utterances of this generation; an interrupt has dropped those before."""
        if self._viseme_generation != self.generation:
            self._viseme_generation = self.generation
            self._utterance_visemes.clear()
        return self._utterance_visemes

    def frames(self) -> Iterator[TimedFrame]:
        """See `AvatarSession.frames`."""
        return map(self.with_visemes, super().frames())

    def idle(self) -> TimedFrame:
        """See `AvatarSession.idle`."""
        return self.with_visemes(super().idle())

    def with_visemes(self, timed: TimedFrame) -> TimedFrame:
        """Return the next frame with its visemes, which a network estimates: a millisecond for each 12.5 ms."""
        if not timed.is_speaking:
            before, self._rest_generation = self._rest_generation, timed.generation
            return timed if before == timed.generation else replace(timed, visemes=REST)
        self._rest_generation = None
        with self._viseme_lock:
            if timed.generation != self.generation:
                return timed  # interrupted meanwhile: it is dropped
            waiting = self._waiting_visemes()
            while waiting and waiting[0].is_over:
                waiting.popleft()
            first = waiting[0] if waiting else None
        found = None if first is None else first.take()
        return timed if found is None else replace(timed, visemes=describe(found))


def load_in_background() -> None:
    """Load the network in a thread, which takes a fifth of a second. A failure is raised again where it is used."""

    def load() -> None:
        with contextlib.suppress(WrongWeights):
            load_network()

    threading.Thread(target=load, name="visemes", daemon=True).start()


def describe(frame: VisemeFrame) -> dict[str, Any]:
    """Return the visemes of a frame as the fields of an event."""
    return {
        "phoneme": frame.phoneme,
        "viseme": frame.viseme,
        "weights": named(OCULUS_VISEMES, frame.weights),
        "blendshapes": named(BLENDSHAPES, frame.blendshapes),
    }


def named(names: tuple[str, ...], values: npt.NDArray[np.float32]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in zip(names, values.tolist(), strict=True)}
