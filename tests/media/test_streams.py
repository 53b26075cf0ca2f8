from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from support.timed_media import make_click, make_timed_media
from support.video_files import make_video, numbered_frames, write_tone

from inference.media import open_media
from inference.media.audio import read_audio
from inference.media.streams import demux, seconds_of_clock

DEFAULT, NONE = Disposition.default, Disposition(0)


@dataclass(frozen=True)
class Track:
    """A video track of one grey level."""

    level: int
    width: int = 64
    n_frames: int = 25
    codec: str = "libx264"
    disposition: Disposition = DEFAULT


def make_tracks(tracks: Sequence[Track], container: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        streams = []
        for track in tracks:
            stream = out.add_stream(track.codec, rate=25)
            stream.width, stream.height = track.width, track.width * 3 // 4
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(track.codec, "yuv420p")
            stream.disposition = track.disposition
            streams.append(stream)
        for track, stream in zip(tracks, streams, strict=True):
            for number in range(track.n_frames):
                pixels = np.full((stream.height, stream.width, 3), track.level, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    return buffer.getvalue()


VIDEO = Track(200)
CASES = {
    "a thumbnail of one frame": [Track(50, codec="mjpeg", n_frames=1), VIDEO],
    "a larger cover that is not marked": [Track(50, width=320, codec="mjpeg", n_frames=1), VIDEO],
    "a short preview": [Track(50, width=128, n_frames=2), VIDEO],
    "a preview, the default marked": [Track(50, width=128, disposition=NONE), VIDEO],
    "a small preview, both marked": [Track(50, width=32), VIDEO],
    "an attached image": [VIDEO, Track(50, width=320, codec="mjpeg", disposition=Disposition.attached_pic)],
    "a second view of the same kind": [VIDEO, Track(50)],
}


@pytest.mark.parametrize("kind", CASES)
def test_the_video_is_not_its_preview(kind: str):
    with open_media(make_tracks(CASES[kind])) as media:
        assert (media.video.width, media.video.codec) == (64, "h264")
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
    assert len(frames) == 25
    assert abs(frames[0].mean() - 200) < 5


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_the_larger_video_of_other_containers_is_taken(container: str):
    with open_media(make_tracks([Track(50, width=32), VIDEO], container)) as media:
        assert media.video.width == 64


@pytest.mark.parametrize("n_frames", [1, 2])
@pytest.mark.parametrize(("container", "codec"), [("gif", "gif"), ("mp4", "libx264")])
def test_a_gif_of_a_single_frame_is_a_still(container: str, codec: str, n_frames: int):
    with open_media(make_tracks([Track(90, n_frames=n_frames, codec=codec)], container)) as media:
        assert media.video.is_still == (container == "gif" and n_frames == 1)
        assert (media.video.duration_s is None) == media.video.is_still


@pytest.mark.parametrize(("container", "longer"), [("mp4", "audio"), ("matroska", "audio"), ("matroska", "subtitles")])
def test_the_duration_of_the_video_alone(container: str, longer: str):
    if longer == "subtitles":
        contents = make_video(numbered_frames(25), container=container, subtitle_at_s=100)
    else:
        contents = make_timed_media(container, numbered_frames(25), make_click(101.0, 1.0))
    with open_media(contents) as media:
        assert media.video.duration_s == pytest.approx(101, abs=0.1)
        assert media.video.video_s == pytest.approx(1, abs=0.05)


def test_a_duration_that_may_be_a_subtitles_is_none():
    with_tag = make_video(numbered_frames(25), container="matroska", subtitle_at_s=100)
    with open_media(with_tag.replace(b"DURATION", b"LENGTHEN")) as media:
        assert media.video.video_s is None
    with open_media(make_video(numbered_frames(25), container="matroska").replace(b"DURATION", b"LENGTHEN")) as media:
        assert media.video.video_s == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:03.040000000", 3.04),
        ("10:01:02", 36062),
        ("", None),
        ("3.04", None),
        ("-1:00:00", None),
        ("1:2:3", None),
    ],
)
def test_a_clock_time_is_read(text: str, seconds: float | None):
    assert seconds_of_clock(text) == seconds


def make_audio_tracks(levels: Sequence[float], dispositions: Sequence[Disposition]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        streams = [out.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in levels]
        for stream, disposition in zip(streams, dispositions, strict=True):
            stream.disposition = disposition
        for stream, level in zip(streams, levels, strict=True):
            write_tone(out, stream, 0.2, level)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("dispositions", "loud"),
    [
        ((DEFAULT, DEFAULT), 0),
        ((NONE, DEFAULT), 1),
        ((DEFAULT | Disposition.comment, NONE), 1),
        ((Disposition.visual_impaired, NONE), 1),
        ((NONE, NONE), 0),
    ],
)
def test_the_audio_is_the_one_that_players_play(dispositions: tuple[Disposition, ...], loud: int):
    levels = [0.5 if number == loud else 0.0 for number in range(2)]
    assert np.abs(read_audio(make_audio_tracks(levels, dispositions), 16000)).max() > 10_000


class GrowingContainer:
    """A file of one stream in which another one appears, as PyAV reads it: av/container/input.py, below "Flush!"."""

    def demux(self, *streams: str) -> Iterator[str]:
        yield from ("packet", "empty packet")
        streams[1]  # the list of those when it was opened


def test_a_stream_that_appears_after_the_start_is_left_out():
    assert list(demux(GrowingContainer(), "video")) == ["packet", "empty packet"]


def test_other_errors_of_demuxing_are_raised():
    class BrokenContainer:
        def demux(self) -> Iterator[str]:
            yield "packet"
            raise av.error.InvalidDataError(1, "broken")

    with pytest.raises(av.error.InvalidDataError):
        list(demux(BrokenContainer()))
