"""Words of a long video, told while it is still being read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.decode import Emitted, Logits, decode_greedy, log_softmax, split_words, words_of
from inference.lip_reading.grammar import REACH, cut_segments, grid_lattice, read_sentence
from inference.lip_reading.lattice import HOPELESS, IDLE, settled_path
from inference.lip_reading.options import Word
from inference.lip_reading.preprocess import WINDOW

# Rows held before what is likely counts as settled: in a long silence a sentence that lacks its last letter stays
# but little behind, and to hold an hour of it, decoded again with every window, would take the square of its length.
LONGEST_HELD = 5 * WINDOW  # frames, 15 s: several sentences
LIKELY = 5.0  # nats: the next path is 150 times less probable

OnWords = Callable[[list[Word]], None]


class LiveRows(ABC):
    """Gathers rows of logits and tells each word once, as soon as no later window can change it."""

    def __init__(self, on_words: OnWords, fps: float) -> None:
        self._on_words = on_words
        self._fps = fps
        self._rows: Logits = np.zeros((0, 0), np.float32)  # those not told yet
        self._first = 0  # the frame that the first of them is of

    def hear(self, rows: Logits, start: int) -> None:
        """Take the rows of one window from frame `start` on; they replace what was heard of these frames."""
        known = self._rows[: start - self._first]
        self._rows = np.concatenate([known, rows]) if len(known) else rows
        # The last window of a video may reach back, but to the middle of what it shares at the most.
        self._settle(max(len(self._rows) - WINDOW // 2 - 1, 0))

    @abstractmethod
    def _settle(self, n_settled: int) -> None:
        """Tell what the first rows say, which stay as they are."""

    def _tell(self, words: list[Word], n_told: int) -> None:
        """words: with times from the first row held. n_told: rows that are done with."""
        shift_s = self._first / self._fps
        if words:
            self._on_words([moved(word, shift_s) for word in words])
        self._rows, self._first = self._rows[n_told:], self._first + n_told


class WordStream(LiveRows):
    """By greedy decoding, which settles word by word."""

    def _settle(self, n_settled: int) -> None:
        emitted = decode_greedy(self._rows[:n_settled].argmax(axis=1))
        spoken = [letters for letters in split_words(emitted) if letters[-1].last < n_settled - 1]
        whole = spoken[:-1]  # the last one may go on
        if whole:
            space = Emitted(" ", 0, 0)
            letters = [one for word in whole for one in (*word, space)]
            self._tell(words_of(letters, self._rows, self._fps), whole[-1][-1].last + 1)


class SentenceStream(LiveRows):
    """By the grammar, which settles a sentence when the next one has begun, or after a long pause."""

    def __init__(self, on_words: OnWords, fps: float, calibration: Calibration) -> None:
        super().__init__(on_words, fps)
        self._calibration = calibration
        self._state = IDLE  # that the rows before those held end in

    def _settle(self, n_settled: int) -> None:
        log_p = log_softmax(self._rows[:n_settled].astype(np.float64))
        hopeless = HOPELESS if n_settled < LONGEST_HELD else LIKELY
        path = settled_path(grid_lattice(), log_p, self._state, hopeless)
        segments = cut_segments(path)
        # From here on no sentence can reach back to a segment's end; see `cut_segments`.
        is_paused = (
            bool(segments) and path[-1] in grid_lattice().closed and len(path) >= segments[-1].closes + 2 * REACH
        )
        whole = segments if is_paused else segments[:-1]
        read = [read_sentence(log_p, path, one, self._fps, 1, self._calibration) for one in whole]
        # Rows of a pause are held as long as a sentence to come may reach back to them.
        n_done = len(path) - REACH if len(whole) == len(segments) else segments[-1].first
        if n_done > 0:
            self._state = int(path[n_done - 1])
            self._tell([word for sentence in read for word in sentence.words], n_done)


def moved(word: Word, shift_s: float) -> Word:
    """The same word, later."""
    assert word.start is not None
    assert word.end is not None
    return replace(word, start=round(word.start + shift_s, 3), end=round(word.end + shift_s, 3))
