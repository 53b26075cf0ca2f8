from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from support.video_files import numbered_frames, read_number

from inference.errors import DeviceUnavailable, InvalidRequest
from inference.media import open_media, video_encoders
from inference.media.encode import write_video
from inference.media.video_encoders import VideoEncoder, check_encoder, choose_encoder, probe_nvenc


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose device files are those of one with an NVIDIA GPU."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(video_encoders, "NVIDIA_DEVICES", (tmp_path / "nvidiactl",))
    probe_nvenc.cache_clear()
    yield
    probe_nvenc.cache_clear()


@pytest.fixture
def x265_as_nvenc(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder x265 in place of NVENC, which needs a GPU."""
    monkeypatch.setattr(
        video_encoders, "make_nvenc", lambda: VideoEncoder("libx265", {"crf": "18", "x265-params": "log-level=none"})
    )


def write(path: Path, encoder: str, n_frames: int = 5) -> str:
    with write_video(path, 25, encoder=encoder) as writer:
        for frame in numbered_frames(n_frames):
            writer.add(frame)
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


def test_without_a_gpu_auto_is_x264_and_ffmpeg_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video_encoders, "NVIDIA_DEVICES", (tmp_path / "nvidiactl",))
    monkeypatch.setattr(video_encoders, "probe_nvenc", lambda *_: pytest.fail("FFmpeg was asked"))
    assert check_encoder("auto") == "auto"
    assert choose_encoder("auto", 320, 240) == choose_encoder("libx264", 320, 240)
    assert write(tmp_path / "video.mp4", "auto") == "h264"
    with pytest.raises(DeviceUnavailable, match=r"^encoder h264_nvenc: this machine has no NVIDIA GPU; choose auto or"):
        check_encoder("h264_nvenc")


def test_an_unknown_encoder_is_refused():
    with pytest.raises(InvalidRequest, match="encoder 'hevc_nvenc': expected one of auto, libx264, h264_nvenc"):
        check_encoder("hevc_nvenc")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine may have NVENC")
def test_a_gpu_without_an_encoder_is_not_used(gpu: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    # This is FFmpeg's own NVENC, which finds no driver.
    assert "h264_nvenc" in av.codecs_available
    assert write(tmp_path / "video.mp4", "auto") == "h264"
    assert capfd.readouterr() == ("", "")
    with pytest.raises(DeviceUnavailable, match="FFmpeg could not encode 256x256 with it"):
        check_encoder("h264_nvenc")
    with pytest.raises(DeviceUnavailable), write_video(tmp_path / "new.mp4", 25, encoder="h264_nvenc") as writer:
        writer.add(next(iter(numbered_frames(1))))
    assert not (tmp_path / "new.mp4").exists()


@pytest.mark.usefixtures("x265_as_nvenc")
@pytest.mark.parametrize("encoder", ["auto", "h264_nvenc"])
def test_an_encoder_that_works_is_used(encoder: str, tmp_path: Path):
    assert check_encoder(encoder) == encoder
    assert write(tmp_path / "video.mp4", encoder) == "hevc"
    with open_media(tmp_path / "video.mp4") as media:
        assert [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames] == list(range(5))
    assert write(tmp_path / "other.mp4", "libx264") == "h264"
