from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from films import film, numbered, picture
from sounds import CODECS, RATE, pitch_of, record, sing, without_samples

from inference.errors import MediaNotFound, MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media import MediaChild, MediaLimits
from inference.media.sound import read_sound


@pytest.fixture(scope="module")
def child():
    with MediaChild() as one:
        yield one


@pytest.fixture(params=["here", "child"])
def door(request: pytest.FixtureRequest, child: MediaChild) -> Callable:
    return read_sound if request.param == "here" else child.read_sound


@pytest.mark.parametrize("container", sorted(CODECS))
def test_every_container_is_heard(container: str):
    samples = read_sound(record(sing(2.0), container=container), RATE)
    assert samples.dtype == np.int16
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.06)  # a lossy codec's first and last frames
    assert pitch_of(samples) == pytest.approx(440, abs=1)


def test_sixteen_bits_at_the_same_rate_come_back_as_they_went_in():
    voices = sing(1.0, RATE)
    assert np.array_equal(read_sound(record(voices, RATE), RATE), voices[0])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000])
def test_any_rate_keeps_its_length_and_pitch(rate: int):
    samples = read_sound(record(sing(1.5, rate), rate), RATE)
    assert len(samples) == pytest.approx(1.5 * RATE, abs=2)
    assert pitch_of(samples) == pytest.approx(440, abs=1)


def test_two_channels_become_one():
    samples = read_sound(record(sing(1.0, n_channels=2)), RATE)
    assert len(samples) == pytest.approx(RATE, abs=2)
    assert 3000 < np.abs(samples).max() < 12000


def test_a_films_sound_is_heard(door: Callable, on_disk: Callable[[str, bytes], Path]):
    samples = door(on_disk("a.b film.mp4", film(numbered(50), with_tone=True)), RATE, None)
    assert len(samples) == pytest.approx(2 * RATE, abs=2048)
    assert pitch_of(samples[:RATE]) == pytest.approx(220, abs=1)


def test_silence_is_sound(door: Callable):
    samples = door(record(np.zeros((1, RATE), np.int16), RATE), RATE, None)
    assert len(samples) == RATE
    assert not samples.any()


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (film(numbered(5)), NoAudio, "holds video only"),
        (picture(numbered(1)[0]), NoAudio, "holds video only"),
        (without_samples(), NoAudio, "no sample"),
        (b"<html><body>log in</body></html>", UnsupportedMedia, "input"),
        (b"", UnsupportedMedia, "empty"),
        (b"\x00" * 4096, UnsupportedMedia, "input"),
    ],
    ids=["film without sound", "picture", "no sample", "page", "empty", "zeros"],
)
def test_what_has_no_sound_says_so(door: Callable, source: bytes, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        door(source, RATE, None)


def test_a_file_that_is_not_there(door: Callable, tmp_path: Path):
    with pytest.raises(MediaNotFound, match=r"gone\.wav"):
        door(tmp_path / "gone.wav", RATE, None)


def test_limits_hold_for_what_is_decoded(door: Callable):
    voices = record(sing(3.0), container="ogg")
    for limits, words in ((MediaLimits(max_duration_s=2), "2 s"), (MediaLimits(max_bytes=100), "100")):
        with pytest.raises(MediaTooLarge, match=words):
            door(voices, RATE, limits)
    assert len(door(voices, RATE, MediaLimits(max_duration_s=3.1))) == pytest.approx(3 * RATE, abs=800)


def test_a_cut_off_film_is_told_from_a_short_one(door: Callable, tmp_path: Path):
    """MP4 with its index first declares what the cut took away."""
    path = tmp_path / "voice.m4a"
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sing(20.0), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    whole = path.read_bytes()
    assert len(door(whole, RATE, None)) == pytest.approx(20 * RATE, abs=2048)
    with pytest.raises(MediaTruncated, match="cut off"):
        door(whole[: len(whole) // 2], RATE, None)


def test_a_rate_from_a_broken_header_is_no_sound(door: Callable):
    wav = bytearray(record(sing(0.1, RATE), RATE))
    at = wav.index(b"fmt ") + 12
    wav[at : at + 4] = struct.pack("<I", 2_000_000_000)
    with pytest.raises((UnsupportedMedia, NoAudio), match="input"):
        door(bytes(wav), RATE, None)


def test_a_child_reads_sound_longer_than_its_slots_hold(child: MediaChild):
    """Of sound, too, the child works ahead by a few pieces and no more."""
    voices = sing(30.0, RATE, n_channels=1)
    assert np.array_equal(child.read_sound(record(voices, RATE), RATE), voices[0])


def test_a_child_reads_sound_then_pictures(child: MediaChild):
    source = film(numbered(30), with_tone=True)
    assert len(child.read_sound(source, RATE)) > RATE
    with child.open(source) as media:
        assert sum(len(clip.frames) for clip in media.read_clips(25)) == 30
    assert len(child.read_sound(source, RATE)) > RATE
