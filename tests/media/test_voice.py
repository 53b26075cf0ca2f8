from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from films import film, numbered
from sounds import CODECS, pitch_of, record, sing, without_samples

from inference.audio import compute_mel
from inference.errors import MediaTooLarge, NoAudio, StorageError, UnsupportedMedia
from inference.media import MediaChild, MediaLimits
from inference.media.encode import write_film
from inference.media.sound import SoundForm, read_sound
from inference.media.voice import Voice, read_voice


@pytest.fixture(scope="module")
def child():
    with MediaChild() as one:
        yield one


@pytest.fixture(params=["here", "child"])
def door(request: pytest.FixtureRequest, child: MediaChild) -> Callable:
    return read_voice if request.param == "here" else child.read_voice


def test_a_voice_keeps_its_rate_and_channels(door: Callable):
    voices = np.stack([sing(1.3, 44100)[0], sing(1.3, 44100, hz=660)[0]])
    with door(record(voices, 44100), None) as voice:
        assert (voice.rate, voice.n_channels, len(voice)) == (44100, 2, voices.shape[1])
        assert np.array_equal(voice.cut(0, len(voice)), voices.T)
        assert np.array_equal(voice.cut(5000, 5003), voices.T[5000:5003])


@pytest.mark.parametrize(("rate", "kept"), [(96000, 48000), (8000, 8000), (10000, 11025)])
def test_a_rate_that_aac_has_not_is_resampled_once(rate: int, kept: int):
    with read_voice(record(sing(1.0, rate), rate)) as voice:
        assert voice.rate == kept
        assert len(voice) == pytest.approx(kept, abs=2)


@pytest.mark.parametrize("container", sorted(CODECS))
def test_networks_hear_what_read_sound_hears(container: str):
    source = record(sing(1.2, n_channels=2), container=container)
    with read_voice(source) as voice:
        heard = voice.as_mono(16000).astype(int)
    expected = read_sound(source, 16000).astype(int)
    assert len(heard) == pytest.approx(len(expected), abs=2)
    n = min(len(heard), len(expected))
    assert np.abs(heard[:n] - expected[:n]).max() <= 2
    assert pitch_of(heard[2000:]) == pytest.approx(440, abs=2)


def test_sound_at_the_networks_rate_is_untouched():
    voices = sing(20.0, 16000)
    with read_voice(record(voices, 16000)) as voice:
        assert np.array_equal(voice.as_mono(16000), voices[0])


def test_a_film_gets_its_voice_as_good_as_it_came(tmp_path: Path):
    voices = np.stack([sing(1.0, 44100, hz=440)[0], sing(1.0, 44100, hz=3000)[0]])
    with read_voice(record(voices, 44100)) as voice, write_film(tmp_path / "a.mp4", 25, voice) as writer:
        for frame in numbered(25):
            writer.add(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.layout.name) == (44100, "stereo")
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)[:, :44100]
    peaks = np.abs(np.fft.rfft(heard * np.hanning(heard.shape[1]), axis=1)).argmax(axis=1)
    assert peaks.tolist() == pytest.approx([440, 3000], abs=2)


def test_numbers_that_are_none_make_no_spectrogram_that_is_none():
    """A float file may hold them; upstream's mel became NaN, and its film black."""
    samples = np.sin(np.arange(8000) / 9).astype(np.float32)
    samples[100:200], samples[300], samples[400] = np.nan, np.inf, -np.inf
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
    body = head + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    with read_voice(b"RIFF" + struct.pack("<I", len(body)) + body) as voice:
        heard = voice.as_mono(16000)
    assert len(heard) == 8000
    assert np.isfinite(compute_mel(heard)).all()
    assert np.abs(heard[1000:].astype(int) - samples[1000:] * 32767).max() <= 2


@pytest.mark.parametrize(
    ("source", "error"),
    [(film(numbered(5)), NoAudio), (without_samples(), NoAudio), (b"<html>", UnsupportedMedia)],
    ids=["film without sound", "no sample", "page"],
)
def test_what_has_no_sound_says_so(door: Callable, source: bytes, error: type[Exception]):
    with pytest.raises(error):
        door(source, None)


def test_limits_hold_for_what_is_decoded(door: Callable):
    with pytest.raises(MediaTooLarge, match="2 s"):
        door(record(sing(3.0, n_channels=2), container="ogg"), MediaLimits(max_duration_s=2))


def test_a_full_disk_is_said():
    class Full:
        def write(self, _data):
            raise OSError(28, "No space left on device")

        def close(self):
            return None

    with Voice(SoundForm(16000)) as voice:
        voice.close()
        voice._file = Full()
        with pytest.raises(StorageError, match="No space left"):
            voice.add(sing(0.1)[0])
