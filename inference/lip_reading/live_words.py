"""Words of a long video, told while it is still being read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inference.lip_reading.decode import Emitted, Logits, decode_greedy, split_words, words_of
from inference.lip_reading.options import Word
from inference.lip_reading.preprocess import WINDOW

# Called with words that are settled, in order, while a long video is still being read.
OnWords = Callable[[list[Word]], None]


class WordStream:
    """Gathers rows of logits and tells each word, by greedy decoding, as soon as no later window can change it."""

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

    def _settle(self, n_settled: int) -> None:
        """Tell what the first rows say, which stay as they are."""
        emitted = decode_greedy(self._rows[:n_settled].argmax(axis=1))
        spoken = [letters for letters in split_words(emitted) if letters[-1].last < n_settled - 1]
        whole = spoken[:-1]  # the last one may go on
        if whole:
            space = Emitted(" ", 0, 0)
            letters = [one for word in whole for one in (*word, space)]
            shift_s, n_told = self._first / self._fps, whole[-1][-1].last + 1
            self._on_words([moved(word, shift_s) for word in words_of(letters, self._rows, self._fps)])
            self._rows, self._first = self._rows[n_told:], self._first + n_told


def moved(word: Word, shift_s: float) -> Word:
    """The same word, later."""
    assert word.start is not None
    assert word.end is not None
    return replace(word, start=round(word.start + shift_s, 3), end=round(word.end + shift_s, 3))
