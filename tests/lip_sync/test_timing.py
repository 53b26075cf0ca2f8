"""Audio and video stay together through lip sync, whatever their clocks, and mouths move at any source's rate."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from support.small_wav2lip import as_wav, voice
from support.synthetic_frames import talk
from support.timed_media import add_flash, click_of, flash_of, make_click, make_timed_media
from support.video_files import make_video

from inference.lip_sync import LipSyncer
from inference.lip_sync.audio_inputs import SILENT_AUDIO
from inference.lip_sync.timeline import choose_rate
from inference.media.media_warnings import CLOCK_JUMP
from inference.media.video import VideoInfo

FLASH_S = 1.2
CLOCKS = {
    "together": {},
    "audio later": {"missing_s": [(-1, 0.8)]},
    "a gap": {"missing_s": [(0.3, 0.9)]},
    "video later": {"video_start_s": 0.6},
}


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm"])
@pytest.mark.parametrize("clock", sorted(CLOCKS))
def test_a_flash_and_a_click_stay_together(syncer: LipSyncer, tmp_path: Path, container: str, clock: str):
    start_s = CLOCKS[clock].get("video_start_s", 0)
    frames = add_flash(talk(50), round((FLASH_S - start_s) * 25))
    source = tmp_path / "source"
    source.write_bytes(make_timed_media(container, frames, make_click(2.0, FLASH_S), **CLOCKS[clock]))
    assert flash_of(source) == pytest.approx(FLASH_S, abs=0.01)
    assert click_of(source) == pytest.approx(FLASH_S, abs=0.015)
    result = syncer.sync(source, source, output=tmp_path / "out.mp4")
    assert result.duration_s == pytest.approx(2.0, abs=0.06)
    assert abs(flash_of(tmp_path / "out.mp4") - click_of(tmp_path / "out.mp4")) <= 0.04
    assert flash_of(tmp_path / "out.mp4") == pytest.approx(FLASH_S, abs=0.03)


@pytest.mark.parametrize("n_samples", [1, 20, 64])
def test_a_voice_of_a_few_samples_is_silence(syncer: LipSyncer, n_samples: int):
    source = make_video(talk(2))
    result = syncer.sync(source, as_wav(np.zeros(n_samples, np.int16)))
    assert (result.num_frames, result.warnings) == (1, (*syncer.warnings, SILENT_AUDIO))


def test_the_warnings_of_the_audio_are_in_the_result(syncer: LipSyncer):
    audio = make_timed_media("webm", (), make_click(0.4, 0.1), jumps_s=[(0.2, 3000)])
    assert syncer.sync(make_video(talk(2)), audio).warnings == (*syncer.warnings, CLOCK_JUMP)


@pytest.mark.parametrize(
    ("declared", "is_still", "requested", "rate"),
    [
        (25, False, None, 25),
        (1, False, None, 25),
        (5, False, None, 25),
        (9.99, False, None, 25),
        (10, False, None, 10),
        (60, False, None, 60),
        (240, False, None, 120),
        (None, False, None, 25),
        (1, True, None, 25),
        (30, False, 4, 4),
    ],
)
def test_the_rate_of_the_output(declared: float | None, is_still: bool, requested: float | None, rate: float):
    info = VideoInfo("mp4", "h264", 64, 64, declared, 4.0, is_still)
    assert choose_rate(info, requested) == rate


def test_upstream_keeps_a_low_rate():
    assert choose_rate(VideoInfo("mp4", "h264", 64, 64, 5.0, 4.0, False), None, keeps_slow=True) == 5


def test_a_slideshow_is_made_at_a_rate_for_mouths(syncer: LipSyncer):
    result = syncer.sync(make_video([talk(1)[0]] * 2, 1), voice(0.8))
    assert (result.num_frames, result.fps, result.frames_without_face) == (20, 25, 0)


def test_the_audio_of_a_late_start_is_as_long_as_the_video(syncer: LipSyncer):
    source = make_timed_media("mp4", talk(40), make_click(1.6, 1.2), missing_s=[(-1, 0.8)])
    video = syncer.sync(source, source).outputs[0].video
    assert video is not None
    with av.open(io.BytesIO(video)) as container:
        audio, frames = container.streams.audio[0], container.streams.video[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(1.6, abs=0.05)
        assert float(frames.duration * frames.time_base) == pytest.approx(1.6, abs=0.05)


def test_a_video_whose_subtitles_are_longer_plays_back_and_forth(syncer: LipSyncer, tmp_path: Path):
    frames = talk(25)
    for frame, level in zip(frames, np.linspace(0, 240, 25), strict=True):
        frame[:20] = level  # above the face: the number of the frame
    source = make_video(frames, container="matroska", subtitle_at_s=100)
    syncer.sync(source, voice(1.8), output=tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        levels = [frame.to_ndarray(format="gray")[:16].mean() for frame in container.decode(video=0)]
    assert len(levels) == 45
    assert np.abs(np.array(levels[25:]) - levels[23:3:-1]).max() < 8
