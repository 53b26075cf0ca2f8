from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.avatar.place_network import PlaceNetwork
from training.avatar.train_audio_encoder import (
    ENCODER_WIDTHS,
    N_SHAPES,
    SILENCE,
    UNET_WIDTHS,
    AudioEncoderRecipe,
    FrameBatch,
    bundled_speech_encoder,
    draw_batch,
    encode,
    join_networks,
    load_layers,
    mouth_loss,
    predict,
    score,
    take_evenly,
)
from training.avatar.utterances import LabelledUtterance, label_utterance, make_silence
from training.common.espeak import TimedPhoneme

RECIPE = AudioEncoderRecipe(Path("unused"), look_ahead=1)


def make_utterance() -> LabelledUtterance:
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    phonemes = [TimedPhoneme(name, i * 0.2, (i + 1) * 0.2) for i, name in enumerate(("_", "b", "A:", "m", "i:"))]
    return label_utterance("noise", samples, phonemes)


def make_batch(weights: list[float]) -> FrameBatch:
    mouths = torch.zeros(2, N_SHAPES)
    mouths[:, 0] = torch.tensor([0.2, 0.9])
    return FrameBatch(torch.zeros(2, 16, 256), mouths, mouths[:, 0], torch.ones(2), torch.tensor(weights))


def test_the_true_mouth_costs_nothing_and_bilabials_more():
    batch, other = make_batch([1, 1]), make_batch([3, 1])
    assert mouth_loss(batch.mouths, batch) < 1e-3
    wrong = batch.mouths + torch.tensor([[0.5], [0.0]])
    assert mouth_loss(wrong, other) == pytest.approx(3 * mouth_loss(wrong, batch).item(), rel=1e-2)


def test_only_the_gap_of_real_lips_counts():
    batch = make_batch([1, 1])
    real = FrameBatch(batch.stacks, torch.zeros_like(batch.mouths), batch.gaps, torch.zeros(2), batch.weights)
    assert mouth_loss(batch.mouths, real) < 1e-3


def test_batches_mix_kinds_and_silence():
    layers, one = load_layers(bundled_speech_encoder()), make_utterance()
    kinds = {
        "a": encode(layers, [one], RECIPE, n_varied=1),
        SILENCE: encode(layers, [make_silence(2, 0)], RECIPE, n_varied=0),
    }
    assert len(kinds["a"].gaps) == 2 * one.n_frames
    assert [len(frames) for frames in kinds["a"].utterances()] == [one.n_frames] * 2
    spoken, silent = draw_batch(kinds, 400, np.random.default_rng(0))
    assert 5 < len(silent.gaps) < 60
    assert len(spoken.gaps) + len(silent.gaps) == 400
    assert set(spoken.weights.tolist()) == {1.0, 3.0}
    assert silent.gaps.max() == 0


def test_cached_rows_give_the_same_mouths_as_the_assembled_networks():
    torch.manual_seed(0)
    layers, one = load_layers(bundled_speech_encoder()), make_utterance()
    network = PlaceNetwork(ENCODER_WIDTHS[-1], UNET_WIDTHS, N_SHAPES)
    encoded = encode(layers, [one], RECIPE, n_varied=0)
    with torch.no_grad():
        expected = network(encoded.stacks(np.arange(one.n_frames))).numpy()
    found = predict(join_networks(layers, network), one, RECIPE.look_ahead)
    assert np.abs(found - expected).max() < 0.02  # rows are stored in float16
    assert -1 <= score(network, encoded) <= 1


def test_clips_are_taken_evenly():
    assert take_evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert take_evenly(list(range(3)), None) == [0, 1, 2]
