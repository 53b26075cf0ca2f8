from __future__ import annotations

import re
from pathlib import Path

import av
import cv2
import pytest

from container.commands.demo import DEFAULT_TEXT, main


def test_the_demo_renders_reads_and_animates(tmp_path: Path, capsys: pytest.CaptureFixture[str], weights_cache):
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
    for name, n_frames in (("sync", 75), ("avatar", 76)):  # to the nearest frame, and to the next: AAC pads the audio
        with av.open(str(tmp_path / "out" / f"demo.{name}.mp4")) as container:
            assert container.streams.video[0].frames == n_frames
            assert container.streams.audio
    assert cv2.imread(str(tmp_path / "out" / "demo.sync.png")).shape[1] > 6 * 256
    with av.open(str(tmp_path / "out" / "demo.captioned.mp4")) as container:
        assert container.streams.video[0].frames == 75
        assert container.streams.audio
    assert cv2.imread(str(tmp_path / "out" / "demo.mouth.png")).shape[1] > 15 * 128


def test_the_demo_reads_a_given_video(
    tmp_path: Path, talking_film: bytes, capsys: pytest.CaptureFixture[str], weights_cache
):
    (tmp_path / "mine.mp4").write_bytes(talking_film)
    assert main(["--video", str(tmp_path / "mine.mp4"), "-o", str(tmp_path / "out")]) == 0
    assert "says" not in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.captioned.mp4", "mine.mouth.png"]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--text", "hello"], "HELLO"), (["--video", "none.mp4"], r"none\.mp4")]
)
def test_an_invalid_input_is_one_line_on_stderr(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*arguments, "-o", str(tmp_path)]) == 2
    assert re.search(words, capsys.readouterr().err)
