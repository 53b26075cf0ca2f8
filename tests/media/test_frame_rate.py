"""The frame rate of videos whose header declares an unlikely one."""

from __future__ import annotations

import io
import random
from fractions import Fraction

import av
import numpy as np
import pytest
from support.video_files import make_video, numbered_frames, read_number

from inference.media import open_media


def recorder_webm(fps: float, n_frames: int, seed: int = 0) -> bytes:
    """Encode as a browser does: a default duration of 1 ms, whole milliseconds at random, frames lost."""
    rng, buffer, last = random.Random(seed), io.BytesIO(), -1
    with av.open(buffer, "w", format="webm", options={"live": "1"}) as out:
        video = out.add_stream("libvpx", rate=1000, options={"deadline": "realtime", "cpu-used": "8", "b": "2M"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for i, frame in enumerate(numbered_frames(n_frames)):
            if rng.random() < 0.08 and i:
                continue
            last = max(round(i / fps * 1000 + rng.uniform(-9, 9)), last + 1)
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
            image.pts, image.time_base = last, Fraction(1, 1000)
            out.mux(video.encode(image))
        out.mux(video.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("fps", [25, 30, 15])
@pytest.mark.parametrize("seed", range(3))
def test_a_browsers_recording_has_the_rate_of_its_frames(fps: int, seed: int):
    recording = recorder_webm(fps, 75, seed)
    with av.open(io.BytesIO(recording)) as container:
        assert container.streams.video[0].average_rate > 60
    with open_media(recording) as media:
        assert media.video.fps == fps
        frames = [frame for clip in media.read_clips(fps) for frame in clip.frames]
    assert len(frames) == pytest.approx(75, abs=2)
    assert [read_number(frame) for frame in frames][::10] == pytest.approx(list(range(0, len(frames), 10)), abs=1)


@pytest.mark.parametrize("fps", [120, 240])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_high_rate_is_kept_if_the_frames_are_there(container: str, fps: int):
    with open_media(make_video(numbered_frames(100), fps, container=container)) as media:
        assert media.video.fps == pytest.approx(fps, rel=0.01)
        frames = [frame for clip in media.read_clips(fps) for frame in clip.frames]
    assert [read_number(frame) for frame in frames] == list(range(100))


def test_a_few_frames_measure_nothing():
    with open_media(recorder_webm(25, 4)) as media:
        assert media.video.fps > 60
        assert len([frame for clip in media.read_clips(25) for frame in clip.frames]) in range(2, 6)
