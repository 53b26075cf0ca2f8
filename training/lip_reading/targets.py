"""Targets of LipCoordNet: the text for CTC, and a character for each frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.lip_reading.greedy_decoder import FIRST_SYMBOL, SYMBOLS
from training.common.arrays import Floats, Integers
from training.common.mouth_packs import BETWEEN_WORDS

NO_TARGET = -100  # class of frames that cross-entropy ignores


def text_classes(text: str) -> Integers:
    """Return the classes of a text's characters: space 1, A..Z 2..27."""
    return np.array([SYMBOLS.index(character) + FIRST_SYMBOL for character in text], np.int64)


def visible_text(words: Sequence[str], word_indices: Integers, word_progress: Floats) -> str:
    """Return the text spoken in these frames. Of a word cut by either end, the characters whose middle is inside."""
    spoken = word_indices[word_indices != BETWEEN_WORDS]
    if not len(spoken):
        return ""
    first, last = int(spoken[0]), int(spoken[-1])
    visible = []
    for i in range(first, last + 1):
        word = words[i]
        middles = (np.arange(len(word)) + 0.5) / len(word)
        start = word_progress[0] if word_indices[0] == i else 0.0
        end = word_progress[-1] if word_indices[-1] == i else 1.0
        visible.append("".join(np.array(list(word))[(middles >= start) & (middles <= end)]))
    return " ".join(part for part in visible if part)


def spread_characters(words: Sequence[str], word_indices: Integers, word_progress: Floats) -> Integers:
    """Return a character for each frame: the characters of a word take equal parts of its time.

    Returns: (T,) 0..26, counted from the space; NO_TARGET between words, and in the last frame of a word, which CTC may
    need for the space.
    """
    targets = np.full(len(word_indices), NO_TARGET, np.int64)
    for i, word in enumerate(words):
        frames = np.flatnonzero(word_indices == i)
        character = np.minimum((word_progress[frames] * len(word)).astype(np.int64), len(word) - 1)
        targets[frames] = text_classes(word)[character] - FIRST_SYMBOL
        if len(frames) > 1 and i < len(words) - 1:
            targets[frames[-1]] = NO_TARGET
    return targets
