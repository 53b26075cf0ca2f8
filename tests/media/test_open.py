from __future__ import annotations

import io
import os
import re
import time
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from support.video_files import (
    make_image,
    make_video,
    make_wav,
    mux_tone,
    numbered_frames,
    read_number,
    rotate_by_metadata,
)

from inference.errors import MediaError, MediaNotFound, MediaTooLarge, MediaTruncated, UnsupportedMedia
from inference.media import MediaLimits, open_media
from inference.media.limits import LimitCounter
from inference.media.pixels import FrameConverter

AV_OPEN = av.open
CONVERT = FrameConverter.convert


def frames_of(source, fps: float = 25.0, **limits) -> list[np.ndarray]:
    with open_media(source, MediaLimits(**limits)) as media:
        return [frame for clip in media.read_clips(fps) for frame in clip.frames]


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm", "avi", "mpeg"])
def test_every_container_gives_every_frame_in_order(container: str):
    frames = frames_of(make_video(numbered_frames(30), container=container))
    assert [read_number(frame) for frame in frames] == list(range(30))
    assert frames[0].shape == (48, 64, 3)
    assert frames[0].dtype == np.uint8


def test_frames_are_bgr():
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 200
    mean = frames_of(make_video([blue] * 3))[0].mean(axis=(0, 1))
    assert mean[0] > 180
    assert mean[2] < 30


@pytest.mark.parametrize("fps", ["60", "30", "24000/1001", "12"])
def test_any_rate_becomes_25_with_the_nearest_frame(fps: str):
    rate = Fraction(fps)
    n = round(2 * rate)
    frames = frames_of(make_video(numbered_frames(n), rate))
    assert len(frames) == 50
    for tick, frame in enumerate(frames):
        nearest = min(Fraction(tick, 25), (n - 1) / rate)
        assert abs(read_number(frame) / rate - nearest) <= 1 / rate / 2


def test_a_variable_rate_is_read_by_timestamps():
    times = [Fraction(x).limit_denominator(1000) for x in (0, 0.04, 0.08, 0.48, 0.52, 0.56)]
    frames = frames_of(make_video(numbered_frames(6), times=times, container="matroska"))
    numbers = [read_number(frame) for frame in frames]
    assert numbers[:3] == [0, 1, 2]
    assert numbers[3:7] == [2] * 4  # nearer to .08 than to .48
    assert numbers[12:15] == [3, 4, 5]


@pytest.mark.parametrize(("degrees", "corner"), [(90, "right"), (180, "bottom"), (270, "left")])
def test_rotation_metadata_is_applied(degrees: int, corner: str):
    frame = np.full((48, 96, 3), 60, np.uint8)
    frame[:12] = 230  # the top edge is bright
    (upright, *_) = frames_of(rotate_by_metadata(make_video([frame] * 3), degrees))
    assert upright.shape == ((48, 96, 3) if degrees == 180 else (96, 48, 3))
    edges = {"right": upright[:, -6:], "left": upright[:, :6], "bottom": upright[-6:], "top": upright[:6]}
    assert max(edges, key=lambda name: edges[name].mean()) == corner


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(2), 128), (Fraction(64, 45), 91), (Fraction(1, 2), 32)])
def test_anamorphic_frames_get_square_pixels(aspect: Fraction, width: int):
    frames = frames_of(make_video(numbered_frames(4), pixel_aspect=aspect))
    assert frames[0].shape == (48, width, 3)


def test_damaged_packets_cost_their_frames_but_no_time():
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, 12, f.shape), 0, 255).astype(np.uint8) for f in numbered_frames(50, 256, 192)]
    damaged = bytearray(make_video(noisy, container="avi"))
    for at in packet_positions(bytes(damaged))[20:35]:
        damaged[at + 20 : at + 100] = rng.integers(0, 255, 80, np.uint8).tobytes()
    frames = frames_of(bytes(damaged))
    assert len(frames) == 50
    # How the decoder conceals damaged frames is not tested; those before the damage are intact.
    assert [read_number(frame) for frame in frames[:20]] == list(range(20))


def with_threads(monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
    """Pretend that the machine has so many cores, and a decoder takes as many threads by default."""

    def open_with_threads(*args, **kwargs):
        container = AV_OPEN(*args, **kwargs)
        container.streams.video[0].codec_context.thread_count = n_threads
        return container

    monkeypatch.setattr("inference.media.open.av.open", open_with_threads)


def test_frames_after_damage_near_the_end_are_kept_on_any_number_of_cores(monkeypatch):
    damaged = bytearray(make_video(numbered_frames(50, 256, 192), container="avi"))
    for at in packet_positions(bytes(damaged))[40:44]:
        damaged[at : at + 60] = bytes(60)
    with_threads(monkeypatch, 16)
    assert [read_number(frame) for frame in frames_of(bytes(damaged))[-2:]] == [48, 49]


def test_damage_is_concealed_alike_on_any_number_of_cores(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (8, 288, 352, 3), np.uint8)
    damaged = bytearray(make_video(list(noise), container="matroska", slices=8))
    for at in range(len(damaged) // 4, len(damaged) - 4000, 4001):
        damaged[at : at + 3] = b"\xff\x5a\x00"
    decoded = []
    for n_threads in (1, 16):
        with_threads(monkeypatch, n_threads)
        decoded.append(frames_of(bytes(damaged)))
    assert np.array_equal(*decoded)


def packet_positions(contents: bytes) -> list[int]:
    with av.open(io.BytesIO(contents)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size]


def test_a_path_and_its_bytes_read_alike(tmp_path: Path):
    contents = make_video(numbered_frames(5))
    path = tmp_path / "clip.mp4"
    path.write_bytes(contents)
    assert np.array_equal(frames_of(path), frames_of(contents))
    assert np.array_equal(frames_of(str(path)), frames_of(contents))


def test_an_image_is_one_frame():
    frame = np.full((40, 50, 3), 90, np.uint8)
    with open_media(make_image(frame)) as media:
        assert media.video.is_still
        assert np.array_equal(next(media.read_clips(25.0)).frames[0], frame)


@pytest.mark.parametrize("name", ["face.jpg", "face.JPEG", "face.png", "face"])
def test_an_image_is_opened_by_any_name(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(make_image(np.full((40, 50, 3), 90, np.uint8), "png" if name.endswith("png") else "mjpeg"))
    with open_media(path) as media:
        assert media.video.is_still
        assert next(media.read_clips(25.0)).frames[0].shape == (40, 50, 3)


@pytest.mark.parametrize("container", ["mpeg", "mpegts", "mp4"])
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp", ".gif"])
def test_a_video_is_opened_by_the_name_of_an_image(tmp_path: Path, container: str, suffix: str):
    path = tmp_path / f"video{suffix}"
    path.write_bytes(make_video(numbered_frames(10), container=container))
    assert len(frames_of(path)) == 10


def test_audio_longer_than_the_video_is_not_damage():
    assert len(frames_of(make_video(numbered_frames(10), with_tone=True))) == 10


BAD = {
    "empty": (b"", UnsupportedMedia, "empty"),
    "text": (b"BIN BLUE AT F TWO NOW\n" * 20, UnsupportedMedia, "text"),
    "page": (b"<!DOCTYPE html><html>not found</html>", UnsupportedMedia, "HTML"),
    "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", UnsupportedMedia, "playlist"),
    "concat": (b"ffconcat version 1.0\nfile /etc/passwd\n", UnsupportedMedia, "playlist"),
    "noise": (bytes(range(256)) * 40, UnsupportedMedia, "not a media file"),
    "audio": (make_wav(), UnsupportedMedia, "audio only"),
    "pixel": (make_image(np.zeros((1, 1, 3), np.uint8)), UnsupportedMedia, "1x1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_invalid_file_is_described(kind: str):
    contents, error, words = BAD[kind]
    with pytest.raises(error, match=re.escape(words)):
        frames_of(contents)


@pytest.mark.parametrize("share", [0.02, 0.11, 0.53, 0.81])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpeg"])
def test_a_truncated_file_is_rejected(container: str, share: float):
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), np.uint8)
    whole = make_video(list(noise), container=container)
    with pytest.raises(UnsupportedMedia, match=r"cut off|truncated|no frame|not a media file"):
        frames_of(whole[: int(len(whole) * share)])


def test_a_truncated_mp4_is_reported():
    whole = make_video(numbered_frames(20))
    with pytest.raises(MediaTruncated, match="truncated"):
        frames_of(whole[: len(whole) // 2])


def test_paths_that_are_not_files(tmp_path: Path):
    with pytest.raises(MediaNotFound, match="No such file"):
        frames_of(tmp_path / "missing.mp4")
    with pytest.raises(MediaNotFound, match="is a directory"):
        frames_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaNotFound, match="not a regular file"):
        frames_of(tmp_path / "pipe")
    with pytest.raises(MediaNotFound, match="null"):
        frames_of("a\0b")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": 100}, "bytes; at most 100"),
        ({"max_frame_pixels": 3000}, "3000 pixels"),
        ({"max_total_pixels": 10_000}, "over 10000 pixels in 4 frames"),
        ({"max_duration_s": 0.5}, "declares 2.0 s; at most 0.5 s"),
        ({"max_fps": 10.0}, "over 10 frames a second"),
    ],
)
def test_limits_stop_the_decoding(limits: dict, words: str):
    with pytest.raises(MediaTooLarge, match=words):
        frames_of(make_video(numbered_frames(50)), **limits)


@pytest.mark.parametrize("container", ["mpeg", "mpegts"])
def test_concatenated_videos_are_read_completely(container: str):
    one = make_video(numbered_frames(30), container=container)
    other = make_video(numbered_frames(60)[30:], container=container)
    frames = frames_of(one + other)
    assert [read_number(frame) for frame in frames] == list(range(60))


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
@pytest.mark.parametrize("start", [1, 10])
def test_a_video_that_starts_late_is_complete(container: str, start: int):
    times = [Fraction(start) + Fraction(i, 25) for i in range(30)]
    assert len(frames_of(make_video(numbered_frames(30), times=times, container=container))) == 30


def test_undecodable_frames_at_the_end_keep_their_time():
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), np.uint8)
    damaged = bytearray(make_video(list(noise), container="avi"))
    end = damaged.index(b"idx1")
    damaged[end - 2000 : end - 10] = bytes(2000 - 10)
    assert len(frames_of(bytes(damaged))) == 40


def test_titles_of_any_bytes_are_accepted():
    titled = make_video(numbered_frames(5), container="matroska").replace(b"Lavf", b"\xe9\xe8\xff\xfe")
    assert len(frames_of(titled)) == 5


def test_an_unknown_codec_is_reported():
    unknown = make_video(numbered_frames(5), container="matroska").replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX")
    with pytest.raises(UnsupportedMedia, match="unknown codec"):
        frames_of(unknown)


def test_a_format_that_is_not_listed_is_rejected():
    contents = make_video(numbered_frames(5), container="nut")
    assert b"nut/multimedia" in contents
    with pytest.raises(UnsupportedMedia, match="not a media file"):
        frames_of(contents)


def test_frames_cannot_be_read_after_the_file_is_closed():
    with open_media(make_video(numbered_frames(60))) as media:
        clips = media.read_clips(25.0)
        next(clips)
    with pytest.raises(ValueError, match="after it was closed"):
        list(clips)


def test_opening_is_limited_too(monkeypatch: pytest.MonkeyPatch):
    given = {}
    contents = make_video(numbered_frames(3))

    def spy(file, **options):
        given.update(options)
        raise ValueError("options recorded")

    monkeypatch.setattr("inference.media.open.av.open", spy)
    with pytest.raises(UnsupportedMedia):
        frames_of(contents, max_frame_pixels=12345)
    assert given["options"] == {"max_pixels": "12345"}
    assert given["container_options"]["protocol_whitelist"] == "none"
    assert given["container_options"]["enable_drefs"] == "0"


def frame_of(width: int = 100, height: int = 100):
    return SimpleNamespace(width=width, height=height)


def test_decoded_frames_count_even_if_unused():
    counter = LimitCounter("x", MediaLimits(max_total_pixels=35_000), n_bytes=1000)
    for _ in range(3):
        counter.count(frame_of())
    with pytest.raises(MediaTooLarge, match="over 35000 pixels in 4 frames"):
        counter.count(frame_of())
    counter = LimitCounter("x", MediaLimits(max_fps=20.0), n_bytes=1000)
    counter.check_time(Fraction(0), Fraction(1, 25))
    for _ in range(20):
        counter.count(frame_of())
    with pytest.raises(MediaTooLarge, match="over 20 frames a second"):
        counter.count(frame_of())


def test_frame_size_and_duration_are_limited():
    counter = LimitCounter("x", MediaLimits(max_frame_pixels=9_999, max_duration_s=2), n_bytes=1000)
    with pytest.raises(MediaTooLarge, match="100x100"):
        counter.count(frame_of())
    with pytest.raises(UnsupportedMedia, match="15x100"):
        counter.count(frame_of(15))
    counter.check_time(Fraction(5), Fraction(1))  # time counts from the first frame
    with pytest.raises(MediaTooLarge, match="over 2 s"):
        counter.check_time(Fraction(6), Fraction(10**9))  # up to the end of the last one


def test_cover_art_is_not_a_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        audio = out.add_stream("aac", rate=16000)
        cover = out.add_stream("png", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(cover.encode())
        mux_tone(out, audio, 1.0)
    with pytest.raises(UnsupportedMedia, match="audio"):
        frames_of(buffer.getvalue())


def test_a_huge_header_is_rejected_before_memory_is_allocated():
    png = bytearray(make_image(np.zeros((32, 32, 3), np.uint8)))
    at = png.index(b"IHDR") + 4
    png[at : at + 8] = (20_000).to_bytes(4, "big") * 2
    png[at + 13 : at + 17] = zlib.crc32(bytes(png[at - 4 : at + 13])).to_bytes(4, "big")
    start_s = time.process_time()  # CPU time: a busy machine may delay this process
    with pytest.raises(MediaTooLarge, match="20000x20000 pixels"):
        frames_of(bytes(png))
    assert time.process_time() - start_s < 30  # not a benchmark: a guard against decoding 400 megapixels


def test_no_file_is_left_open(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_video(numbered_frames(3))[:200])
    for _ in range(5):
        with pytest.raises(MediaError):
            frames_of(path)
    # By name: garbage of other tests may be closed meanwhile.
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and path.samefile(fd)]


def test_a_small_file_may_have_few_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.media.limits.FREE_PIXELS", 20_000)
    video = make_video(numbered_frames(30))  # of 64x48 pixels
    assert len(frames_of(video)) == 30
    expected = f"over {20_000 + len(video)} pixels in .* frames; that is the limit for a file of {len(video)} bytes"
    with pytest.raises(MediaTooLarge, match=expected):
        frames_of(video, max_pixels_per_byte=1)


def test_only_frames_that_are_shown_are_converted(monkeypatch: pytest.MonkeyPatch):
    converted = []

    def convert(self: FrameConverter, frame: av.VideoFrame) -> np.ndarray:
        converted.append(frame.pts)
        return CONVERT(self, frame)

    monkeypatch.setattr(FrameConverter, "convert", convert)
    assert len(frames_of(make_video(numbered_frames(100), 100))) == 25
    assert len(converted) == 25


@pytest.mark.parametrize("container", ["matroska", "avi"])
def test_a_long_video_is_refused_before_it_is_decoded(container: str):
    contents = make_video(numbered_frames(60), container=container)
    with pytest.raises(MediaTooLarge, match="lasts over 1 s"), open_media(contents, MediaLimits(max_duration_s=1)):
        pass


@pytest.mark.parametrize("container", ["matroska", "flv"])
def test_a_declared_duration_alone_refuses_nothing(container: str):
    contents = make_video(
        numbered_frames(60), container=container, subtitle_at_s=36_000 if container == "matroska" else None
    )
    with open_media(contents, MediaLimits(max_duration_s=3)) as media:
        frames = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
    assert [read_number(frame) for frame in frames] == list(range(60))
