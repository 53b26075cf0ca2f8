"""Greedy CTC decoding: from logits to words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inference.lip_reading.options import Alternative, Word

Logits = npt.NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)

BLANK = 0
FIRST_SYMBOL = 1
SYMBOLS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # classes 1..27
SPACE = " "


@dataclass(frozen=True)
class EmittedCharacter:
    """A character and the run of frames that emitted it; `last` is inclusive."""

    character: str
    first: int
    last: int


@dataclass(frozen=True)
class DecodedText:
    """Text decoded from logits.

    confidence: 0..1; 0 if there are no words. alternatives: best first; the first is the text itself.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()


def read_greedy(logits: Logits, fps: float) -> DecodedText:
    """Decode the best class of each frame: the reference for every other decoder.

    logits: (T, 28) float32. fps: frames per second, for the times of the words.
    """
    emitted = decode_greedy(np.argmax(logits, axis=1))
    confidence = round(mean_confidence(emitted, log_softmax(logits)), 4)
    return DecodedText(join_characters(emitted), tuple(words_with_times(emitted, logits, fps)), confidence)


def decode_greedy(labels: npt.NDArray[np.integer]) -> list[EmittedCharacter]:
    """Collapse the best class of each frame to characters, by the rule of CTC.

    labels: (T,) 0..27. A class counts if it differs from the frame before and is not the blank; a space
    after a space is skipped; spaces at both ends are removed.
    Source: SilentSpeak/LipCoordNet dataset.py ctc_arr2txt.
    """
    emitted: list[EmittedCharacter] = []
    position = 0
    for label, run in groupby(labels.tolist()):
        first, position = position, position + len(list(run))
        if label < FIRST_SYMBOL:
            continue
        character = SYMBOLS[label - FIRST_SYMBOL]
        if character == SPACE and emitted and emitted[-1].character == SPACE:
            continue
        emitted.append(EmittedCharacter(character, first, position - 1))
    return strip_spaces(emitted)


def strip_spaces(emitted: list[EmittedCharacter]) -> list[EmittedCharacter]:
    """Remove spaces at both ends."""
    kept = [i for i, one in enumerate(emitted) if one.character != SPACE]
    return emitted[kept[0] : kept[-1] + 1] if kept else []


def join_characters(emitted: list[EmittedCharacter]) -> str:
    return "".join(one.character for one in emitted)


def words_with_times(emitted: list[EmittedCharacter], logits: Logits, fps: float) -> list[Word]:
    """Return the words with the times of the frames that emitted them.

    logits: (T, 28). A word starts with the first frame of its first character and ends after the last
    frame of its last. Confidence: geometric mean of the peak probabilities of its characters.
    """
    log_p = log_softmax(logits)
    return [
        Word(
            word=join_characters(letters),
            start=round(letters[0].first / fps, 3),
            end=round((letters[-1].last + 1) / fps, 3),
            confidence=round(mean_confidence(letters, log_p), 4),
        )
        for letters in split_words(emitted)
    ]


def split_words(emitted: list[EmittedCharacter]) -> Iterator[list[EmittedCharacter]]:
    """Yield the characters of each word."""
    for is_space, letters in groupby(emitted, key=lambda one: one.character == SPACE):
        if not is_space:
            yield list(letters)


def mean_confidence(emitted: list[EmittedCharacter], log_p: Logits) -> float:
    """Return the geometric mean of the peak probabilities of the characters; 0 if there are none."""
    if not emitted:
        return 0.0
    peaks = [log_p[one.first : one.last + 1, SYMBOLS.index(one.character) + FIRST_SYMBOL].max() for one in emitted]
    return float(np.exp(np.mean(peaks)))


def log_softmax(logits: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return log probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[Real] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
