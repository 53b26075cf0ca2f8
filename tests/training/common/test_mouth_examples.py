from __future__ import annotations

import numpy as np
import pytest
import torch

from training.common.espeak import TimedPhoneme, has_library
from training.common.mouth_examples import (
    AT_REST,
    CLASS_NUMBERS,
    PRESSED,
    UNKNOWN,
    RecordedLips,
    class_of,
    draw_batch,
    label_speech,
    measure_examples,
    speaker_examples,
    synthesise_examples,
)
from training.common.speech_encoder import MouthPrediction, prediction_loss

N_CLASSES = len(CLASS_NUMBERS)


def moving_lips(widest: float, n_frames: int = 75) -> np.ndarray:
    """Return lips (T, 20, 2) whose gap goes evenly from 0 to `widest` px."""
    lips = np.zeros((n_frames, 20, 2), np.float32)
    lips[:, 6, 0], lips[:, 9, 1] = 30, 10 + np.linspace(0, widest, n_frames)
    lips[:, [19, 18, 17], 1] = np.linspace(0, widest, n_frames)[:, None]
    return lips


def test_openings_are_counted_in_the_speakers_own():
    samples = np.random.default_rng(1).normal(0, 2000, 48_000).astype(np.int16)
    clips = [RecordedLips(f"{name}_1", name, moving_lips(widest), samples) for name, widest in (("a", 4), ("b", 12))]
    plain, faster, other, _ = measure_examples(clips, n_speeds=1)
    assert np.allclose(plain.shapes, other.shapes, atol=1e-4)
    assert plain.shapes[:5, 0] == pytest.approx(AT_REST)
    assert plain.shapes[72, 0] == pytest.approx(1, abs=0.02)
    assert plain.shapes[:, 1].std() == pytest.approx(1)
    assert faster.n_frames != plain.n_frames
    assert faster.shapes[-1, 0] == pytest.approx(plain.shapes[-1, 0], abs=0.03)
    assert (plain.classes == UNKNOWN).all()


def test_lips_are_pressed_on_bilabials_and_rest_in_pauses():
    names = [("_", 0.4), ("A:", 0.3), ("b", 0.12), ("A:", 0.3), ("_", 0.4)]
    ends = np.cumsum([length for _, length in names])
    phonemes = [TimedPhoneme(name, end - length, end) for (name, length), end in zip(names, ends, strict=True)]
    example = label_speech("aba", np.zeros(round(ends[-1] * 16_000), np.float32), phonemes)
    opening, middle = example.shapes[:, 0], round(0.76 * 25)
    assert opening[middle] == pytest.approx(-PRESSED + AT_REST, abs=0.05)
    assert opening[[14, 23]].min() > 0.7
    assert opening[:5] == pytest.approx(AT_REST, abs=0.01)
    assert example.known.tolist() == [1, 0, 0]
    assert example.classes[[2, 14, middle]].tolist() == [class_of("_"), class_of("A"), class_of("b")]


def test_variants_of_a_phoneme_are_one_class():
    assert class_of("i:") == class_of("i") == class_of("i:#")
    assert class_of("") == class_of("_:") == 0
    with pytest.raises(KeyError):
        class_of("Q")


def test_the_synthetic_speaker_needs_no_rendering():
    (example,) = speaker_examples(1, first_seed=8)  # a formant voice
    assert example.n_frames == 75
    assert example.shapes[0, 0] == pytest.approx(AT_REST)
    assert example.shapes[:, 0].max() > 0.9
    assert example.shapes[5:70, 0].min() < -PRESSED  # every sentence of GRID starts with B, L, P or S and has more


@pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")
def test_batches_mix_kinds_and_silence():
    spoken = synthesise_examples(2, seed=1)
    batch = draw_batch([spoken, speaker_examples(1, first_seed=8)], 200, np.random.default_rng(3))
    assert batch.mels.shape == (200, 1, 80, 16)
    assert batch.shapes.shape == batch.known.shape == (200, 3)
    silent = batch.mels.flatten(1).amax(1) < 0.5
    assert 0.05 < ((batch.shapes[:, 0] == np.float32(AT_REST)) & silent).float().mean() < 0.5
    assert 0.2 < (batch.classes == UNKNOWN).float().mean() < 0.7


def test_what_is_unknown_does_not_count():
    rng = np.random.default_rng(3)
    example = label_speech("a", np.zeros(16_000, np.float32), [TimedPhoneme("A", 0, 1)])
    batch = draw_batch([[example]], 8, rng)
    found = MouthPrediction(torch.zeros(8, 3), torch.zeros(8), torch.zeros(8, N_CLASSES))
    loss = prediction_loss(found, batch)
    wrong_form = found._replace(shapes=torch.tensor([0.0, 9.0, 9.0]).expand(8, 3))
    assert prediction_loss(wrong_form, batch) == loss
    wrong_opening = found._replace(shapes=torch.tensor([5.0, 0.0, 0.0]).expand(8, 3))
    assert prediction_loss(wrong_opening, batch) > loss
