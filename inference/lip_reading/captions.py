"""Captions out of words with times."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal

import pysubs2

from inference.lip_reading.options import Word

LINE_WIDTH, LINES = 42, 2  # characters and lines on the screen, as broadcasters have it
PAUSE_S = 0.8  # a silence this long ends a caption
LONGEST_S = 6.0
SHORTEST_S = 0.8  # on the screen, where the next caption leaves room

CaptionFormat = Literal["srt", "vtt"]


def to_captions(words: Sequence[Word], form: CaptionFormat) -> str:
    """SubRip or WebVTT."""
    file = pysubs2.SSAFile()
    captions = list(group(words))
    for i, caption in enumerate(captions):
        start, end = time_of(caption[0].start), time_of(caption[-1].end)
        latest = time_of(captions[i + 1][0].start) if i + 1 < len(captions) else float("inf")
        end = max(end, min(start + SHORTEST_S, latest))
        text = r"\N".join(textwrap.wrap(text_of(caption), LINE_WIDTH))
        file.append(pysubs2.SSAEvent(start=round(start * 1000), end=round(end * 1000), text=text))
    return str(file.to_string(form))


def group(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words that share a caption."""
    held: list[Word] = []
    for word in words:
        if held and must_break(held, word):
            yield held
            held = []
        held.append(word)
    if held:
        yield held


def must_break(held: list[Word], word: Word) -> bool:
    too_wide = len(textwrap.wrap(text_of([*held, word]), LINE_WIDTH)) > LINES
    paused = time_of(word.start) - time_of(held[-1].end) >= PAUSE_S
    too_long = time_of(word.end) - time_of(held[0].start) > LONGEST_S
    return too_wide or paused or too_long


def text_of(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def time_of(seconds: float | None) -> float:
    return seconds if seconds is not None else 0.0
