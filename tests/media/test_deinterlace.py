from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from support.video_files import make_video, numbered_frames, read_number

from inference.media import open_media
from inference.media.media_warnings import INTERLACED

WIDTH, HEIGHT, STEP = 128, 96, 8  # the bar moves by STEP pixels from field to field


def bar_at(position: int) -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    pixels[:, position : position + 24] = 210
    return pixels


def weave(number: int) -> np.ndarray:
    """Return a frame of two moments: even rows show the earlier one."""
    frame = bar_at(2 * number * STEP)
    frame[1::2] = bar_at((2 * number + 1) * STEP)[1::2]
    return frame


def make_interlaced(container: str, codec: str, n_frames: int = 6) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if codec == "libx264":
            video.options = {"x264-params": "tff=1:no-asm=1", "crf": "4"}
        else:
            video.options = {"qscale": "2"}
        video.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(weave(number), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
    return buffer.getvalue()


def combs(frame: np.ndarray) -> float:
    """Return how much rows differ from those above them: high if a moving edge is in combs."""
    rows = frame[16:-16, :, 1].astype(int)
    return float(np.abs(np.diff(rows, axis=0)).mean())


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4")])
def test_interlaced_videos_get_rid_of_their_combs(container: str, codec: str):
    assert combs(weave(1)) > 10
    with open_media(make_interlaced(container, codec)) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
        assert media.warnings == (INTERLACED,)
    assert len(frames) == 6
    for number, frame in enumerate(frames):
        assert combs(frame) < 2, number
        assert abs(int(frame[48, 2 * number * STEP + 12, 1]) - 210) < 20, number  # the moment of the upper field


def test_progressive_videos_are_not_filtered():
    contents = make_video(numbered_frames(10))
    with open_media(contents) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
        assert media.warnings == ()
    assert [read_number(frame) for frame in frames] == list(range(10))
