"""Captions out of words with times."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pysubs2

from inference.lip_reading.options import Word

LINE_WIDTH, LINES = 42, 2  # characters and lines on the screen, as broadcasters have it
PAUSE_S = 0.8  # a silence this long ends a caption
LONGEST_S = 6.0
SHORTEST_S = 0.8  # on the screen, where the next caption leaves room
READING_RATE = 17.0  # characters a second that a viewer reads; a caption stays so long where there is room

CaptionFormat = Literal["srt", "vtt", "tsv"]


@dataclass(frozen=True)
class Caption:
    """Lines of text and when they are shown, in seconds."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def to_captions(words: Sequence[Word], form: CaptionFormat) -> str:
    """SubRip, WebVTT, or a table with tabs: start and end in milliseconds, and the text."""
    captions = cut_captions(words)
    if form == "tsv":
        rows = [f"{round(c.start_s * 1000)}\t{round(c.end_s * 1000)}\t{' '.join(c.lines)}\n" for c in captions]
        return "start\tend\ttext\n" + "".join(rows)
    file = pysubs2.SSAFile()
    for one in captions:
        text = r"\N".join(one.lines)
        file.append(pysubs2.SSAEvent(start=round(one.start_s * 1000), end=round(one.end_s * 1000), text=text))
    return str(file.to_string(form))


def cut_captions(words: Sequence[Word]) -> list[Caption]:
    """Captions of up to two lines of 42 characters, each as long on the screen as it takes to read it, where
    the next one leaves room.
    """
    groups = list(group(words))
    starts = [time_of(words[0].start) for words in groups]
    following = [next_start for _, next_start in pairwise([*starts, float("inf")])]
    return [
        Caption(start, end_of(words, start, latest), tuple(textwrap.wrap(text_of(words), LINE_WIDTH)))
        for words, start, latest in zip(groups, starts, following, strict=True)
    ]


def end_of(words: Sequence[Word], start_s: float, latest_s: float) -> float:
    """When a caption goes: after its last word, and not before it can be read."""
    to_read_s = max(SHORTEST_S, min(len(text_of(words)) / READING_RATE, LONGEST_S))
    return max(time_of(words[-1].end), min(start_s + to_read_s, latest_s))


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
