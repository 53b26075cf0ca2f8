from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from support.synthetic_frames import talk
from support.timed_media import add_flash, click_of, flash_of, grey_frames, make_click, make_timed_media
from support.video_files import make_video

from container.cli import main
from container.visuals.burn_captions import burn_captions, lines_of_frames
from inference.lip_reading.captions import Caption
from inference.lip_reading.options import ModelInfo
from inference.lip_reading.pipeline import Transcript
from inference.media import MediaLimits, open_media
from inference.media.media_warnings import CLOCK_JUMP


def test_lines_follow_the_clock():
    captions = [Caption(0.1, 0.3, ("BIN", "BLUE")), Caption(0.3, 0.5, ("NOW",))]
    lines = list(islice(lines_of_frames(captions, Fraction(10)), 6))
    assert lines == [(), ("BIN", "BLUE"), ("BIN", "BLUE"), ("NOW",), ("NOW",), ()]


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001)])
def test_a_captioned_video_keeps_its_rate_size_and_audio(tmp_path: Path, fps, capsys: pytest.CaptureFixture[str]):
    source = tmp_path / "talk.mp4"
    source.write_bytes(make_video(talk(60), fps, with_tone=True))
    assert main(["read", str(source), "--burn", "--output-dir", str(tmp_path / "out")]) == 0
    captioned = tmp_path / "out" / "talk.captioned.mp4"
    with av.open(str(captioned)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, video.frames) == (360, 288, 60)
        assert float(video.average_rate) == pytest.approx(float(fps), rel=1e-3)
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(samples).max() > 0.1
    with open_media(captioned) as media:
        after = [frame for clip in media.read_clips(fps) for frame in clip.frames]
    with open_media(source) as media:
        before = [frame for clip in media.read_clips(fps) for frame in clip.frames]
    changed = [np.abs(a.astype(int) - b) for a, b in zip(after, before, strict=True)]
    assert max(diff[:200].mean() for diff in changed) < 3
    assert (tmp_path / "out" / "talk.txt").read_text().strip()
    assert max(diff[240:].mean() for diff in changed) > 10


def test_a_video_without_audio_is_captioned_too(tmp_path: Path):
    source = tmp_path / "talk.mp4"
    source.write_bytes(make_video(talk(30)))
    assert main(["read", str(source), "--burn"]) == 0
    with av.open(str(tmp_path / "talk.captioned.mp4")) as container:
        assert not container.streams.audio


NOTHING = Transcript("", (), 0.0, 75, 25.0, 3.0, 0, ModelInfo("LipCoordNet", "starter", "0" * 64), {})
FLASH_S = 2.0


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm", "mpegts"])
@pytest.mark.parametrize(
    "clock",
    [{}, {"missing_s": [(-1, 0.8)]}, {"missing_s": [(0.5, 1.5)]}, {"video_start_s": 0.6}],
    ids=["together", "audio later", "a gap", "video later"],
)
def test_a_flash_and_a_click_stay_together(tmp_path: Path, container: str, clock: dict):
    frames = add_flash(grey_frames(75), round((FLASH_S - clock.get("video_start_s", 0)) * 25))
    source = tmp_path / "source"
    source.write_bytes(make_timed_media(container, frames, make_click(3.0, FLASH_S), **clock))
    burned = burn_captions(source, NOTHING, tmp_path / "out.mp4", MediaLimits())
    assert abs(flash_of(burned) - click_of(burned)) <= 0.04
    assert flash_of(burned) == pytest.approx(FLASH_S, abs=0.05)


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_what_an_edit_list_hides_is_left_out(tmp_path: Path, container: str):
    """Timestamps below 0 become an edit list, as of a phone that trims without encoding."""
    source = tmp_path / "source"
    frames = add_flash(grey_frames(75), round((FLASH_S + 0.48) * 25))
    clock = {"video_start_s": -0.48, "jumps_s": [(-9, -0.48)]}
    source.write_bytes(make_timed_media(container, frames, make_click(3.0, FLASH_S + 0.48), **clock))
    assert b"elst" in source.read_bytes()
    burned = burn_captions(source, NOTHING, tmp_path / "out.mp4", MediaLimits())
    assert abs(flash_of(burned) - click_of(burned)) <= 0.04
    assert flash_of(burned) == pytest.approx(FLASH_S, abs=0.03)


def test_a_jump_of_the_clock_is_reported(tmp_path: Path):
    source = tmp_path / "jump.webm"
    source.write_bytes(make_timed_media("webm", grey_frames(25), make_click(2.0, 1.5), jumps_s=[(1.0, 3000)]))
    warnings: list[str] = []
    burn_captions(source, NOTHING, tmp_path / "out.mp4", MediaLimits(), warnings.append)
    assert warnings == [CLOCK_JUMP]


def test_a_copy_does_not_overwrite_another_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "talk.mp4").write_bytes(b"one")
    (tmp_path / "talk.captioned.mp4").write_bytes(b"other")
    assert main(["read", str(tmp_path / "talk.mp4"), str(tmp_path / "talk.captioned.mp4"), "--burn"]) == 2
    assert "talk.captioned.mp4: is the input" in capsys.readouterr().err
