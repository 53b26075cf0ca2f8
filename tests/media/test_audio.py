from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from support.audio_files import CODECS, RATE, encode_audio, make_tone, pitch_of, wav_without_samples
from support.video_files import make_image, make_video, numbered_frames

from inference.errors import MediaNotFound, MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media import MediaLimits
from inference.media.audio import read_audio


@pytest.mark.parametrize("container", sorted(CODECS))
def test_every_container_is_decoded(container: str):
    samples = read_audio(encode_audio(make_tone(2.0), container=container), RATE)
    assert samples.dtype == np.int16
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.06)  # for the first and last frames of lossy codecs
    assert pitch_of(samples) == pytest.approx(440, abs=1)


def test_16_bit_samples_at_the_same_rate_are_unchanged():
    channels = make_tone(1.0, RATE)
    assert np.array_equal(read_audio(encode_audio(channels, RATE), RATE), channels[0])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000])
def test_any_rate_keeps_its_length_and_pitch(rate: int):
    samples = read_audio(encode_audio(make_tone(1.5, rate), rate), RATE)
    assert len(samples) == pytest.approx(1.5 * RATE, abs=2)
    assert pitch_of(samples) == pytest.approx(440, abs=1)


def test_two_channels_become_one():
    samples = read_audio(encode_audio(make_tone(1.0, n_channels=2)), RATE)
    assert len(samples) == pytest.approx(RATE, abs=2)
    assert 3000 < np.abs(samples).max() < 12000


def test_the_audio_of_a_video_is_decoded(on_disk: Callable[[str, bytes], Path]):
    samples = read_audio(on_disk("a.b video.mp4", make_video(numbered_frames(50), with_tone=True)), RATE, None)
    assert len(samples) == pytest.approx(2 * RATE, abs=2048)
    assert pitch_of(samples[:RATE]) == pytest.approx(220, abs=1)


def test_silence_is_audio():
    samples = read_audio(encode_audio(np.zeros((1, RATE), np.int16), RATE), RATE, None)
    assert len(samples) == RATE
    assert not samples.any()


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (make_video(numbered_frames(5)), NoAudio, "contains video only"),
        (make_image(numbered_frames(1)[0]), NoAudio, "contains video only"),
        (wav_without_samples(), NoAudio, "no samples"),
        (b"<html><body>log in</body></html>", UnsupportedMedia, "input"),
        (b"", UnsupportedMedia, "empty"),
        (b"\x00" * 4096, UnsupportedMedia, "input"),
    ],
    ids=["video without audio", "image", "no samples", "page", "empty", "zeros"],
)
def test_missing_audio_is_reported(source: bytes, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        read_audio(source, RATE, None)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(MediaNotFound, match=r"gone\.wav"):
        read_audio(tmp_path / "gone.wav", RATE, None)


def test_limits_apply_to_what_is_decoded():
    audio = encode_audio(make_tone(3.0), container="ogg")
    for limits, words in ((MediaLimits(max_duration_s=2), "2 s"), (MediaLimits(max_bytes=100), "100")):
        with pytest.raises(MediaTooLarge, match=words):
            read_audio(audio, RATE, limits)
    assert len(read_audio(audio, RATE, MediaLimits(max_duration_s=3.1))) == pytest.approx(3 * RATE, abs=800)


def test_a_truncated_file_differs_from_a_short_one(tmp_path: Path):
    """An MP4 with its index first declares the duration that is missing."""
    path = tmp_path / "audio.m4a"
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_tone(20.0), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    whole = path.read_bytes()
    assert len(read_audio(whole, RATE, None)) == pytest.approx(20 * RATE, abs=2048)
    with pytest.raises(MediaTruncated, match="truncated"):
        read_audio(whole[: len(whole) // 2], RATE, None)


def test_an_impossible_sample_rate_is_rejected():
    wav = bytearray(encode_audio(make_tone(0.1, RATE), RATE))
    at = wav.index(b"fmt ") + 12
    wav[at : at + 4] = struct.pack("<I", 2_000_000_000)
    with pytest.raises((UnsupportedMedia, NoAudio), match="input"):
        read_audio(bytes(wav), RATE, None)
