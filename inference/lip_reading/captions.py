"""Captions from timed words: SubRip, WebVTT, and a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from inference.lip_reading.options import Word

LINE_WIDTH, MAX_LINES = 42, 2  # characters per line and lines per caption, as in broadcasting
PAUSE_S = 0.8  # seconds of silence that end a caption
MAX_DURATION_S = 6.0  # seconds on screen
MIN_DURATION_S = 0.8  # seconds on screen, if the next caption leaves room
READING_RATE = 17.0  # characters per second that viewers read; sets the display time if there is room

CaptionFormat = Literal["srt", "vtt", "tsv"]


@dataclass(frozen=True)
class Caption:
    """Lines of text and the time they are shown, in seconds."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def format_captions(words: Sequence[Word], caption_format: CaptionFormat) -> str:
    """Format words as captions.

    Returns: SubRip or WebVTT, or a table with tabs: start and end in milliseconds, and the text.
    """
    captions = cut_captions(words)
    if caption_format == "tsv":
        lines = [f"{round(c.start_s * 1000)}\t{round(c.end_s * 1000)}\t{' '.join(c.lines)}\n" for c in captions]
        return "start\tend\ttext\n" + "".join(lines)
    import pysubs2  # late: most callers take the text

    file = pysubs2.SSAFile()
    for caption in captions:
        text = r"\N".join(caption.lines)
        file.append(pysubs2.SSAEvent(start=round(caption.start_s * 1000), end=round(caption.end_s * 1000), text=text))
    return str(file.to_string(caption_format))


def cut_captions(words: Sequence[Word]) -> list[Caption]:
    """Split words into captions of at most two lines of 42 characters.

    Each caption stays on screen for as long as it takes to read, if the next one leaves room.
    """
    groups = list(group_words(words))
    starts = [seconds_or_zero(words[0].start) for words in groups]
    next_starts = [next_start for _, next_start in pairwise([*starts, float("inf")])]
    return [
        Caption(start, end_time(words, start, latest), tuple(textwrap.wrap(join_words(words), LINE_WIDTH)))
        for words, start, latest in zip(groups, starts, next_starts, strict=True)
    ]


def end_time(words: Sequence[Word], start_s: float, latest_s: float) -> float:
    """Return the end time: after the last word, and long enough to read if the next caption leaves room."""
    reading_s = max(MIN_DURATION_S, min(len(join_words(words)) / READING_RATE, MAX_DURATION_S))
    return max(seconds_or_zero(words[-1].end), min(start_s + reading_s, latest_s))


def group_words(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Yield the words of each caption."""
    current: list[Word] = []
    for word in words:
        if current and starts_new_caption(current, word):
            yield current
            current = []
        current.append(word)
    if current:
        yield current


def starts_new_caption(current: list[Word], word: Word) -> bool:
    is_too_wide = len(textwrap.wrap(join_words([*current, word]), LINE_WIDTH)) > MAX_LINES
    is_after_pause = seconds_or_zero(word.start) - seconds_or_zero(current[-1].end) >= PAUSE_S
    is_too_long = seconds_or_zero(word.end) - seconds_or_zero(current[0].start) > MAX_DURATION_S
    return is_too_wide or is_after_pause or is_too_long


def join_words(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def seconds_or_zero(seconds: float | None) -> float:
    return seconds if seconds is not None else 0.0
