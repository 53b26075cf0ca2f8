"""Visemes of a stream of audio, as it arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inference.audio import MEL_WINDOW, SAMPLE_RATE, SampleBuffer
from inference.audio.mel import HOP, N_FFT, PRE_EMPHASIS_REACH, Samples, compute_unpadded_mel
from inference.visemes.blendshapes import MouthEstimate, Values, blendshapes_of
from inference.visemes.network import SpeechNetwork, SpeechPrediction
from inference.visemes.phonemes import OCULUS_VISEMES, PHONEME_VISEMES, Weights, mixing_matrix
from inference.visemes.segmenter import LAG_STEPS, STEP_S, PhonemeSegmenter

FPS = 25  # frames a second, as of live avatars
FRAME_SAMPLES = SAMPLE_RATE // FPS
# The encoder was trained with windows that start a frame before theirs, rounded down to a column: on average 3.6
# columns before the time they belong to, which is the middle of a step if it is 3 before its start.
COLUMNS_BEFORE = 3
# From the first sample of a step to one past the last that its window depends on: 175 ms.
STEP_LOOK_AHEAD = (MEL_WINDOW - 1 - COLUMNS_BEFORE) * HOP + N_FFT // 2
STEPS_A_FRAME = 4  # at most: a frame of 40 ms has 3 or 4 steps of 12.5 ms
# From the start of a frame to the last sample that its visemes depend on.
LOOK_AHEAD_MS = 1000 * (STEP_LOOK_AHEAD / SAMPLE_RATE + (STEPS_A_FRAME - 1 + LAG_STEPS) * STEP_S)  # 312.5
BLOCK_STEPS = 64  # run at a time, so that memory does not grow with the audio


class Mouth(NamedTuple):
    """A mouth and its phonemes. shape: (5,), opening, height, width, contact, and 1 to count it."""

    posteriors: npt.NDArray[np.float32]
    shape: npt.NDArray[np.float32]


@dataclass(frozen=True)
class VisemeFrame:
    """A frame of 40 ms. Frame k starts at k / 25 s.

    phoneme: by espeak-ng's name; "_" is silence. viseme: of it, by Oculus's name. weights: (15,) of the visemes in
    Oculus's order, 0..1, which sum to 1. blendshapes: (13,), 0..1, in the order of BLENDSHAPES.
    """

    index: int
    phoneme: str
    viseme: str
    weights: Weights
    blendshapes: Values

    @property
    def start_s(self) -> float:
        return self.index / FPS


@dataclass(frozen=True)
class VisemeSegment:
    """A viseme in time; a diphthong has two. start_s, end_s: in seconds. The rest as in `VisemeFrame`."""

    start_s: float
    end_s: float
    phoneme: str
    viseme: str
    weights: Weights
    blendshapes: Values


@dataclass(frozen=True)
class VisemeUpdate:
    """What is known since the last update, in order."""

    frames: tuple[VisemeFrame, ...] = ()
    segments: tuple[VisemeSegment, ...] = ()


@dataclass
class MouthSum:
    """The mean of mouths with a first step, one by one. phoneme: of the segment; None for a frame."""

    first: int
    phoneme: int | None = None
    total: Mouth | None = None
    phonemes: list[int] = field(default_factory=list)

    def add(self, mouth: Mouth) -> None:
        previous = self.total
        self.total = mouth if previous is None else Mouth(*(a + b for a, b in zip(previous, mouth, strict=True)))

    def mean(self) -> Mouth:
        assert self.total is not None
        n = self.total.shape[-1]
        return Mouth(self.total.posteriors / n, self.total.shape / n)


class VisemeStream:
    """Push audio, get visemes: those of a frame at most 312.5 ms of audio after its start.

    The result does not depend on how the audio is split. Use it in one thread at a time.
    """

    def __init__(self, network: SpeechNetwork) -> None:
        self._network = network
        self._matrix = mixing_matrix(network.classes)
        self._samples = SampleBuffer()
        self._n_run = 0  # steps that the network has run
        self._segmenter = PhonemeSegmenter(len(network.classes))
        self._undecided: deque[Mouth] = deque()
        self._n_decided = 0
        self._frame: MouthSum | None = None
        self._segment: MouthSum | None = None

    def push(self, samples: Samples) -> VisemeUpdate:
        """Add audio: (n,) int16, 16 kHz mono. Return the frames and segments that it completes."""
        self._samples.append(samples)
        return self._run(max((self._samples.end - STEP_LOOK_AHEAD) // HOP + 1, 0))

    def finish(self) -> VisemeUpdate:
        """Return the rest, as if silence followed. Nothing can be pushed afterwards."""
        n_steps, duration_s = -(-self._samples.end // HOP), self._samples.end / SAMPLE_RATE
        update = self._run(n_steps)
        frames, segments = list(update.frames), list(update.segments)
        for phoneme in self._segmenter.finish():
            self._add_decided(phoneme, frames, segments)
        if self._frame is not None:
            frames.append(self._complete_frame(self._frame))
        if self._segment is not None:
            segments += self._complete_segment(self._segment, duration_s)
        self._frame = self._segment = None
        return VisemeUpdate(tuple(frames), tuple(segments))

    def _run(self, n_steps: int) -> VisemeUpdate:
        """Run the network up to a step."""
        frames: list[VisemeFrame] = []
        segments: list[VisemeSegment] = []
        while self._n_run < n_steps:
            until = min(self._n_run + BLOCK_STEPS, n_steps)
            for mouth in mouths_of(self._network(self._windows(self._n_run, until))):
                self._undecided.append(mouth)
                for phoneme in self._segmenter.push(mouth.posteriors):
                    self._add_decided(phoneme, frames, segments)
            self._n_run = until
            self._samples.discard_before(first_sample(until))
        return VisemeUpdate(tuple(frames), tuple(segments))

    def _windows(self, first: int, until: int) -> npt.NDArray[np.float32]:
        """Return the mel windows of steps first..until-1: (B, 80, 16)."""
        samples = self._samples.read(first_sample(first), (until - 1) * HOP + STEP_LOOK_AHEAD)
        mel = compute_unpadded_mel(samples)
        return np.lib.stride_tricks.sliding_window_view(mel, MEL_WINDOW, axis=1).transpose(1, 0, 2)

    def _add_decided(self, phoneme: int, frames: list[VisemeFrame], segments: list[VisemeSegment]) -> None:
        """Add the oldest undecided step to its frame, which may be complete then, and to its segment."""
        step, mouth = self._n_decided, self._undecided.popleft()
        self._n_decided += 1
        if self._segment is not None and self._segment.phoneme != phoneme:
            segments += self._complete_segment(self._segment, step * STEP_S)
            self._segment = None
        self._frame = self._frame or MouthSum(step)
        self._segment = self._segment or MouthSum(step, phoneme)
        self._frame.add(mouth)
        self._frame.phonemes.append(phoneme)
        self._segment.add(mouth)
        if frame_of(step + 1) != frame_of(step):
            frames.append(self._complete_frame(self._frame))
            self._frame = None

    def _complete_frame(self, steps: MouthSum) -> VisemeFrame:
        mouth = steps.mean()
        weights = mouth.posteriors @ self._matrix
        name = self._network.classes[max(steps.phonemes, key=steps.phonemes.count)]
        viseme = max(PHONEME_VISEMES[name], key=lambda one: weights[OCULUS_VISEMES.index(one)])
        return VisemeFrame(frame_of(steps.first), name, viseme, weights, blendshapes_of(estimate_of(mouth), weights))

    def _complete_segment(self, steps: MouthSum, end_s: float) -> Iterator[VisemeSegment]:
        """Yield a segment, or one for each viseme of a diphthong, which share its time equally."""
        assert steps.phoneme is not None
        mouth, start_s = steps.mean(), steps.first * STEP_S
        name = self._network.classes[steps.phoneme]
        visemes = PHONEME_VISEMES[name]
        length_s = (end_s - start_s) / len(visemes)
        for k, viseme in enumerate(visemes):
            weights = mouth.posteriors @ self._matrix
            own = mouth.posteriors[steps.phoneme]  # the phoneme counts as the viseme that it has at this time
            weights -= own * self._matrix[steps.phoneme]
            weights[OCULUS_VISEMES.index(viseme)] += own
            weights = np.maximum(weights, 0)
            shapes = blendshapes_of(estimate_of(mouth), weights)
            yield VisemeSegment(start_s + k * length_s, start_s + (k + 1) * length_s, name, viseme, weights, shapes)


def first_sample(step: int) -> int:
    """Return the first sample that the window of a step depends on; negative before the audio."""
    return (step - COLUMNS_BEFORE) * HOP - N_FFT // 2 - PRE_EMPHASIS_REACH


def frame_of(step: int) -> int:
    """Return the frame that a step starts in."""
    return step * HOP // FRAME_SAMPLES


def mouths_of(found: SpeechPrediction) -> Iterator[Mouth]:
    for posteriors, shape, contact in zip(*found, strict=True):
        yield Mouth(posteriors, np.array([*shape, contact, 1], np.float32))


def estimate_of(mouth: Mouth) -> MouthEstimate:
    opening, _, width, contact, _ = mouth.shape.tolist()
    return MouthEstimate(opening, width, contact)
