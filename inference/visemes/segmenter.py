"""Phonemes in time: the likeliest sequence of classes, each of which lasts for a while (Viterbi's algorithm)."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from inference.audio.mel import MEL_RATE

STEP_S = 1 / MEL_RATE  # 12.5 ms
MIN_STEPS = 3  # steps that a class lasts at least: 37.5 ms
LAG_STEPS = 8  # later steps that a decision waits for: 100 ms
# Nats that a change costs. Chosen, as the two above, on voices that were trained on.
CHANGE_COST = 2.5
FLOOR = 1e-8  # of a posterior


class PhonemeSegmenter:
    """Decides on the class of each step, `LAG_STEPS` later.

    State d * n + c: class c, which has lasted for d + 1 steps; those of the last d have lasted for MIN_STEPS or more.
    Only from these another class begins. Decisions agree with one another: paths that contradict one are dropped.
    """

    def __init__(self, n_classes: int) -> None:
        self._n = n_classes
        self._scores: npt.NDArray[np.float64] | None = None
        self._back: deque[npt.NDArray[np.intp]] = deque()  # of each undecided step: the state before each state

    def push(self, posteriors: npt.NDArray[np.float32]) -> list[int]:
        """Add a step, (n_classes,) that sum to 1. Return the class of the step that this decides on, if any."""
        likelihood = np.tile(np.log(np.maximum(posteriors, FLOOR)), MIN_STEPS)
        if self._scores is None:
            # A first segment may have begun before the audio, so that any length is possible.
            self._scores = likelihood.astype(np.float64)
            return []
        before, states = self._advance(self._scores)
        self._scores = before + likelihood
        self._back.append(states)
        return [self._decide()] if len(self._back) >= LAG_STEPS else []

    def _advance(self, scores: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Return the best score of each state before the new step counts, and the state that it comes from."""
        n, last = self._n, (MIN_STEPS - 1) * self._n
        states = np.arange(MIN_STEPS * n) - n  # a class that goes on
        best = int(last + scores[last:].argmax())
        states[:n] = best  # a class that begins
        stays = scores[last:] >= scores[last - n : last]
        states[last:][stays] += n  # a class that has lasted long enough
        before = scores[states]
        before[:n] -= CHANGE_COST
        return before, states

    def _decide(self) -> int:
        """Return the class of the oldest undecided step on the best path, and drop the paths with another state."""
        assert self._scores is not None
        first = self._trace(np.arange(len(self._scores)))
        chosen = first[self._scores.argmax()]
        self._scores = np.where(first == chosen, self._scores, -np.inf)
        self._scores -= self._scores.max()  # so that sums do not grow with the audio
        self._back.popleft()
        return int(chosen) % self._n

    def _trace(self, states: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Follow states of the last step back to the oldest undecided one."""
        for back in reversed(self._back):
            states = back[states]
        return states

    def finish(self) -> list[int]:
        """Return the classes of all undecided steps; nothing can be added afterwards."""
        if self._scores is None:
            return []
        path = [int(self._scores.argmax())]
        for back in reversed(self._back):
            path.append(int(back[path[-1]]))
        self._back.clear()
        return [state % self._n for state in reversed(path)]
