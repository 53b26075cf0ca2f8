from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inference.audio import (
    MEL_WINDOW,
    SAMPLE_RATE,
    compute_mel,
    count_frames,
    count_mel_columns,
    cut_window,
    mel_columns,
    upstream_window_starts,
    window_start,
)
from inference.audio.mel import LOWEST_HZ, SILENCE, mel_basis
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise


def speech(seconds: float = 2.0) -> np.ndarray:
    spoken = synthesise(SynthesisedSpeech("BIN BLUE AT F TWO NOW", 3, None), 3) * 32767
    assert SYNTHESIS_RATE == SAMPLE_RATE
    return spoken[: int(seconds * SAMPLE_RATE)].astype(np.int16)


def tone(hz: float, level: float, n_samples: int = SAMPLE_RATE) -> np.ndarray:
    return (level * 32767 * np.sin(2 * np.pi * hz * np.arange(n_samples) / SAMPLE_RATE)).astype(np.int16)


def test_the_mel_equals_upstream(shared: Path):
    with np.load(shared / "golden" / "mel.npz") as golden:
        np.testing.assert_allclose(mel_basis(), golden["mel_basis"], atol=1e-8)
        np.testing.assert_allclose(compute_mel(golden["samples_int16"]), golden["mel"], atol=1e-5)


def test_padding_only_affects_the_ends(shared: Path):
    """The golden mel of the avatar was made with zero padding; the default reflects."""
    with np.load(shared / "golden" / "ave.npz") as golden:
        mel = compute_mel(golden["samples_int16"])
        np.testing.assert_allclose(mel[:, 2:-2], golden["mel_T_by_80"].T[:, 2:-2], atol=2e-5)
        assert np.abs(mel[:, 0] - golden["mel_T_by_80"][0]).max() > 0.01


def test_a_louder_tone_is_brighter_where_it_sounds():
    """20 dB are 1.6 of the 8 from -4 to 4, anywhere but at the clipped ends."""
    quiet, loud = compute_mel(tone(1000, 0.01))[:, 40], compute_mel(tone(1000, 0.1))[:, 40]
    band = int(loud.argmax())
    assert loud[band] - quiet[band] == pytest.approx(1.6, abs=0.02)
    assert mel_basis()[band].argmax() * 20 == pytest.approx(1000, abs=40)  # bins of 20 Hz


def test_any_stretch_is_the_wholes():
    samples = speech()
    whole = compute_mel(samples)
    for start, end in ((0, 3), (5, 40), (whole.shape[1] - 2, whole.shape[1])):
        np.testing.assert_allclose(mel_columns(samples, start, end), whole[:, start:end], atol=2e-6)


def test_silence_is_the_lowest_level_and_surrounds_the_audio():
    assert (compute_mel(np.zeros(4000, np.int16)) == SILENCE).all()
    samples = tone(440, 0.5, 4000)
    around = mel_columns(samples, -3, count_mel_columns(4000) + 3)
    assert (around[:, :3] == SILENCE).all()
    assert (around[:, -3:] == SILENCE).all()
    assert (around[:, 3:-3].max(axis=0) > SILENCE + 1).all()


@pytest.mark.parametrize("n_samples", [1, 2, 199, 399, 401, 1601])
def test_audio_shorter_than_a_transform(n_samples: int):
    mel = compute_mel(tone(440, 0.5, n_samples + 10)[10:])
    assert mel.shape == (80, 1 + n_samples // 200)
    assert np.isfinite(mel).all()
    assert mel.max() > SILENCE or n_samples < 3  # a constant level is silence


def test_no_samples_are_rejected():
    with pytest.raises(ValueError, match="without samples"):
        compute_mel(np.zeros(0, np.int16))


def test_the_basis_is_zero_outside_its_bands():
    covered = mel_basis().sum(axis=0)
    assert (covered[: int(LOWEST_HZ // 20)] == 0).all()
    assert (covered[-19:] == 0).all()  # from 7.6 kHz, bins of 20 Hz


def test_window_starts_equal_upstream(shared: Path):
    cases = json.loads((shared / "golden" / "mel_chunks.json").read_text())["cases"]
    assert len(cases) > 10
    for case in cases:
        assert count_mel_columns(case["n_samples"]) == case["mel_frames"]
        starts = upstream_window_starts(case["mel_frames"], case["fps"])
        assert len(starts) == case["count"]
        # If the audio is too short for one window, upstream's slice counts from the end; ours starts with silence.
        expected = [
            start if case["mel_frames"] >= MEL_WINDOW else case["mel_frames"] - MEL_WINDOW for start in case["starts"]
        ]
        assert starts == expected


def test_upstream_drops_the_end():
    n_samples = 10 * SAMPLE_RATE
    assert len(upstream_window_starts(count_mel_columns(n_samples), 25)) == 247
    assert count_frames(n_samples, 25) == 250
    assert count_frames(5, 25) == 1


def test_windows_follow_the_frames():
    assert [window_start(k, 25) for k in range(6)] == [0, 3, 6, 9, 12, 16]
    assert [window_start(k, 25, -1) for k in range(3)] == [-4, 0, 3]
    samples = speech(1.0)
    np.testing.assert_allclose(cut_window(samples, 3), compute_mel(samples)[:, 3:19], atol=2e-6)
    assert (cut_window(samples, -4)[:, :4] == SILENCE).all()
    assert cut_window(samples, 1000).shape == (80, MEL_WINDOW)
