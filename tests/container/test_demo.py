from __future__ import annotations

import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from container.demo import DEFAULT_TEXT, main
from container.pictures import caption, mouth_strip, text_at
from inference.lip_reading import Word

WORDS = (Word("BIN", 0.4, 0.8, 0.9), Word("BLUE", 0.8, 1.2, 0.9), Word("NOW", 2.0, 2.4, 0.9))


def test_the_demo_says_reads_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str], weights_cache):
    assert main(["-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"says {DEFAULT_TEXT}" in " ".join(shown.split())
    assert "confidence" in shown
    made = "demo.avatar.mp4 demo.captioned.mp4 demo.json demo.mouth.png demo.mp4 demo.other.json demo.other.mp4"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *made.split(),
        "demo.sync.mp4",
        "demo.sync.png",
    ]
    for name, n_frames in (("sync", 75), ("avatar", 76)):  # to the nearest frame, and to the next: AAC pads the voice
        with av.open(str(tmp_path / "out" / f"demo.{name}.mp4")) as container:
            assert container.streams.video[0].frames == n_frames
            assert container.streams.audio
    assert cv2.imread(str(tmp_path / "out" / "demo.sync.png")).shape[1] > 6 * 256
    with av.open(str(tmp_path / "out" / "demo.captioned.mp4")) as container:
        assert container.streams.video[0].frames == 75
        assert container.streams.audio
    assert cv2.imread(str(tmp_path / "out" / "demo.mouth.png")).shape[1] > 15 * 128


def test_the_demo_takes_a_clip(tmp_path: Path, talking_film: bytes, capsys: pytest.CaptureFixture[str], weights_cache):
    (tmp_path / "mine.mp4").write_bytes(talking_film)
    assert main(["--video", str(tmp_path / "mine.mp4"), "-o", str(tmp_path / "out")]) == 0
    assert "says" not in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.captioned.mp4", "mine.mouth.png"]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--text", "hello"], "HELLO"), (["--video", "none.mp4"], r"none\.mp4")]
)
def test_a_demo_that_cannot_be_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*arguments, "-o", str(tmp_path)]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("at_s", "text"),
    [(0.1, ""), (0.5, "BIN"), (1.0, "BIN BLUE"), (1.5, "BIN BLUE"), (1.8, ""), (2.1, "NOW"), (3.0, "")],
)
def test_a_caption_grows_with_the_words_and_ends_with_a_pause(at_s: float, text: str):
    assert text_at(WORDS, at_s) == text


def test_a_caption_is_drawn_near_the_lower_edge_and_fits():
    frame = np.full((288, 360, 3), 128, np.uint8)
    drawn = caption(frame, ["PLACE GREEN WITH X SEVEN PLEASE " * 3, "SET RED"])
    changed = np.abs(drawn.astype(int) - frame).sum(axis=2) > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.min() > 200
    assert 0 < columns.min() < columns.max() < 359
    assert drawn.max() > 170
    assert np.array_equal(caption(frame, [""]), frame)


def test_words_stand_over_the_mouths_that_say_them():
    strip = mouth_strip([np.full((64, 128, 3), 200, np.uint8)] * 20, [Word("BIN", 0.56, 0.64, 0.9)], 25.0)
    assert strip.shape[1] == 15 * 130 + 2
    first, second = strip[8, :, 0], strip[8 + strip.shape[0] // 2, :, 0]  # the label rows of both rows of mouths
    dark = strip[8, 10, 0]
    assert (first[14 * 130 + 4 : 15 * 130] != dark).all()  # frame 14, the last of the first row
    assert (first[: 14 * 130] == dark).all()
    assert (second[4:120] != dark).all()  # frame 15
    assert (second[140:] == dark).all()
