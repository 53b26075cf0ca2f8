"""Long films, sentence by sentence: each read as a clip of its own.

The networks were trained on clips of one sentence with a mouth at rest before and after it. A window that cuts a
sentence in two, or shows parts of two, they read badly; the same frames without their neighbours, and with the first
and the last held for a while, they read as well as a clip. So a film is walked through: of all the places where the
next sentence may end, the one is taken up to which the frames most probably say exactly one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.decode import Logits, decode_greedy, log_softmax
from inference.lip_reading.grammar import GRID, N_HEAD, Passage, count_stray_words, read_passage
from inference.lip_reading.lattice import weigh_sentences
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import WINDOW, Mouth, stack_window
from inference.lip_reading.windows import SILENT_HOLE, Network, run_windows

SHORTEST = 25  # frames, one second: six words take longer
# Frames after which the next sentence may end: those looked at first, the neighbours of the best of them, and, where
# none says a sentence clearly, more. Past a window its last 75 frames are looked at: a pause came before.
FIRST_ENDS = tuple(range(31, WINDOW + 1, 6))
NEAR = (-3, 3)
MORE_ENDS = tuple(range(28, WINDOW + 1, 3))
FAR_ENDS = tuple(range(WINDOW + 6, WINDOW + 40, 6))
FARTHEST = FAR_ENDS[-1] + max(NEAR)
CLEAR = -2.5  # nats: a twelfth of all that could be read there is one sentence
HOPELESS = -15.0  # nats: no end nearby makes a sentence of what is so far from one
PACE = 24  # frames gone on by where no sentence is read: what is left of a window holds a whole one
LEAST_WEIGHT = 1e-300


@dataclass(frozen=True)
class Attempt:
    """Frames of the held ones, read as a clip: [start, end). rows: (75, 28), of which `n_before` come before them.
    score: the log of how probably they say exactly one sentence.
    """

    start: int
    end: int
    n_before: int
    rows: Logits
    score: float


def read_by_sentence(
    mouths: Iterable[Mouth], network: Network, n_best: int, calibration: Calibration
) -> Iterator[Passage]:
    """A film's sentences, with their times in it; nothing is read into a long hole. At most 114 frames are held."""
    first = 0
    for is_hole, stretch in groupby(mouths, key=lambda mouth: mouth.hole >= SILENT_HOLE):
        if is_hole:
            first += sum(1 for _ in stretch)
            continue
        walk = Walk(stretch, network, first)
        yield from walk.passages(n_best, calibration)
        first = walk.first


class Walk:
    """Through a stretch of film without a long hole. first: the frame of the film that the next one held is."""

    def __init__(self, mouths: Iterable[Mouth], network: Network, first: int) -> None:
        self._mouths = iter(mouths)
        self._network = network
        self._held: list[Mouth] = []
        self.first = first

    def passages(self, n_best: int, calibration: Calibration) -> Iterator[Passage]:
        """A passage for each sentence, and for each second in which none begins."""
        while self._hold(FARTHEST) >= SHORTEST:
            best = self._glance() or self._find_end()
            passage = read_passage(best.rows, FPS, n_best, calibration)
            if passage.sentences:
                start, end = (self.first + at for at in (best.start, best.end))
                yield passage.moved(start - best.n_before, start, end, FPS)
                self._drop(best.end)
            else:
                said_nothing = best.rows[best.n_before : best.n_before + PACE]
                yield Passage((), count_stray_words(log_softmax(said_nothing.astype(np.float64)), ()))
                self._drop(PACE)
        self._drop(len(self._held))

    def _hold(self, n_frames: int) -> int:
        """Hold so many frames, or what is left of the stretch; returns how many are held."""
        self._held += islice(self._mouths, n_frames - len(self._held))
        return len(self._held)

    def _drop(self, n_frames: int) -> None:
        self._held = self._held[n_frames:]
        self.first += n_frames

    def _glance(self) -> Attempt | None:
        """A window of the frames held, if not a character is read in it: then no end has to be looked for."""
        whole = self._attempt(0, min(len(self._held), WINDOW))
        return None if decode_greedy(whole.rows.argmax(axis=1)) else whole

    def _find_end(self) -> Attempt:
        """The best attempt at the next sentence."""
        last = len(self._held)
        tried: dict[int, Attempt] = {}
        best = self._try([*FIRST_ENDS, last] if last <= WINDOW else FIRST_ENDS, tried)
        best = self._try([best.end + step for step in NEAR], tried)
        if best.score < CLEAR:
            best = self._try([*FAR_ENDS, *[last] * (last < FARTHEST)], tried)
        if HOPELESS < best.score < CLEAR:
            best = self._try([*MORE_ENDS, *(best.end + step for step in NEAR)], tried)
        return best

    def _try(self, ends: Iterable[int], tried: dict[int, Attempt]) -> Attempt:
        """Read up to each of these ends that was not tried; returns the best of all."""
        for end in ends:
            if end not in tried and SHORTEST <= end <= len(self._held):
                tried[end] = self._attempt(max(end - WINDOW, 0), end)
        return max(tried.values(), key=lambda one: one.score)

    def _attempt(self, start: int, end: int) -> Attempt:
        """Read these frames in the middle of a window, the first and the last held on both sides."""
        own = self._held[start:end]
        n_before = (WINDOW - len(own)) // 2
        clip = [own[0]] * n_before + own + [own[-1]] * (WINDOW - len(own) - n_before)
        ((_, rows),) = run_windows([stack_window(clip, WINDOW)], self._network, 1)
        return Attempt(start, end, n_before, rows, score_one_sentence(rows))


def score_one_sentence(rows: Logits) -> float:
    """The log of the probability of exactly one sentence of the language, whichever, in (T, 28) logits."""
    log_p = log_softmax(rows.astype(np.float64))
    highest = log_p.max(axis=1)
    weights = weigh_sentences(GRID, N_HEAD, np.exp(log_p - highest[:, None]))
    return math.log(max(float(weights.sum()), LEAST_WEIGHT)) + float(highest.sum())
