"""Small files that ask for much memory or time: each is read or refused within the limits, and the child survives."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from support.video_files import make_image, make_video, numbered_frames

from bench.attack_files import (
    compress_repeated,
    make_png,
    mp3_with_tag,
    mp4_of_many_samples,
    opus_of_silence,
    png_chunk,
    png_with_profile,
    png_with_text,
    video_8k,
)
from inference.errors import MediaTooLarge, UnsupportedMedia, VisemeError
from inference.media import SandboxedDecoder, open_media
from inference.media.frames import CHUNK_BYTES, Clip
from inference.media.sandbox import budget
from inference.media.sandbox.budget import ResourceBudget, set_soft_limit
from inference.media.sandbox.child import are_same, check_memory, is_large
from inference.media.sandbox.decoder import DecoderProcess

MIB = 1 << 20
PEAK_MIB = 512


@pytest.fixture
def child() -> Iterator[SandboxedDecoder]:
    with SandboxedDecoder() as child:
        child.warm_up()
        yield child


def peak_mib_of(pid: int) -> int:
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


@pytest.fixture
def killed_peaks_mib(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The peaks of the children that were replaced, each taken before its end."""
    peaks: list[int] = []
    kill = DecoderProcess.kill

    def kill_measured(process: DecoderProcess) -> None:
        if process.is_alive():
            peaks.append(peak_mib_of(process.pid))
        kill(process)

    monkeypatch.setattr(DecoderProcess, "kill", kill_measured)
    return peaks


def read_frames(child: SandboxedDecoder, source: bytes) -> int:
    with child.open(source) as media:
        return sum(len(clip.frames) for clip in media.read_clips(25.0))


def read_samples(child: SandboxedDecoder, source: bytes) -> int:
    with child.spool_audio(source) as audio:
        return len(audio)


def moving_video_8k(n_frames: int, *, contrast: int = 256) -> bytes:
    """Return an 8K MP4 with as many reference frames as encoders use by default. contrast: 1 for grey alone."""
    noise = np.random.default_rng(0).integers(0, contrast, (405, 480), np.uint8)  # grey and its colours below it
    planes = cv2.resize(noise, (7680, 6480), interpolation=cv2.INTER_LINEAR)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        options = {"preset": "ultrafast", "refs": "4", "bf": "2", "b-pyramid": "normal", "crf": "40"}
        stream = out.add_stream("libx264", rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        for i in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(planes, 16 * i, 1), format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def png_with_texts(n_texts: int) -> bytes:
    """Return a PNG with so many comments of 4 MiB."""
    content = compress_repeated(b"A", 4 * MIB)
    return make_png(*(png_chunk(b"zTXt", b"text%d\x00\x00" % i + content) for i in range(n_texts)))


def mp4_with_fragment(n_samples: int) -> bytes:
    """Return an MP4 with a fragment that declares so many samples and lists none."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", len(body) + 8, kind) + body

    header = box(b"tfhd", struct.pack(">IIII", 0x18, 1, 1, 1))  # with a default duration and size
    run = box(b"trun", struct.pack(">II", 0, n_samples))
    return make_video(numbered_frames(5)) + box(b"moof", box(b"traf", header, run))


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(png_with_profile(1600 * MIB), id="profile"),
        pytest.param(png_with_text(800 * MIB), id="text"),
        pytest.param(png_with_texts(120), id="texts"),
        pytest.param(mp4_of_many_samples(20_000_000), id="samples"),
        pytest.param(mp4_with_fragment(100_000_000), id="fragment"),
        pytest.param(make_image(np.zeros((4320, 7680, 3), np.uint8)), id="image"),
    ],
)
def test_a_small_file_takes_little_memory(child: SandboxedDecoder, killed_peaks_mib: list[int], bomb: bytes):
    with contextlib.suppress(VisemeError):
        assert read_frames(child, bomb) < 100
    peaks = [*killed_peaks_mib, peak_mib_of(child.pid) if child.pid else 0]
    assert max(peaks) < PEAK_MIB
    assert read_frames(child, make_video(numbered_frames(5))) == 5


def test_a_tag_takes_no_memory(child: SandboxedDecoder, killed_peaks_mib: list[int]):
    assert 0 < read_samples(child, mp3_with_tag(200 * MIB)) <= 48_000
    assert max(killed_peaks_mib) < 100


def test_a_long_recording_of_few_bytes_is_read(child: SandboxedDecoder):
    assert read_samples(child, opus_of_silence(300)) == pytest.approx(300 * 48_000, rel=0.001)


def test_a_small_8k_video_is_read(child: SandboxedDecoder, killed_peaks_mib: list[int]):
    assert read_frames(child, video_8k(2)) == 2
    assert max(killed_peaks_mib) < PEAK_MIB


def test_a_short_8k_video_is_read(child: SandboxedDecoder):
    video = moving_video_8k(8)
    assert len(video) > 1_000_000  # as short real ones are
    with child.open(video) as media:
        frames = [frame[::64, ::64].tobytes() for clip in media.read_clips(25.0) for frame in clip.frames]
    assert len(frames) == len(set(frames)) == 8  # H.264 drops frames that it has no memory for, without an error


def test_frames_without_memory_are_not_left_out(child: SandboxedDecoder, killed_peaks_mib: list[int]):
    """FFmpeg's H.264 decoder only logs them."""
    with pytest.raises(MediaTooLarge, match=r"takes over 4\d\d MiB to decode; that is the limit"):
        read_frames(child, moving_video_8k(12, contrast=1))
    assert max(killed_peaks_mib) < PEAK_MIB
    assert read_frames(child, make_video(numbered_frames(5))) == 5


def test_a_child_that_ran_out_of_memory_is_replaced(child: SandboxedDecoder):
    pid = child.pid
    with pytest.raises(MediaTooLarge, match="to decode"):
        read_frames(child, png_with_profile(1600 * MIB))
    assert child.pid != pid


def test_a_still_that_is_too_large_gets_the_right_error():
    err = UnsupportedMedia("no frame")
    with open_media(make_image(np.zeros((1024, 1024, 3), np.uint8))) as media:
        check_memory(media, 2 * MIB, 20 * MIB, err)
        with pytest.raises(MediaTooLarge, match=r"takes about 11 MiB to decode; at most 14 MiB"):
            check_memory(media, 2 * MIB, 14 * MIB, err)


def test_large_frames_share_one_slot():
    small, large = np.zeros((48, 64, 3), np.uint8), np.zeros((3000, 4000, 3), np.uint8)
    assert large.nbytes > CHUNK_BYTES
    assert [is_large(Clip((frame,), 25.0)) for frame in (small, large)] == [False, True]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """The soft limits that a budget sets, instead of setting them for the tests."""
    found: dict[int, int] = {}
    monkeypatch.setattr(budget, "set_soft_limit", found.__setitem__)
    monkeypatch.setattr(budget, "time", SimpleNamespace(process_time=lambda: 100.0))
    return found


PIXELS_8K = 7680 * 4320


@pytest.mark.parametrize(
    ("n_bytes", "n_pixels", "sample_bits", "extra"),
    [
        (2_000_000, 1920 * 1080, 8, 4 * 2_000_000),  # the same as for opening it
        (2_000_000, PIXELS_8K, 8, 24 * PIXELS_8K),
        (4_000_000, PIXELS_8K, 10, (1792 << 20) - budget.MEMORY_BYTES),  # and no more
        (4_000_000, PIXELS_8K // 2, 10, 48 * PIXELS_8K // 2),
        (500_000, PIXELS_8K, 8, 512 * 500_000 - 3 * PIXELS_8K),
        (100_000, PIXELS_8K, 8, 4 * 100_000),
        (200_000_000, PIXELS_8K, 8, 4 * 200_000_000),
    ],
)
def test_memory_grows_with_the_frames_and_the_file(
    limits: dict[int, int], n_bytes: int, n_pixels: int, sample_bits: int, extra: int
):
    one = ResourceBudget(n_bytes)
    assert limits[resource.RLIMIT_DATA] == one.memory_bytes == budget.MEMORY_BYTES + 4 * n_bytes
    one.set_video("h264", n_pixels, sample_bits)
    assert limits[resource.RLIMIT_DATA] == one.memory_bytes == budget.MEMORY_BYTES + extra


def test_memory_for_opening_is_bounded(limits: dict[int, int]):
    assert ResourceBudget(1 << 30).memory_bytes == limits[resource.RLIMIT_DATA] == 1536 * MIB


def test_a_bomb_of_8k_gets_less_than_the_peak(limits: dict[int, int]):
    one = ResourceBudget(100_000)
    one.set_video("h264", PIXELS_8K, 8)
    assert one.memory_bytes < PEAK_MIB * MIB


def test_cpu_time_grows_with_what_is_decoded(limits: dict[int, int]):
    one = ResourceBudget(4_000_000)
    assert limits[resource.RLIMIT_CPU] == 109  # 4 s for any file, 4 s to open it and 1 s to read it
    one.count(n_frames=100, n_pixels=80_000_000)
    assert limits[resource.RLIMIT_CPU] == 112
    one.count(n_samples=1_000_000)
    assert limits[resource.RLIMIT_CPU] == 111
    one.count(n_clips=3_000)
    assert limits[resource.RLIMIT_CPU] == 115
    one.close()
    assert limits[resource.RLIMIT_CPU] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("codec", "sample_bits", "expected"), [("h264", 8, 107), ("jpeg2000", 8, 152), ("hevc", 10, 116)]
)
def test_slow_codecs_get_more_cpu_time(
    limits: dict[int, int], monkeypatch: pytest.MonkeyPatch, codec: str, sample_bits: int, expected: int
):
    monkeypatch.setattr(budget, "PIXELS_AHEAD", 39_000_000)
    one = ResourceBudget(0)
    one.set_video(codec, 1_000_000, sample_bits)
    one.count(n_pixels=80_000_000)
    assert limits[resource.RLIMIT_CPU] == expected


def test_hdr_gets_the_cpu_time_and_the_memory_of_its_conversion(
    limits: dict[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(budget, "PIXELS_AHEAD", 39_000_000)
    one = ResourceBudget(1_000_000)
    one.set_video("h264", 4_000_000, 8, is_wide=True)
    assert one.memory_bytes == budget.MEMORY_BYTES + 48 * 4_000_000
    one.count(n_pixels=77_000_000)
    assert limits[resource.RLIMIT_CPU] == 100 + int(4 + 0.25 + 1 + 120 / 20 + 120 / 12)


def test_opening_a_large_file_gets_bounded_cpu_time(limits: dict[int, int]):
    ResourceBudget(100_000_000)
    assert limits[resource.RLIMIT_CPU] == 100 + 4 + 25 + 20


def test_a_held_frame_is_written_once_to_each_slot():
    small = np.zeros((4, 4, 3), np.uint8)
    other = small.copy()
    written = [weakref.ref(small)]
    assert are_same(written, [small])
    for frames in ([other], [small, other], []):
        assert not are_same(written, frames)
    del small
    assert not are_same(written, [other])


def test_a_soft_limit_stays_below_the_hard_one(monkeypatch: pytest.MonkeyPatch):
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5, 10))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: found.append(values))
    for value in (7, 20, resource.RLIM_INFINITY):
        set_soft_limit(resource.RLIMIT_CPU, value)
    assert found == [(7, 10), (10, 10), (10, 10)]
