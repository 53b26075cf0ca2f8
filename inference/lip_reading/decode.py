"""From logits to words."""

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
class Emitted:
    """A character and the run of frames that said it; `last` is inclusive."""

    character: str
    first: int
    last: int


@dataclass(frozen=True)
class Reading:
    """What logits say. confidence: 0..1, 0 where nothing was read. alternatives: best first, with the text itself."""

    text: str
    words: tuple[Word, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()


def read_greedy(logits: Logits, fps: float) -> Reading:
    """The text of the best class of each frame; the reference that every other decoder is compared with."""
    emitted = decode_greedy(np.argmax(logits, axis=1))
    confidence = round(confidence_of(emitted, log_softmax(logits)), 4)
    return Reading(text_of(emitted), tuple(words_of(emitted, logits, fps)), confidence)


def decode_greedy(labels: npt.NDArray[np.integer]) -> list[Emitted]:
    """The best class of each frame -> characters, by CTC's rule.

    labels: (T,) 0..27. A class counts where it differs from the frame before and is no blank; a space
    after a space is skipped; spaces at both ends are cut.
    Source: SilentSpeak/LipCoordNet dataset.py ctc_arr2txt.
    """
    emitted: list[Emitted] = []
    at = 0
    for label, run in groupby(labels.tolist()):
        first, at = at, at + len(list(run))
        if label < FIRST_SYMBOL:
            continue
        character = SYMBOLS[label - FIRST_SYMBOL]
        if character == SPACE and emitted and emitted[-1].character == SPACE:
            continue
        emitted.append(Emitted(character, first, at - 1))
    return strip(emitted)


def strip(emitted: list[Emitted]) -> list[Emitted]:
    kept = [i for i, one in enumerate(emitted) if one.character != SPACE]
    return emitted[kept[0] : kept[-1] + 1] if kept else []


def text_of(emitted: list[Emitted]) -> str:
    return "".join(one.character for one in emitted)


def words_of(emitted: list[Emitted], logits: Logits, fps: float) -> list[Word]:
    """Words with the times of the frames that said them.

    logits: (T, 28). A word starts with the first frame of its first character and ends after the last
    frame of its last. Confidence: geometric mean of its characters' probabilities, each where it peaks.
    """
    log_p = log_softmax(logits)
    return [
        Word(
            word=text_of(letters),
            start=round(letters[0].first / fps, 3),
            end=round((letters[-1].last + 1) / fps, 3),
            confidence=round(confidence_of(letters, log_p), 4),
        )
        for letters in split_words(emitted)
    ]


def split_words(emitted: list[Emitted]) -> Iterator[list[Emitted]]:
    for is_space, letters in groupby(emitted, key=lambda one: one.character == SPACE):
        if not is_space:
            yield list(letters)


def confidence_of(emitted: list[Emitted], log_p: Logits) -> float:
    """Geometric mean over characters of the highest probability each reaches; 0 for none."""
    if not emitted:
        return 0.0
    peaks = [log_p[one.first : one.last + 1, SYMBOLS.index(one.character) + FIRST_SYMBOL].max() for one in emitted]
    return float(np.exp(np.mean(peaks)))


def log_softmax(logits: npt.NDArray[Real]) -> npt.NDArray[Real]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[Real] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
