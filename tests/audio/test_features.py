from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import seeded_state

from inference.audio import compute_mel
from inference.audio.features import (
    LOOK_AHEAD_MS,
    count_upstream_windows,
    mel_of_window,
    reach_of_window,
    repeat_ends,
    rows_of_frame,
    upstream_window_starts,
    upstream_windows,
    window_start,
    windows_of_frame,
)
from inference.models import AudioVisualEncoder


def noise(n_samples: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(n_samples) * 3000).astype(np.int16)


def test_the_mel_with_zeros_around_is_upstreams(shared: Path):
    with np.load(shared / "golden" / "ave.npz") as golden:
        mel = compute_mel(golden["samples_int16"], "zeros")
        np.testing.assert_allclose(mel, golden["mel_T_by_80"].T, atol=2e-5)


def test_windows_features_and_rows_are_upstreams(shared: Path):
    ear = AudioVisualEncoder().eval()
    ear.load_state_dict(seeded_state(ear, 0.8))
    with np.load(shared / "golden" / "ave.npz") as golden, torch.inference_mode():
        windows = upstream_windows(golden["samples_int16"])
        assert len(windows) == len(golden["window_starts"]) == 147
        np.testing.assert_allclose(windows[golden["window_index"]], golden["mel_windows"][:, 0], atol=2e-5)
        chosen = [0, 1, 2, 40, 99, 100, 101, 145, 146]
        said = ear(torch.from_numpy(windows[chosen])[:, None]).numpy()
        np.testing.assert_allclose(said, golden["features"][np.array(chosen) + 1], atol=1e-4)
        features = golden["features"]
        np.testing.assert_array_equal(repeat_ends(features[1:-1]), features)
        for frame in (0, 100):
            rows = rows_of_frame(features, frame).reshape(32, 16, 16)
            np.testing.assert_array_equal(rows, golden[f"unet_audio_input_frame{frame}"])


def test_the_count_and_the_rows_are_upstreams(shared: Path):
    golden = json.loads((shared / "golden" / "ave_windows.json").read_text())
    assert upstream_window_starts(golden["mel_frames"]) == golden["window_starts"]
    for case in golden["count_rule_cases"]:
        assert count_upstream_windows(case["mel_frames"]) == max(case["windows"], 0)
        if case["all_windows_16_wide"]:
            starts = upstream_window_starts(case["mel_frames"])
            assert starts[-len(case["last_starts"]) :] == case["last_starts"]
    numbered = np.arange(1, golden["features"] + 1, dtype=np.float32)[:, None]
    for frame, expected in zip(golden["feature_window_frames"], golden["feature_window_table"], strict=True):
        assert (rows_of_frame(numbered, frame)[:, 0].astype(int) - 1).tolist() == expected


def test_rows_by_hand():
    """Eight before the frame, itself and seven behind; zeros where there are none."""
    features = np.arange(1, 31, dtype=np.float32)[:, None]
    assert rows_of_frame(features, 10)[:, 0].tolist() == list(range(3, 19))
    assert rows_of_frame(features, 0)[:, 0].tolist() == [0] * 8 + list(range(1, 9))
    assert rows_of_frame(features, 29)[:, 0].tolist() == list(range(22, 31)) + [0] * 7
    assert not rows_of_frame(features, 100).any()
    assert repeat_ends(features)[:, 0].tolist() == [1, *range(1, 31), 30]


def test_a_second_of_sound_by_hand():
    """81 columns: int(65 / 80 * 25) + 2 windows, the last two pulled back to column 65."""
    assert count_upstream_windows(81) == 22
    starts = upstream_window_starts(81)
    assert starts[:6] == [0, 3, 6, 9, 12, 16]
    assert starts[-3:] == [60, 64, 65]
    assert upstream_windows(noise(16000)).shape == (22, 80, 16)


def test_too_little_for_a_window_is_refused():
    with pytest.raises(ValueError, match="2999 samples fill no window; expected 3000"):
        upstream_windows(noise(2999))
    assert count_upstream_windows(1) == 0


def test_a_window_by_itself_is_the_files():
    """The stretch that a window hears says the same as the whole spectrogram does, wherever it lies inside."""
    samples = noise(16000)
    mel = compute_mel(samples, "zeros")
    for k in (1, 2, 7, 18):
        first, last = reach_of_window(k)
        assert last - first == 3801
        start = window_start(k)
        np.testing.assert_allclose(mel_of_window(samples[first:last]), mel[:, start : start + 16], atol=2e-5)


def test_a_frame_looks_so_far_ahead_and_no_further():
    beyond = [reach_of_window(windows_of_frame(i)[-1])[1] / 16 - 40 * i for i in range(50)]
    assert max(beyond) == LOOK_AHEAD_MS
    assert min(beyond) > LOOK_AHEAD_MS - 12.5
    assert windows_of_frame(0) == range(-9, 7)
