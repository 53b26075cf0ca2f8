from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.synthetic_frames import talk
from support.video_files import numbered_frames, read_number

from inference.errors import InvalidRequest, StorageError
from inference.media import open_media
from inference.media.encode import AudioBuffer, write_video

TONE = AudioBuffer((0.3 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)).astype(np.float32), 16000)


def test_a_video_is_read_back_unchanged(tmp_path: Path):
    path = tmp_path / "video.mp4"
    with write_video(path, 25, TONE) as writer:
        for frame in numbered_frames(50):
            writer.add(frame)
    with open_media(path) as media:
        assert media.video.fps == 25
        assert [read_number(frame) for clip in media.read_clips(25) for frame in clip.frames] == list(range(50))
    with av.open(str(path)) as container:
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert container.streams.audio[0].rate == 16000
    assert 32000 <= len(decoded) <= 32000 + 2048  # AAC pads its last frame
    assert np.abs(np.fft.rfft(decoded[:32000])).argmax() == pytest.approx(880, abs=2)  # bins of half a hertz: 2 s
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_same_frames_make_the_same_file(tmp_path: Path):
    path, files = tmp_path / "video.mp4", set()
    for _ in range(12):
        write(path, talk(20))
        files.add(path.read_bytes())
    assert len(files) == 1


def test_any_file_name_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = ["concat:a|b.mp4", "-i 'a' \"b\" $(c) %03d.v1.2.mp4", "file:..mp4", "é ü.mp4"]
    for name in names:
        write(Path(name), numbered_frames(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 60, 12.5])
def test_any_rate_is_kept(tmp_path: Path, fps: float):
    path = tmp_path / "video.mp4"
    with write_video(path, fps) as writer:
        for frame in numbered_frames(20):
            writer.add(frame)
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert [float(t) for t in times] == pytest.approx([float(i / Fraction(fps)) for i in range(20)], abs=1e-4)


def test_a_variable_rate_is_kept(tmp_path: Path):
    times = [Fraction(ms, 1000) for ms in (0, 40, 95, 120, 300)]
    path = tmp_path / "video.mp4"
    with write_video(path, 25) as writer:
        for frame, at_s in zip(numbered_frames(5), times, strict=True):
            writer.add(frame, at_s)
    with av.open(str(path)) as container:
        assert [float(f.pts * f.time_base) for f in container.decode(video=0)] == pytest.approx(
            [float(t) for t in times], abs=1e-4
        )


def write(path: Path, frames: Iterable[np.ndarray], times: Sequence[int] = ()) -> None:
    with write_video(path, 25) as writer:
        for i, frame in enumerate(frames):
            writer.add(frame, Fraction(times[i]) if times else None)


def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path):
    def frames() -> Iterator[np.ndarray]:
        yield numbered_frames(1)[0]
        raise RuntimeError("no more frames")

    path = tmp_path / "video.mp4"
    path.write_bytes(b"an older video")
    with pytest.raises(RuntimeError, match="no more frames"):
        write(path, frames())
    assert path.read_bytes() == b"an older video"
    assert sorted(tmp_path.iterdir()) == [path]


def test_invalid_targets_are_reported(tmp_path: Path):
    (tmp_path / "folder.mp4").mkdir()
    for name, words in {
        "video.txt": r"video\.txt.*\.mp4",
        "no/video.mp4": "folder does not exist",
        "folder.mp4": "is a directory",
    }.items():
        with pytest.raises(InvalidRequest, match=words):
            write(tmp_path / name, numbered_frames(1))
    with pytest.raises(ValueError, match="even numbers"):
        write(tmp_path / "video.mp4", [np.zeros((41, 40, 3), np.uint8)])
    with pytest.raises(ValueError, match="after one at"):
        write(tmp_path / "video.mp4", numbered_frames(2), (1, 1))
    with pytest.raises(ValueError, match="without a frame"):
        write(tmp_path / "video.mp4", [])


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path / "video.mp4", numbered_frames(1))
    assert not list(tmp_path.iterdir())
