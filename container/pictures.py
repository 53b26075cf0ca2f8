"""Pictures for people: words drawn over frames, and the mouth over time."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from inference.lip_reading import Word

Picture = npt.NDArray[np.uint8]  # (H, W, 3) BGR

FONT = "sans"  # built into OpenCV
WHITE, GREY, DARK, BAR = (255, 255, 255), (150, 150, 150), (28, 28, 28), (120, 84, 30)
PER_ROW = 15  # mouths
WIDEST = 0.94  # of the frame, that a line of a caption may be
LABEL_HEIGHT = 26
GAP = 2


def caption(frame: Picture, lines: Sequence[str]) -> Picture:
    """A copy of the frame with lines of text over a dark band near its lower edge; the text shrinks to fit."""
    height, width = frame.shape[:2]
    shown = frame.copy()
    if not any(lines):
        return shown
    font, size = cv2.FontFace(FONT), max(round(height / 14), 10)
    widest = max(text_width(line, size) for line in lines)
    if widest > width * WIDEST:
        size = max(int(size * width * WIDEST / widest), 6)
    spacing, edge = round(size * 1.35), round(size * 0.35)
    lowest = round(height * 0.94)
    for baseline, line in zip(range(lowest - spacing * (len(lines) - 1), height, spacing), lines, strict=False):
        x = (width - text_width(line, size)) // 2
        band = shown[max(baseline - size - edge // 2, 0) : baseline + edge, max(x - edge, 0) : width - x + edge]
        band[:] = band // 4
        cv2.putText(shown, line, (x, baseline), WHITE, font, size)
    return shown


def text_width(line: str, size: int) -> int:
    """In pixels, from the origin of its first character."""
    left, _, n_columns, _ = cv2.getTextSize((1, 1), line, (0, 0), cv2.FontFace(FONT), size)
    return int(left + n_columns)


def text_at(words: Sequence[Word], at_s: float, linger_s: float = 0.4) -> str:
    """The words said so far at a moment, from the last pause on: what a caption that grows shows."""
    said: list[str] = []
    last_end = 0.0
    for word in words:
        if word.start is None or word.end is None or word.start > at_s:
            break
        if said and word.start - last_end > linger_s:
            said = []
        said.append(word.word)
        last_end = word.end
    return " ".join(said) if at_s <= last_end + linger_s else ""


def mouth_strip(mouths: Sequence[Picture], words: Sequence[Word], fps: float) -> Picture:
    """All mouths in rows of 15, each word over those that say it.

    mouths: (64, 128, 3) uint8 BGR, one for each frame.
    """
    height, width = mouths[0].shape[:2]
    n_rows = -(-len(mouths) // PER_ROW)
    row_height = LABEL_HEIGHT + height + GAP
    sheet = np.full((n_rows * row_height + GAP, PER_ROW * (width + GAP) + GAP, 3), DARK, np.uint8)
    for i, mouth in enumerate(mouths):
        row, column = divmod(i, PER_ROW)
        top, left = row * row_height + LABEL_HEIGHT, column * (width + GAP) + GAP
        sheet[top : top + height, left : left + width] = mouth
    for word in words:
        if word.start is not None and word.end is not None:
            label(
                sheet,
                word,
                (round(word.start * fps), max(round(word.end * fps), round(word.start * fps) + 1)),
                row_height,
            )
    return sheet


def label(sheet: Picture, word: Word, frames: tuple[int, int], row_height: int) -> None:
    """A bar over the frames [first, end) of a word, in place; it may run on into the next row."""
    cell = (sheet.shape[1] - GAP) // PER_ROW
    n_frames = sheet.shape[0] // row_height * PER_ROW
    first, end = max(frames[0], 0), min(frames[1], n_frames)
    for row in range(first // PER_ROW, (end - 1) // PER_ROW + 1):
        left = max(first - row * PER_ROW, 0) * cell + GAP
        right = min(end - row * PER_ROW, PER_ROW) * cell
        top = row * row_height + 3
        cv2.rectangle(sheet, (left, top), (right - 1, top + LABEL_HEIGHT - 6), BAR, -1)
        cv2.putText(sheet, word.word, (left + 6, top + LABEL_HEIGHT - 10), WHITE, cv2.FontFace(FONT), 15)
