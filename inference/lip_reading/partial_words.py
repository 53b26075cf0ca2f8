"""Words of a long video, emitted while it is still being read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inference.lip_reading.greedy_decoder import EmittedCharacter, Logits, decode_greedy, split_words, words_with_times
from inference.lip_reading.options import Word
from inference.lip_reading.preprocess import WINDOW_FRAMES

# Called with settled words, in order, while a long video is still being read.
OnWords = Callable[[list[Word]], None]


class WordStream:
    """Decodes rows of logits greedily and emits each word as soon as no later window can change it."""

    def __init__(self, on_words: OnWords, fps: float) -> None:
        self._on_words = on_words
        self._fps = fps
        self._rows: Logits = np.zeros((0, 0), np.float32)  # rows not emitted yet
        self._first_frame = 0  # frame of the first of these rows

    def add_rows(self, rows: Logits, start: int) -> None:
        """Add the rows of one window, from frame `start` on; they replace earlier rows of these frames."""
        kept = self._rows[: start - self._first_frame]
        self._rows = np.concatenate([kept, rows]) if len(kept) else rows
        # The last window of a video may overlap, but changes at most the later half of the shared frames.
        self._emit_settled(max(len(self._rows) - WINDOW_FRAMES // 2 - 1, 0))

    def _emit_settled(self, n_settled: int) -> None:
        """Emit the words of the first rows, which no longer change."""
        emitted = decode_greedy(self._rows[:n_settled].argmax(axis=1))
        words = [letters for letters in split_words(emitted) if letters[-1].last < n_settled - 1]
        settled = words[:-1]  # the last word may go on
        if settled:
            space = EmittedCharacter(" ", 0, 0)
            letters = [one for word in settled for one in (*word, space)]
            shift_s, n_emitted = self._first_frame / self._fps, settled[-1][-1].last + 1
            self._on_words([shift_word(word, shift_s) for word in words_with_times(letters, self._rows, self._fps)])
            self._rows, self._first_frame = self._rows[n_emitted:], self._first_frame + n_emitted


def shift_word(word: Word, shift_s: float) -> Word:
    """Return the same word, later."""
    assert word.start is not None
    assert word.end is not None
    return replace(word, start=round(word.start + shift_s, 3), end=round(word.end + shift_s, 3))
