from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.dimensions.wav2lip import Wav2LipWidths
from inference.faces.ssim import ssim
from inference.lip_sync.preprocess import FACE_SIZE, stack_faces
from inference.models import Wav2Lip
from inference.visemes.network import read_network
from inference.weights.checkpoint import load_into, read_tensors
from training.common.checkpoint import write_half_precision
from training.common.face_packs import (
    FaceClip,
    write_pack,
)
from training.common.lips import landmark_gap
from training.common.mixed_precision import has_bfloat16
from training.common.mouth_examples import PHONEME_CLASSES
from training.lip_sync.evaluate import MotionScore
from training.lip_sync.lip_regressor import train_lip_regressor
from training.lip_sync.samples import (
    PreparedClip,
    add_mirrored,
    draw_batch,
    own_shapes,
    prepare_clip,
    prepare_stabilised,
    remove_margin,
)
from training.lip_sync.train import (
    LOWER_WEIGHT,
    MOUTH_WEIGHT,
    LipSyncRecipe,
    LipSyncTraining,
    edge_error,
    error_weights,
    even_out,
    is_held_out,
    mirror_error,
    split_clips,
    structural_similarity,
    train,
)
from training.lip_sync.widths import WIDTHS
from training.make_weights import DRAWING_STAGES, main


def test_errors_count_most_in_the_mouth():
    lips = torch.full((1, 20, 2), 60.0)
    lips[0, 0], lips[0, 6] = torch.tensor([30.0, 60.0]), torch.tensor([66.0, 70.0])
    weights = error_weights(lips)[0, 0]
    assert weights[65, 48] == MOUTH_WEIGHT
    assert weights[90, 48] == weights[65, 10] == LOWER_WEIGHT
    assert weights[20, 48] == 1
    flat, edge = torch.zeros(1, 3, FACE_SIZE, FACE_SIZE), torch.zeros(1, 3, FACE_SIZE, FACE_SIZE)
    edge[..., 48:] = 1
    assert edge_error(flat, flat + 0.5, torch.ones(1, 1, FACE_SIZE, FACE_SIZE)) == 0  # another level, but as sharp
    assert edge_error(flat, edge, torch.ones(1, 1, FACE_SIZE, FACE_SIZE)) == pytest.approx(1 / (FACE_SIZE - 1))


def test_the_audio_half_is_not_trained_with_the_drawing_half(clip: FaceClip, encoder: Path, tmp_path: Path):
    recipe = LipSyncRecipe((tmp_path,), tmp_path, encoder, steps=1, batch=4, lip_steps=1)
    training = LipSyncTraining(recipe, [prepare_stabilised(clip, own_shapes([clip])[clip.name])], {})
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    assert training.run_round()["steps"] == 1
    for name, value in training.network.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value, before[name]) == name.startswith("audio_encoder."), name
    assert training.part_done() == 1
    again = LipSyncTraining(recipe, [prepare_stabilised(clip, own_shapes([clip])[clip.name])], {})  # resumed
    found, kept = again.lip_regressor.state_dict(), training.lip_regressor.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in found.items())


def test_a_network_that_draws_teaches_the_regressor_too(
    clip: FaceClip, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    monkeypatch.setattr(
        "training.lip_sync.train.train_lip_regressor",
        lambda clips, steps, batch, seed: seen.append(len(clips)) or train_lip_regressor(clips, steps, batch, seed),
    )
    prepared = prepare_stabilised(clip, own_shapes([clip])[clip.name])
    drawn = replace(prepared, faces=prepared.faces[:5], lips=prepared.lips[:5])
    monkeypatch.setattr("training.lip_sync.train.draw_clips", lambda *_: [drawn])
    write_half_precision(Wav2Lip(WIDTHS), tmp_path / "start.safetensors")
    recipe = LipSyncRecipe((tmp_path,), tmp_path / "a", encoder, steps=1, batch=4, lip_steps=1)
    for run in (recipe, replace(recipe, run=tmp_path / "b", start=tmp_path / "start.safetensors")):
        run.run.mkdir()
        LipSyncTraining(run, [prepared], {})
    assert seen == [1, 2]


def test_each_folder_has_its_own_score(clip: FaceClip, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = LipSyncRecipe((tmp_path,), tmp_path, encoder, steps=1, batch=4, lip_steps=1)
    shapes = own_shapes([clip])[clip.name]
    held_out = {"a": [prepare_clip(clip, shapes)], "b": []}
    training = LipSyncTraining(recipe, [prepare_stabilised(clip, shapes)], held_out)
    moved = {1: MotionScore(0.51234, 0.7, 0.2), 0: None}
    monkeypatch.setattr("training.lip_sync.train.score_motion", lambda _, clips, landmarker: moved[len(clips)])
    assert training.write_and_score() == {"a": {"correlation": 0.5123, "amplitude": 0.7, "rest": 0.2}, "b": {}}
    assert Wav2LipWidths.of(read_tensors(tmp_path / "model.safetensors")) == WIDTHS


def test_the_trained_similarity_is_the_measured_one(stabilised: PreparedClip):
    one, other = (remove_margin(stabilised.faces[i]) for i in (0, 20))
    stacked = torch.from_numpy(np.ascontiguousarray(stack_faces([one, other])[:, 3:]))
    everywhere = torch.ones(1, 1, FACE_SIZE, FACE_SIZE, dtype=torch.bool)
    found = structural_similarity(stacked[:1], stacked[1:], everywhere).item()
    assert found == pytest.approx(ssim(one, other), abs=2e-3)  # levels are not rounded
    assert structural_similarity(stacked[:1], stacked[:1], everywhere).item() == pytest.approx(1)
    upper = everywhere.clone()
    upper[..., FACE_SIZE // 2 :, :] = False
    assert structural_similarity(stacked[:1], stacked[1:], upper).item() > found  # less motion


def test_a_mirrored_face_must_get_the_mirrored_output(stabilised: PreparedClip):
    batch = add_mirrored(draw_batch([stabilised], 3, np.random.default_rng(2)))
    assert len(batch.faces) == len(batch.targets) == len(batch.lips) == len(batch.shapes) == 6
    assert torch.equal(batch.faces[4], batch.faces[1].flip(2))
    assert torch.equal(batch.shapes[3:], batch.shapes[:3])
    gaps = landmark_gap(batch.lips.numpy())
    assert np.allclose(gaps[3:], gaps[:3])
    corners = batch.lips[:, 0, 0], batch.lips[:, 6, 0]
    assert (corners[0] < corners[1]).all()
    assert torch.allclose(corners[0][:3] + corners[1][3:], torch.full((3,), FACE_SIZE - 1.0))
    weights = error_weights(batch.lips)
    assert mirror_error(batch.targets, weights) == 0
    one_sided = batch.targets.clone()
    one_sided[..., : FACE_SIZE // 2] += 0.1  # the left of both
    assert mirror_error(one_sided, weights) > 0.05


def test_the_same_clips_are_held_out_if_packs_are_added(clip: FaceClip, tmp_path: Path):
    recipe = LipSyncRecipe((tmp_path,), tmp_path, tmp_path, held_out=0.3)
    clips = [replace(clip, name=f"c{i}") for i in range(12)]
    write_pack(clips[:6], tmp_path / "a.npz")
    few, unseen = split_clips(recipe)
    folder = str(tmp_path)
    write_pack(clips[6:], tmp_path / "b.npz")
    more, still_unseen = split_clips(recipe)
    assert {one.name for one in unseen[folder]} <= {one.name for one in still_unseen[folder]}
    assert {one.name for one in more[folder]} & {one.name for one in still_unseen[folder]} == set()
    assert len(more[folder]) + len(still_unseen[folder]) == 12
    assert all(is_held_out(one.name, recipe) for one in still_unseen[folder])
    assert len(few[folder]) < len(more[folder])


def test_each_folder_is_drawn_as_often_as_the_largest(clip: FaceClip):
    shapes = own_shapes([clip])[clip.name]
    many = [prepare_clip(replace(clip, name=f"many{i}"), shapes) for i in range(4)]
    few = [prepare_clip(clip, shapes)]
    names = Counter(one.name for one in even_out([many, few, []]))
    assert names == {"many0": 1, "many1": 1, "many2": 1, "many3": 1, clip.name: 4}


def test_training_starts_from_weights(clip: FaceClip, encoder: Path, tmp_path: Path):
    torch.manual_seed(3)
    network, file = Wav2Lip(WIDTHS), tmp_path / "start.safetensors"
    write_half_precision(network, file)
    recipe = LipSyncRecipe((tmp_path,), tmp_path, encoder, start=file, lip_steps=1)
    training = LipSyncTraining(recipe, [prepare_stabilised(clip, own_shapes([clip])[clip.name])], {})
    began, given = training.network.output_block.state_dict(), network.output_block.state_dict()
    assert all(torch.allclose(began[name].float(), given[name].float(), atol=1e-2) for name in given)


def test_the_recipe_runs_to_its_end_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["sync", "--tiny", "-o", str(tmp_path)])
    weights = tmp_path / "sync" / "model.safetensors"
    *_, choice, last = capsys.readouterr().out.splitlines()
    assert last == f"sync: {weights}"
    assert choice.startswith(f"{weights}: widest ")
    network = Wav2Lip(Wav2LipWidths.of(read_tensors(weights)))
    assert network.widths == WIDTHS
    load_into(network, weights)
    assert read_network(weights.with_name("visemes.safetensors")).classes == PHONEME_CLASSES
    audio, drawing = (
        [json.loads(line) for line in (weights.parent / name / "log.jsonl").read_text().splitlines()]
        for name in ("audio", "run/refined")
    )
    assert [line["part_done"] for line in (*audio, *drawing)] == [1, 1]
    assert all((weights.with_name("run") / stage.name / "model.safetensors").exists() for stage in DRAWING_STAGES)
    packs = tmp_path / "sync" / "rendered"
    assert set(audio[0]) >= {"step", "loss", str(packs), "speaker"}
    assert set(drawing[0][str(packs)]) in (set(), {"correlation", "amplitude", "rest"})  # empty if no face is drawn yet
    run, encoder = weights.with_name("run") / "drawing", weights.with_name("audio") / "encoder.safetensors"
    ended = LipSyncRecipe((packs,), run, encoder, steps=1)
    train(ended)
    assert len((run / "log.jsonl").read_text().splitlines()) == 1
    train(replace(ended, steps=2, batch=2))
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["steps"] == 2


def test_the_same_seed_gives_the_same_weights(clip: FaceClip, encoder: Path, tmp_path: Path):
    clips = [replace(clip, name=f"c{i}") for i in range(3)]
    write_pack(clips, tmp_path / "pack.npz")
    made = []
    tiny = LipSyncRecipe((tmp_path,), tmp_path, encoder, steps=2, batch=2, threads=1, lip_steps=1)
    for name, seed, precision in (("a", 5, "bf16"), ("b", 5, "bf16"), ("c", 6, "bf16"), ("d", 5, "f32")):
        train(replace(tiny, run=tmp_path / name, seed=seed, precision=precision))
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1] != made[2]
    assert (made[3] == made[0]) != has_bfloat16("cpu")
