"""Small files that ask for much memory or time: each is read or refused within the limits, and the child survives."""

from __future__ import annotations

import contextlib
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

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
from inference.errors import VisemeError
from inference.media import SandboxedDecoder
from inference.media.frames import CHUNK_BYTES, Clip
from inference.media.sandbox import budget
from inference.media.sandbox.budget import ResourceBudget, set_soft_limit
from inference.media.sandbox.child import is_large

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


def read_frames(child: SandboxedDecoder, source: bytes) -> int:
    with child.open(source) as media:
        return sum(len(clip.frames) for clip in media.read_clips(25.0))


def read_samples(child: SandboxedDecoder, source: bytes) -> int:
    with child.spool_audio(source) as audio:
        return len(audio)


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
def test_a_small_file_takes_little_memory(child: SandboxedDecoder, bomb: bytes):
    pid = child.pid
    assert pid is not None
    with contextlib.suppress(VisemeError):
        assert read_frames(child, bomb) < 100
    assert child.pid == pid
    assert peak_mib_of(pid) < PEAK_MIB
    assert read_frames(child, make_video(numbered_frames(5))) == 5


def test_a_tag_takes_no_memory(child: SandboxedDecoder):
    assert 0 < read_samples(child, mp3_with_tag(200 * MIB)) <= 48_000
    assert child.pid is not None
    assert peak_mib_of(child.pid) < 100


def test_a_long_recording_of_few_bytes_is_read(child: SandboxedDecoder):
    assert read_samples(child, opus_of_silence(300)) == pytest.approx(300 * 48_000, rel=0.001)


def test_a_small_8k_video_is_read(child: SandboxedDecoder):
    assert read_frames(child, video_8k(2)) == 2
    assert child.pid is not None
    assert peak_mib_of(child.pid) < PEAK_MIB


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


def test_memory_grows_with_the_frames_and_the_file(limits: dict[int, int]):
    for n_bytes, n_pixels, extra in (
        (1 << 30, 1920 * 1080, 0),
        (1 << 30, 7680 * 4320, 36 * (7680 * 4320 - 1920 * 1080)),
        (100_000, 7680 * 4320, 64 * 100_000),
    ):
        one = ResourceBudget(n_bytes)
        assert limits[resource.RLIMIT_DATA] == budget.MEMORY_BYTES  # until the size of its frames is known
        one.set_frame_size(n_pixels)
        assert limits[resource.RLIMIT_DATA] == one.memory_bytes == budget.MEMORY_BYTES + extra


def test_cpu_time_grows_with_what_is_decoded(limits: dict[int, int]):
    one = ResourceBudget(20_000_000)
    assert limits[resource.RLIMIT_CPU] == 105
    one.count(n_frames=100, n_pixels=80_000_000, n_samples=0)
    assert limits[resource.RLIMIT_CPU] == 108
    one.count(n_frames=0, n_pixels=0, n_samples=1_000_000)
    assert limits[resource.RLIMIT_CPU] == 107
    one.close()
    assert limits[resource.RLIMIT_CPU] == resource.RLIM_INFINITY


def test_a_soft_limit_stays_below_the_hard_one(monkeypatch: pytest.MonkeyPatch):
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5, 10))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: found.append(values))
    for value in (7, 20, resource.RLIM_INFINITY):
        set_soft_limit(resource.RLIMIT_CPU, value)
    assert found == [(7, 10), (10, 10), (10, 10)]
