from __future__ import annotations

from dataclasses import replace
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
    encode_kinds,
    join_networks,
    load_kinds,
    load_layers,
    mouth_loss,
    predict,
    score,
    take_evenly,
)
from training.avatar.utterances import LabelledUtterance, label_utterance, make_silence
from training.common.espeak import TimedPhoneme
from training.common.face_packs import FaceClip

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


def test_rows_of_another_recipe_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kinds = {"a": [make_utterance()], SILENCE: [make_silence(1, 0)]}
    monkeypatch.setattr("training.avatar.train_audio_encoder.load_kinds", lambda _: (kinds, {"a": kinds["a"]}))
    layers, recipe = load_layers(bundled_speech_encoder()), replace(RECIPE, run=tmp_path)
    made, _ = encode_kinds(layers, recipe)
    again, held_out = encode_kinds(layers, replace(recipe, steps=5))  # rows do not depend on the steps
    np.testing.assert_array_equal(again["a"].rows, made["a"].rows)
    assert list(held_out) == ["a"]
    for changed, words in (
        ({"look_ahead": 6}, "look_ahead 1, but this run has 6"),
        ({"seed": 12}, "seed 11, but this run has 12"),
        ({"packs": (tmp_path,)}, r"packs \[\], but this run has"),
    ):
        with pytest.raises(ValueError, match=words):
            encode_kinds(layers, replace(recipe, **changed))
    with np.load(tmp_path / "rows.npz") as saved:
        arrays = {key: saved[key] for key in saved.files if key != "recipe"}
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(ValueError, match="made with start not stated"):
        encode_kinds(layers, recipe)


def make_clip(name: str, person: str) -> FaceClip:
    samples = (np.random.default_rng(0).normal(0, 3000, 32_000)).astype(np.int16)
    lips = np.random.default_rng(1).uniform(30, 60, (50, 20, 2)).astype(np.float32)
    return FaceClip(name, person, np.zeros(0, np.uint8), lips, samples)


def test_kinds_without_speech_are_left_out(monkeypatch: pytest.MonkeyPatch):
    """A folder may have only people that are held out, and several folders may have some."""
    clips = {"a": [make_clip("1", "s32")], "b": [make_clip("2", "s32"), make_clip("3", "s9")]}
    monkeypatch.setattr("training.avatar.train_audio_encoder.load_faces", lambda folder: clips[folder.name])
    recipe = replace(RECIPE, packs=(Path("a"), Path("b")), n_utterances=0)
    kinds, held_out = load_kinds(recipe)
    assert list(kinds) == ["b", SILENCE]
    assert len(held_out["s32"]) == 2
    with pytest.raises(ValueError, match="no speech to train on"):
        load_kinds(replace(recipe, packs=(Path("a"),)))
    with pytest.raises(ValueError, match="no speech to train on"):
        load_kinds(replace(recipe, packs=()))


@pytest.mark.parametrize("folders", [("x/a", "y/a"), ("x/kokoro",), ("s32", "a")])
def test_folders_whose_names_clash_are_refused(folders: tuple[str, ...]):
    with pytest.raises(ValueError, match="names two kinds of speech"):
        load_kinds(replace(RECIPE, packs=tuple(map(Path, folders)), n_utterances=0))
