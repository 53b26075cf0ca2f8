"""Words drawn over frames, and over a strip of the mouths that say them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from container.visuals.grid import Colour, Image, ImageGrid, in_rows
from inference.lip_reading import Word

FONT = "sans"  # built into OpenCV
TEXT_COLOUR: Colour = (255, 255, 255)
BAR_COLOUR: Colour = (120, 84, 30)
N_COLUMNS = 15  # mouths in a row of the strip
MAX_LINE_WIDTH = 0.94  # of a caption, as a share of the frame's width
LABEL_HEIGHT, GAP = 26, 2  # px
LABEL_FONT_PX = 15
LINGER_S = 0.4  # s that a caption stays after its last word


def draw_caption(frame: Image, lines: Sequence[str]) -> Image:
    """Return a copy of the frame with lines of text on a dark band near its lower edge; the text shrinks to fit."""
    height, width = frame.shape[:2]
    captioned = frame.copy()
    if not any(lines):
        return captioned
    font, size = cv2.FontFace(FONT), max(round(height / 14), 10)
    widest = max(measure_text(line, size) for line in lines)
    if widest > width * MAX_LINE_WIDTH:
        size = max(int(size * width * MAX_LINE_WIDTH / widest), 6)
    spacing, edge = round(size * 1.35), round(size * 0.35)
    lowest = round(height * 0.94)
    for baseline, line in zip(range(lowest - spacing * (len(lines) - 1), height, spacing), lines, strict=False):
        x = (width - measure_text(line, size)) // 2
        band = captioned[max(baseline - size - edge // 2, 0) : baseline + edge, max(x - edge, 0) : width - x + edge]
        band[:] = band // 4
        cv2.putText(captioned, line, (x, baseline), TEXT_COLOUR, font, size)
    return captioned


def measure_text(line: str, size: int) -> int:
    """Return the width of a line in pixels, from the origin of its first character."""
    left, _, n_columns, _ = cv2.getTextSize((1, 1), line, (0, 0), cv2.FontFace(FONT), size)
    return int(left + n_columns)


def crop_to_even(frame: Image) -> Image:
    """Return the frame without its last row or column if their number is odd: H.264 stores colours for 2 x 2 pixels."""
    height, width = (side // 2 * 2 for side in frame.shape[:2])
    return frame[:height, :width]


def caption_at(words: Sequence[Word], time_s: float, linger_s: float = LINGER_S) -> str:
    """Return the words spoken since the last pause, up to a time: a caption that grows word by word."""
    spoken: list[str] = []
    last_end = 0.0
    for word in words:
        if word.start is None or word.end is None or word.start > time_s:
            break
        if spoken and word.start - last_end > linger_s:
            spoken = []
        spoken.append(word.word)
        last_end = word.end
    return " ".join(spoken) if time_s <= last_end + linger_s else ""


def draw_mouth_strip(mouths: Sequence[Image], words: Sequence[Word], fps: float) -> Image:
    """Return all mouths in rows of 15, each word as a bar above the mouths that say it.

    mouths: (64, 128, 3) uint8 BGR, one for each frame.
    """
    height, width = mouths[0].shape[:2]
    grid = ImageGrid(N_COLUMNS, width, height, GAP, header=LABEL_HEIGHT)
    strip = grid.draw(in_rows(mouths, N_COLUMNS))
    for word in words:
        if word.start is not None and word.end is not None:
            first, end = round(word.start * fps), round(word.end * fps)
            draw_word_bar(strip, grid, word.word, range(max(first, 0), min(max(end, first + 1), len(mouths))))
    return strip


def draw_word_bar(strip: Image, grid: ImageGrid, text: str, frames: range) -> None:
    """Draw a bar with a word above its frames, in place; it continues in the next row if need be."""
    for row in sorted({i // grid.n_columns for i in frames}):
        columns = [i % grid.n_columns for i in frames if i // grid.n_columns == row]
        left, top = grid.origin(row, columns[0])
        right = grid.origin(row, columns[-1])[0] + grid.cell_width
        cv2.rectangle(strip, (left, top - LABEL_HEIGHT + 3), (right - 1, top - 6), BAR_COLOUR, -1)
        cv2.putText(strip, text, (left + 6, top - 7), TEXT_COLOUR, cv2.FontFace(FONT), LABEL_FONT_PX)
