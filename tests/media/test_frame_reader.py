from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.coloured_video import PATCHES, make_patches, read_patches
from support.video_files import make_video, numbered_frames, read_number

from inference.errors import MediaNotFound, MediaTooLarge, UnsupportedMedia
from inference.media import MediaLimits, open_media
from inference.media.encode import write_video
from inference.media.frame_reader import FrameReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with write_video(tmp_path / "video.mp4", 25, is_seekable=True) as writer:
        for frame in numbered_frames(40):
            writer.add(frame)
    return tmp_path / "video.mp4"


def test_every_frame_is_the_one_written(path: Path):
    with FrameReader(path) as reader:
        assert len(reader) == 40
        for i in (39, 0, 17, 18, 17, 0, 5, 4, 3, 39):
            assert read_number(reader.read(i)) == i
        assert (reader.video.width, reader.video.height) == (64, 48)


def test_frames_equal_sequential_reading(path: Path):
    with open_media(path) as media:
        sequential = [frame for clip in media.read_clips(25) for frame in clip.frames]
    with FrameReader(path) as reader:
        for i in (3, 11, 30):
            np.testing.assert_allclose(reader.read(i), sequential[i], atol=4)  # which truncates, not rounds


def test_levels_do_not_grow_darker(tmp_path: Path):
    """Write and read a frame several times, as for videos made from videos."""
    colours = np.array([(139, 107, 45), (200, 200, 200), (50, 120, 200), (20, 20, 20)], np.uint8)
    frame = first = np.repeat(np.repeat(colours[None], 32, axis=1), 32, axis=0)
    for _ in range(4):
        with write_video(tmp_path / "again.mp4", 25, is_seekable=True) as writer:
            writer.add(frame)
        with FrameReader(tmp_path / "again.mp4") as reader:
            frame = reader.read(0)
    inside = np.arange(4) * 32 + 16
    np.testing.assert_allclose(frame[16, inside].astype(int), first[16, inside], atol=2)


def test_frames_are_cached_and_read_only(path: Path):
    with FrameReader(path, cache_size=2) as reader:
        first = reader.read(0)
        assert reader.read(0) is first
        reader.read(1)
        reader.read(2)
        assert reader.read(0) is not first
        with pytest.raises(ValueError, match="read-only"):
            first[0, 0] = 0


def test_several_threads_may_read(path: Path):
    wrong: list[int] = []

    def read_some(seed: int) -> None:
        indices = np.random.default_rng(seed).integers(0, 40, 30).tolist()
        wrong.extend(i for i in indices if read_number(reader.read(i)) != i)

    with FrameReader(path) as reader:
        threads = [threading.Thread(target=read_some, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_videos_written_before_they_were_tagged_are_bt601(tmp_path: Path):
    """Of any size, and only here: elsewhere an untagged video of this size is BT.709."""
    (tmp_path / "old.mp4").write_bytes(make_patches(6, height=720, tagged=False, n_frames=1))
    with FrameReader(tmp_path / "old.mp4") as reader:
        np.testing.assert_allclose(read_patches(reader.read(0)), PATCHES, atol=1.5)


@pytest.mark.parametrize("i", [-1, 40])
def test_a_missing_frame(path: Path, i: int):
    with FrameReader(path) as reader, pytest.raises(IndexError, match="of 40"):
        reader.read(i)


def test_videos_with_other_than_key_frames_are_rejected(tmp_path: Path):
    (tmp_path / "usual.mp4").write_bytes(make_video(numbered_frames(40)))
    with pytest.raises(UnsupportedMedia, match="frame 1 is not a key frame; expected an all-intra video"):
        FrameReader(tmp_path / "usual.mp4")


def test_limits_and_errors_are_those_of_open_media(path: Path, tmp_path: Path):
    with pytest.raises(MediaTooLarge, match="64x48"):
        FrameReader(path, limits=MediaLimits(max_frame_pixels=1000))
    with pytest.raises(MediaNotFound):
        FrameReader(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello " * 100)
    with pytest.raises(UnsupportedMedia, match="looks like text"):
        FrameReader(tmp_path / "text.mp4")
