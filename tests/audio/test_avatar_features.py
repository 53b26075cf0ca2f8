from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state

from inference.audio import compute_mel
from inference.audio.avatar_features import (
    AVATAR_FPS,
    avatar_window_start,
    look_ahead_ms,
    mel_of_window,
    rows_of_frame,
    sample_range_of_window,
    windows_of_frame,
)
from inference.audio.wav2lip_windows import MEL_WINDOW
from inference.models import AudioVisualEncoder


def count_upstream_windows(n_columns: int) -> int:
    """Return the number of windows that upstream cuts. Source: SyncTalk_2D utils.py AudDataset."""
    return max(int((n_columns - MEL_WINDOW) / 80 * AVATAR_FPS) + 2, 0)


def upstream_window_starts(n_columns: int) -> list[int]:
    """Return where upstream's windows start; the last ones are moved back to end with the audio."""
    return [min(avatar_window_start(k), n_columns - MEL_WINDOW) for k in range(count_upstream_windows(n_columns))]


def upstream_windows(samples: np.ndarray) -> np.ndarray:
    """Return upstream's input for a whole file: (windows, 80, 16) float32."""
    mel = compute_mel(samples, "zeros")
    return np.stack([mel[:, start : start + MEL_WINDOW] for start in upstream_window_starts(mel.shape[1])])


def repeat_ends(features: np.ndarray) -> np.ndarray:
    """Return upstream's rows for a file: the features of its windows, the first and the last of them twice."""
    return np.concatenate([features[:1], features, features[-1:]])


def noise(n_samples: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(n_samples) * 3000).astype(np.int16)


def test_the_zero_padded_mel_equals_upstream(shared: Path):
    with np.load(shared / "golden" / "ave.npz") as golden:
        mel = compute_mel(golden["samples_int16"], "zeros")
        np.testing.assert_allclose(mel, golden["mel_T_by_80"].T, atol=2e-5)


def test_windows_features_and_rows_equal_upstream(shared: Path):
    encoder = AudioVisualEncoder().eval()
    encoder.load_state_dict(seeded_state(encoder, 0.8))
    with np.load(shared / "golden" / "ave.npz") as golden, torch.inference_mode():
        windows = upstream_windows(golden["samples_int16"])
        assert len(windows) == len(golden["window_starts"]) == 147
        np.testing.assert_allclose(windows[golden["window_index"]], golden["mel_windows"][:, 0], atol=2e-5)
        chosen = [0, 1, 2, 40, 99, 100, 101, 145, 146]
        encoded = encoder(torch.from_numpy(windows[chosen])[:, None]).numpy()
        np.testing.assert_allclose(encoded, golden["features"][np.array(chosen) + 1], atol=1e-4)
        features = golden["features"]
        np.testing.assert_array_equal(repeat_ends(features[1:-1]), features)
        for frame in (0, 100):
            rows = rows_of_frame(features, frame).reshape(32, 16, 16)
            np.testing.assert_array_equal(rows, golden[f"unet_audio_input_frame{frame}"])


def test_window_counts_and_rows_equal_upstream(shared: Path):
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
    """Eight rows before the frame, its own and seven after; zeros outside the audio."""
    features = np.arange(1, 31, dtype=np.float32)[:, None]
    assert rows_of_frame(features, 10)[:, 0].tolist() == list(range(3, 19))
    assert rows_of_frame(features, 0)[:, 0].tolist() == [0] * 8 + list(range(1, 9))
    assert rows_of_frame(features, 29)[:, 0].tolist() == list(range(22, 31)) + [0] * 7
    assert not rows_of_frame(features, 100).any()
    assert repeat_ends(features)[:, 0].tolist() == [1, *range(1, 31), 30]


def test_one_second_by_hand():
    """81 columns: int(65 / 80 * 25) + 2 windows, the last two moved back to column 65."""
    assert count_upstream_windows(81) == 22
    starts = upstream_window_starts(81)
    assert starts[:6] == [0, 3, 6, 9, 12, 16]
    assert starts[-3:] == [60, 64, 65]
    assert upstream_windows(noise(16000)).shape == (22, 80, 16)


def test_a_single_window_equals_the_spectrogram():
    """A window computed from its own samples equals those columns of the whole spectrogram, anywhere inside."""
    samples = noise(16000)
    mel = compute_mel(samples, "zeros")
    for k in (1, 2, 7, 18):
        first, last = sample_range_of_window(k)
        assert last - first == 3801
        start = avatar_window_start(k)
        np.testing.assert_allclose(mel_of_window(samples[first:last]), mel[:, start : start + 16], atol=2e-5)


@pytest.mark.parametrize(("look_ahead", "milliseconds"), [(6, 452.5), (1, 252.5), (-1, 172.5)])
def test_the_look_ahead_of_a_frame(look_ahead: int, milliseconds: float):
    beyond = [sample_range_of_window(windows_of_frame(i, look_ahead)[-1])[1] / 16 - 40 * i for i in range(50)]
    assert max(beyond) == look_ahead_ms(look_ahead) == milliseconds
    assert min(beyond) > milliseconds - 12.5
    assert len(windows_of_frame(7, look_ahead)) == 16


def test_published_avatars_look_six_windows_ahead():
    assert windows_of_frame(0) == range(-9, 7)
    assert look_ahead_ms() == 452.5
