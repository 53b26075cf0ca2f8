from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from container.cli import main


def test_render_writes_a_video_and_its_ground_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "video.mp4"
    size = ["--size", "192x144", "--fps", "30", "--length", "1.5", "--seed", "7"]
    assert main(["render", "now please", "-o", str(path), *size, "--people", "2", "--hide", "0.5-0.7"]) == 0
    assert capsys.readouterr().out == ""
    truth = json.loads(path.with_suffix(".json").read_text())
    assert (truth["text"], truth["fps"], truth["n_frames"]) == ("NOW PLEASE", 30.0, 45)
    assert {len(frame["people"]) for frame in truth["frames"]} == {0, 2}
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, video.frames) == (192, 144, 45)


def test_render_at_a_variable_rate_without_audio(tmp_path: Path):
    path = tmp_path / "video.mp4"
    assert main(["render", "now", "-o", str(path), "--length", "1", "--variable-rate", "--silent"]) == 0
    with av.open(str(path)) as container:
        assert not container.streams.audio
        steps = {packet.duration for packet in container.demux(video=0) if packet.size}
    assert len(steps) > 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello"], "no pronunciation for HELLO"),
        (["now", "--size", "3x"], "expected two numbers, as 360x288"),
        (["now", "--size", "361x288"], "width 361"),
        (["now", "--hide", "1"], "as 1.2-1.6"),
        (["now", "--length", "0.1"], "0.1 s was requested"),
        (["now", "--people", "3"], "--people"),
    ],
)
def test_an_invalid_request_exits_2_with_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["render", *arguments, "-o", str(tmp_path / "video.mp4")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
