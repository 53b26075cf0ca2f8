from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from support.audio_files import CODECS, encode_audio, make_tone, pitch_of, wav_without_samples
from support.timed_media import make_click, make_timed_media
from support.video_files import make_video, numbered_frames

from inference.audio import compute_mel
from inference.errors import MediaNotFound, MediaTooLarge, MediaTruncated, NoAudio, StorageError, UnsupportedMedia
from inference.media import MediaLimits, SandboxedDecoder
from inference.media.audio import read_audio
from inference.media.audio_convert import AudioFormat
from inference.media.audio_spool import AudioSpool, spool_audio
from inference.media.encode import write_video
from inference.media.media_warnings import CLOCK_JUMP


@pytest.fixture(scope="module")
def child():
    with SandboxedDecoder() as one:
        yield one


@pytest.fixture(params=["here", "child"])
def reader(request: pytest.FixtureRequest, child: SandboxedDecoder) -> Callable:
    return spool_audio if request.param == "here" else child.spool_audio


def test_rate_and_channels_are_kept(reader: Callable):
    channels = np.stack([make_tone(1.3, 44100)[0], make_tone(1.3, 44100, hz=660)[0]])
    with reader(encode_audio(channels, 44100), None) as spool:
        assert (spool.rate, spool.n_channels, len(spool)) == (44100, 2, channels.shape[1])
        assert np.array_equal(spool.read(0, len(spool)), channels.T)
        assert np.array_equal(spool.read(5000, 5003), channels.T[5000:5003])


@pytest.mark.parametrize(("rate", "kept"), [(96000, 48000), (8000, 8000), (10000, 11025)])
def test_a_rate_that_aac_lacks_is_resampled_once(rate: int, kept: int):
    with spool_audio(encode_audio(make_tone(1.0, rate), rate)) as spool:
        assert spool.rate == kept
        assert len(spool) == pytest.approx(kept, abs=2)


@pytest.mark.parametrize(("layout", "channel", "gain_db"), [("5.1", 2, -3), ("7.1", 0, 0)])
def test_speech_in_surround_sound_is_mixed_as_players_do(layout: str, channel: int, gain_db: float):
    tone = make_tone(0.5)[0]
    channels = np.zeros((len(tone), int(layout[0]) + 1), np.int16)
    channels[:, channel] = tone
    with spool_audio(encode_pcm(channels, "s16", layout)) as spool:
        mixed = spool.read(0, len(spool))
    assert mixed.shape == (len(tone), 2)
    assert 20 * np.log10(np.abs(mixed[:, 0]).max() / 12000) == pytest.approx(gain_db, abs=0.1)


def test_loud_surround_sound_is_clipped_not_wrapped():
    channels = np.full((4800, 6), 30000, np.int16)
    with spool_audio(encode_pcm(channels, "s16", "5.1")) as spool:
        assert spool.read(0, len(spool)).min() > 30000


@pytest.mark.parametrize(("samples", "kind"), [("flt", np.float32), ("dbl", np.float64)])
def test_what_is_not_a_number_is_silence(samples: str, kind: type):
    channels = np.full((4800, 2), 0.25, kind)
    channels[1000:1200] = np.nan
    with spool_audio(encode_pcm(channels, samples, "stereo")) as spool:
        decoded = spool.read(0, len(spool))
    assert not decoded[1000:1200].any()
    assert np.unique(decoded[:1000]).tolist() == np.unique(decoded[1200:]).tolist() == [8192]


def encode_pcm(channels: np.ndarray, samples: str, layout: str) -> bytes:
    """Encode (N, channels) samples as uncompressed WAV."""
    buffer = io.BytesIO()
    codec = {"s16": "pcm_s16le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}[samples]
    with av.open(buffer, "w", format="wav") as out:
        stream = out.add_stream(codec, rate=48000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels).reshape(1, -1), samples, layout)
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("container", sorted(CODECS))
def test_mono_audio_equals_read_audio(container: str):
    source = encode_audio(make_tone(1.2, n_channels=2), container=container)
    with spool_audio(source) as spool:
        decoded = spool.to_mono(16000).astype(int)
    expected = read_audio(source, 16000).astype(int)
    assert len(decoded) == pytest.approx(len(expected), abs=2)
    n = min(len(decoded), len(expected))
    assert np.abs(decoded[:n] - expected[:n]).max() <= 2
    assert pitch_of(decoded[2000:]) == pytest.approx(440, abs=2)


def test_audio_at_the_networks_rate_is_unchanged():
    channels = make_tone(20.0, 16000)
    with spool_audio(encode_audio(channels, 16000)) as spool:
        assert np.array_equal(spool.to_mono(16000), channels[0])


def test_a_video_gets_lossless_stereo_audio(tmp_path: Path):
    channels = np.stack([make_tone(1.0, 44100, hz=440)[0], make_tone(1.0, 44100, hz=3000)[0]])
    with spool_audio(encode_audio(channels, 44100)) as spool, write_video(tmp_path / "a.mp4", 25, spool) as writer:
        for frame in numbered_frames(25):
            writer.add(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.layout.name) == (44100, "stereo")
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)[:, :44100]
    peaks = np.abs(np.fft.rfft(decoded * np.hanning(decoded.shape[1]), axis=1)).argmax(axis=1)
    assert peaks.tolist() == pytest.approx([440, 3000], abs=2)


def test_nan_samples_give_a_finite_spectrogram():
    """A float file may contain NaN; upstream's mel became NaN, and its video black."""
    samples = np.sin(np.arange(8000) / 9).astype(np.float32)
    samples[100:200], samples[300], samples[400] = np.nan, np.inf, -np.inf
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
    body = head + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    with spool_audio(b"RIFF" + struct.pack("<I", len(body)) + body) as spool:
        decoded = spool.to_mono(16000)
    assert len(decoded) == 8000
    assert np.isfinite(compute_mel(decoded)).all()
    assert np.abs(decoded[1000:].astype(int) - samples[1000:] * 32767).max() <= 2


@pytest.mark.parametrize(
    ("source", "error"),
    [(make_video(numbered_frames(5)), NoAudio), (wav_without_samples(), NoAudio), (b"<html>", UnsupportedMedia)],
    ids=["video without audio", "no samples", "page"],
)
def test_missing_audio_is_reported(reader: Callable, source: bytes, error: type[Exception]):
    with pytest.raises(error):
        reader(source, None)


def test_limits_apply_to_what_is_decoded(reader: Callable):
    with pytest.raises(MediaTooLarge, match="2 s"):
        reader(encode_audio(make_tone(3.0, n_channels=2), container="ogg"), MediaLimits(max_duration_s=2))


def test_a_truncated_file_differs_from_a_short_one(reader: Callable, tmp_path: Path):
    """An MP4 with its index first declares the duration that is missing."""
    path = tmp_path / "audio.m4a"
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_tone(20.0), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    encoded = path.read_bytes()
    with reader(encoded, None) as spool:
        assert len(spool) == pytest.approx(20 * 48000, abs=2 * 2048)
    with pytest.raises(MediaTruncated, match="truncated"):
        reader(encoded[: len(encoded) // 2], None)


def test_an_impossible_sample_rate_is_rejected(reader: Callable):
    wav = bytearray(encode_audio(make_tone(0.1, 16000), 16000))
    at = wav.index(b"fmt ") + 12
    wav[at : at + 4] = struct.pack("<I", 2_000_000_000)
    with pytest.raises((UnsupportedMedia, NoAudio), match="input"):
        reader(bytes(wav), None)


def test_a_missing_file(reader: Callable, tmp_path: Path):
    with pytest.raises(MediaNotFound, match=r"gone\.wav"):
        reader(tmp_path / "gone.wav", None)


def test_the_child_decodes_audio_larger_than_its_slots(child: SandboxedDecoder):
    """The child works ahead by a few blocks of audio, and no more."""
    channels = make_tone(40.0, 48000, n_channels=2)
    with child.spool_audio(encode_audio(channels, 48000)) as spool:
        assert np.array_equal(spool.read(0, len(spool)), channels.T)


def test_the_child_decodes_audio_then_frames(child: SandboxedDecoder):
    source = make_video(numbered_frames(30), with_tone=True)
    for _ in range(2):
        with child.spool_audio(source) as spool:
            assert len(spool) > 16000
        with child.open(source) as media:
            assert sum(len(clip.frames) for clip in media.read_clips(25)) == 30


def test_a_full_disk_is_reported():
    class Full:
        def write(self, _data):
            raise OSError(28, "No space left on device")

        def close(self):
            return None

    with AudioSpool(AudioFormat(16000)) as spool:
        spool.close()
        spool._file = Full()
        with pytest.raises(StorageError, match="No space left"):
            spool.append(make_tone(0.1)[0])


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("n_samples", [1, 2, 20, 33, 64])
def test_a_few_samples_are_audio(reader: Callable, rate: int, n_samples: int):
    """The resampler makes nothing of so few; a speech synthesiser writes them for an empty text."""
    with reader(encode_audio(np.full((1, n_samples), 9000, np.int16), rate), None) as spool:
        mono = spool.to_mono(16000)
        assert 1 <= len(mono) <= max(n_samples * 16000 / rate + 1, 1)
        assert compute_mel(mono).shape[1] >= 1


def test_silence_takes_no_disk():
    with AudioSpool(AudioFormat(48000)) as spool:
        spool.append(np.ones(1000, np.int16))
        spool.append(np.zeros(1 << 24, np.int16))
        spool.append(np.full(500, 2, np.int16))
        assert len(spool) == 1500 + (1 << 24)
        assert os.fstat(spool._file.fileno()).st_blocks * 512 < 1 << 20
        assert np.array_equal(spool.read(998, 1003)[:, 0], [1, 1, 0, 0, 0])
        assert np.array_equal(spool.read(999 + (1 << 24), 1003 + (1 << 24))[:, 0], [0, 2, 2, 2])


def test_a_jump_of_the_clock_is_reported(reader: Callable):
    with reader(make_timed_media("webm", (), make_click(2.0, 1.0), jumps_s=[(1.0, 3500.0)]), None) as spool:
        assert spool.warnings == (CLOCK_JUMP,)
    with reader(make_timed_media("webm", (), make_click(2.0, 1.0)), None) as spool:
        assert spool.warnings == ()
