from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from support.audio_files import CODECS, RATE, encode_audio, make_tone, pitch_of, wav_without_samples
from support.timed_media import RATE as CLICK_RATE
from support.timed_media import encode_samples, grey_frames, make_click, make_timed_media
from support.video_files import make_image, make_video, numbered_frames

from inference.errors import MediaNotFound, MediaTooLarge, MediaTruncated, NoAudio, UnsupportedMedia
from inference.media import MediaLimits
from inference.media.audio import USUAL_CHANNELS, read_audio
from inference.media.audio_clock import PlacedAudio
from inference.media.audio_convert import AudioConverter
from inference.media.files import without_tags


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


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 2_000_000_000, 0xFFFFFFFF])
def test_the_sizes_of_a_streamed_wav_are_not_believed(size: int):
    """Text-to-speech services write the header before they know the length."""
    wav = bytearray(encode_audio(make_tone(1.0, RATE), RATE))
    struct.pack_into("<I", wav, 4, min(size + 36, 0xFFFFFFFF))
    struct.pack_into("<I", wav, wav.index(b"data") + 4, size)
    assert len(read_audio(bytes(wav), RATE)) == RATE


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


@pytest.mark.parametrize("n_channels", [*USUAL_CHANNELS, 9, 17, 32, 64])
def test_channels_without_a_layout(n_channels: int):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(n_channels)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(np.full((RATE // 10, n_channels), 1000, np.int16).tobytes())
    if n_channels in USUAL_CHANNELS:
        assert len(read_audio(buffer.getvalue(), RATE)) == RATE // 10
    else:
        with pytest.raises(UnsupportedMedia, match=f"{n_channels} audio channels without a layout; expected one"):
            read_audio(buffer.getvalue(), RATE)


def id3_tag(n_bytes: int, *, has_footer: bool = False) -> bytes:
    """Return a tag of this size with one private frame, which FFmpeg would escape byte by byte."""
    size = bytes(n_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x04\x00" + (b"\x10" if has_footer else b"\x00") + size
    frame = b"PRIV" + bytes(n_bytes - 10 >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\x00\x00" + b"owner\x00"
    return tag + frame.ljust(n_bytes, b"\xff") + (b"3DI" + tag[3:] if has_footer else b"")


@pytest.mark.parametrize("container", ["mp3", "flac", "wav"])
def test_tags_at_the_start_are_skipped(container: str, tmp_path: Path):
    plain = encode_audio(make_tone(0.5), container=container)
    tagged = id3_tag(300) + id3_tag(70_000, has_footer=True) + plain
    assert np.array_equal(read_audio(tagged, RATE), read_audio(plain, RATE))
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tagged)
    assert np.array_equal(read_audio(path, RATE), read_audio(plain, RATE))


def test_a_file_after_its_tags_is_seekable():
    file = without_tags(io.BytesIO(id3_tag(300) + b"content"))
    assert file.read() == b"content"
    assert (file.seek(-3, io.SEEK_END), file.tell(), file.read()) == (4, 4, b"ent")
    assert (file.seek(2), file.read()) == (2, b"ntent")


def test_a_tag_longer_than_its_file_is_not_skipped():
    with pytest.raises(UnsupportedMedia):
        read_audio(id3_tag(300)[:200], RATE)


def click_s(source: bytes) -> float:
    """Return when the click starts in the decoded audio, in seconds from the start of the file."""
    samples = np.abs(read_audio(source, CLICK_RATE).astype(int))
    return int(np.flatnonzero(samples > 8000)[0]) / CLICK_RATE


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm", "mpegts"])
def test_audio_that_starts_after_the_video_is_preceded_by_silence(container: str):
    late = make_timed_media(container, grey_frames(75), make_click(3.0, 1.0), missing_s=[(-1, 0.8)])
    assert click_s(late) == pytest.approx(1.0, abs=0.015)
    assert len(read_audio(late, RATE)) / RATE == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm"])
@pytest.mark.parametrize("n_frames", [0, 75], ids=["audio only", "video"])
def test_the_priming_of_the_encoder_is_left_out(container: str, n_frames: int):
    """AAC and Opus put some samples before the first one, at negative timestamps."""
    whole = make_timed_media(container, grey_frames(n_frames), make_click(3.0, 1.0))
    assert click_s(whole) == pytest.approx(1.0, abs=0.004)


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm", "mpegts"])
@pytest.mark.parametrize("n_frames", [0, 75], ids=["audio only", "video"])
def test_a_gap_is_as_long_as_its_clock_says(container: str, n_frames: int):
    click = make_click(3.0, 2.5)
    gap = make_timed_media(container, grey_frames(n_frames), click, missing_s=[(1.0, 2.0)])
    whole = make_timed_media(container, grey_frames(n_frames), click)
    assert click_s(gap) == pytest.approx(click_s(whole), abs=0.002)
    assert len(read_audio(gap, RATE)) == pytest.approx(len(read_audio(whole, RATE)), abs=0.002 * RATE)


def test_discontinuous_transmission_keeps_its_time():
    """Opus sends a packet of 20 ms every 400 ms in silence."""
    pauses = [(0.42 + 0.4 * i, 0.8 + 0.4 * i) for i in range(5)]
    sparse = make_timed_media("webm", (), make_click(4.0, 3.0), missing_s=pauses)
    assert click_s(sparse) == pytest.approx(3.0, abs=0.012)


def test_samples_that_cannot_be_converted_are_refused(monkeypatch: pytest.MonkeyPatch):
    def fail(converter: AudioConverter, placed: PlacedAudio) -> None:
        av.AudioResampler(format="s16", layout="64 channels", rate=RATE).resample(placed.frame)

    monkeypatch.setattr(AudioConverter, "convert", fail)
    with pytest.raises(UnsupportedMedia, match="input: cannot be decoded"):
        read_audio(encode_audio(make_tone(1.0)), RATE)


@pytest.mark.parametrize("broken", [b"\xff\xff", b"\xff" * 40, b"\x03\xff\0\1"])
@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_broken_packet_leaves_a_gap(container: str, broken: bytes):
    """Whatever its decoder makes of it: that of AAC reports some as features it lacks."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        for number, packet in enumerate(encode_samples(out, "aac", make_click(3.0, 2.0))):
            replaced = packet if number != 30 else av.Packet(broken)
            replaced.pts, replaced.dts, replaced.duration = packet.pts, packet.dts, packet.duration
            replaced.time_base, replaced.stream = packet.time_base, packet.stream
            out.mux(replaced)
    assert click_s(buffer.getvalue()) == pytest.approx(2.0, abs=0.005)


@pytest.mark.parametrize("container", ["matroska", "webm", "mp4"])
def test_audio_that_starts_before_the_video_is_kept(container: str):
    early = make_timed_media(container, grey_frames(55), make_click(3.0, 1.0), video_start_s=0.8)
    assert click_s(early) == pytest.approx(1.0, abs=0.015)


def test_a_jump_of_a_recorders_clock_is_silence_and_one_of_an_hour_is_none():
    ahead = make_timed_media("webm", (), make_click(3.0, 2.0), jumps_s=[(1.0, 40.0)])
    assert click_s(ahead) == pytest.approx(42.0, abs=0.02)
    far = make_timed_media("webm", (), make_click(3.0, 2.0), jumps_s=[(1.0, 3500.0)])
    assert click_s(far) == pytest.approx(2.0, abs=0.02)


def test_recordings_joined_byte_by_byte_follow_one_another():
    one = make_timed_media("mpegts", (), make_click(2.0, 1.0))
    assert len(read_audio(one + one, RATE)) / RATE == pytest.approx(2 * len(read_audio(one, RATE)) / RATE, abs=0.03)


def test_silence_counts_towards_the_limit():
    gap = make_timed_media("webm", (), make_click(3.0, 2.5), missing_s=[(0.5, 2.0)])
    with pytest.raises(MediaTooLarge, match="over 2 s of audio"):
        read_audio(gap, RATE, MediaLimits(max_duration_s=2))


def test_a_length_that_is_a_guess_refuses_nothing():
    """FFmpeg guesses the length of raw AAC by the bit rate of its first packets, which here are silent."""
    samples = make_click(12.0, 11.5)
    rng = np.random.default_rng(1)
    samples[0, 10 * CLICK_RATE :] = rng.integers(-20_000, 20_000, 2 * CLICK_RATE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as out:
        for packet in encode_samples(out, "aac", samples):
            out.mux(packet)
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        assert container.duration / av.time_base > 20
    assert len(read_audio(buffer.getvalue(), RATE, MediaLimits(max_duration_s=13))) / RATE == pytest.approx(12, abs=0.1)
