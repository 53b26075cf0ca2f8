from __future__ import annotations

import numpy as np
import pytest

from container.visuals.overlays import caption_at, crop_to_even, draw_caption, draw_mouth_strip
from inference.lip_reading import Word

WORDS = (Word("BIN", 0.4, 0.8, 0.9), Word("BLUE", 0.8, 1.2, 0.9), Word("NOW", 2.0, 2.4, 0.9))


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0.1, ""), (0.5, "BIN"), (1.0, "BIN BLUE"), (1.5, "BIN BLUE"), (1.8, ""), (2.1, "NOW"), (3.0, "")],
)
def test_a_caption_grows_with_the_words_and_ends_with_a_pause(time_s: float, text: str):
    assert caption_at(WORDS, time_s) == text


def test_a_caption_is_drawn_near_the_lower_edge_and_fits_the_width():
    frame = np.full((288, 360, 3), 128, np.uint8)
    drawn = draw_caption(frame, ["PLACE GREEN WITH X SEVEN PLEASE " * 3, "SET RED"])
    changed = np.abs(drawn.astype(int) - frame).sum(axis=2) > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.min() > 200
    assert 0 < columns.min() < columns.max() < 359
    assert drawn.max() > 170
    assert np.array_equal(draw_caption(frame, [""]), frame)


def test_words_stand_over_the_mouths_thtime_say_them():
    strip = draw_mouth_strip([np.full((64, 128, 3), 200, np.uint8)] * 20, [Word("BIN", 0.56, 0.64, 0.9)], 25.0)
    assert strip.shape[1] == 15 * 130 + 2
    first, second = strip[8, :, 0], strip[8 + strip.shape[0] // 2, :, 0]  # the label rows of both rows of mouths
    dark = strip[8, 10, 0]
    assert (first[14 * 130 + 4 : 15 * 130] != dark).all()  # frame 14, the last of the first row
    assert (first[: 14 * 130] == dark).all()
    assert (second[4:120] != dark).all()  # frame 15
    assert (second[140:] == dark).all()


def test_the_bar_of_a_word_that_outlasts_the_video_ends_with_the_last_mouth():
    mouths = [np.full((64, 128, 3), 200, np.uint8)] * 4
    strip = draw_mouth_strip(mouths, [Word("NOW", 0.08, 2.0, 0.9), Word("PLEASE", 2.0, 2.4, 0.9)], 25.0)
    bar, background = strip[6, :, 0], strip[6, 10, 0]
    assert (bar[2 * 130 + 2 : 4 * 130] != background).all()
    assert (bar[4 * 130 :] == background).all()


def test_odd_sides_lose_a_row_or_a_column():
    frame = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert np.array_equal(crop_to_even(frame), frame[:4, :6])
    assert crop_to_even(frame[:4, :6]).shape == (4, 6, 3)
