from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.faces import FaceBox, Landmarker
from inference.faces.landmarks import Landmarker as AnyLandmarker
from inference.lip_sync.preprocess import SIDE, Shot, cut_face
from inference.models import Wav2Lip, Wav2LipWidths
from inference.weights.tensors import load_into, read_tensors
from training.lip_sync import (
    LOWER_WEIGHT,
    MOUTH_WEIGHT,
    WIDTHS,
    Judge,
    Recipe,
    correlate,
    edge_error,
    is_held_out,
    lips_error,
    split_clips,
    train,
    weights_of,
)
from training.make_weights import main
from training.talking import (
    KEPT,
    MARGIN,
    TalkingClip,
    cut_with_margin,
    film_clip,
    film_rendered,
    load_talking,
    write_pack,
)
from training.talking_samples import (
    Talking,
    change_sound,
    cut,
    cut_plain,
    draw_batch,
    gap_of,
    prepare,
    silence,
    stretch_voice,
)


@pytest.fixture(scope="module")
def clip(landmarker: Landmarker) -> TalkingClip:
    return film_rendered(3, landmarker)


@pytest.fixture(scope="module")
def talking(clip: TalkingClip) -> Talking:
    return prepare(clip)


def test_a_face_is_cut_as_lip_sync_cuts_it():
    rng = np.random.default_rng(1)
    frame = np.repeat(np.repeat(rng.integers(0, 255, (36, 45, 3), np.uint8), 8, 0), 8, 1)
    box = FaceBox(100, 60, 100 + SIDE, 60 + SIDE)
    points = np.zeros((68, 2), np.float32)
    points[48:] = (148, 120)
    face, lips = cut_with_margin(Shot(frame, box), points)
    assert face.shape == (KEPT, KEPT, 3)
    assert np.array_equal(cut_plain(face), cut_face(frame, box))
    assert lips.shape == (20, 2)
    assert (lips == (48, 60)).all()


def test_a_frame_without_a_face_is_named(landmarker: AnyLandmarker):
    empty = np.full((96, 128, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="wall: frame 0 shows no face"):
        film_clip("wall", "nobody", [empty], np.zeros(16000, np.int16), landmarker)


def test_packs_come_back_as_they_were_written(clip: TalkingClip, tmp_path: Path):
    other = replace(clip, name="r0", samples=clip.samples[:1000])
    write_pack([clip, other], tmp_path / "pack.npz")
    first, second = load_talking(tmp_path)
    assert (first.name, second.name) == ("r0", clip.name)
    for found, written in ((first, other), (second, clip)):
        assert found.person == written.person
        assert np.array_equal(found.strip_jpeg, written.strip_jpeg)
        assert np.array_equal(found.lips, written.lips)
        assert np.array_equal(found.samples, written.samples)
    assert second.faces().shape == (75, KEPT, KEPT, 3)
    with pytest.raises(FileNotFoundError, match=r"no \.npz packs"):
        load_talking(tmp_path / "none")


def test_lips_lie_in_the_mouth_and_part_when_it_talks(talking: Talking):
    assert talking.lips[..., 0].min() > 0.2 * SIDE
    assert talking.lips[..., 0].max() < 0.8 * SIDE
    assert talking.lips[..., 1].min() > 0.5 * SIDE
    gaps = gap_of(talking.lips)
    assert gaps.max() > gaps.min() + 2
    assert all(gaps[i] <= np.percentile(gaps, 15) for i in talking.quiet)


def test_a_frame_hears_the_sound_from_the_frame_before_on(clip: TalkingClip):
    loud = np.zeros(48000, np.int16)
    loud[16000:17600] = np.random.default_rng(0).integers(-9000, 9000, 1600)  # from 1.0 to 1.1 s: frames 25 to 27
    heard = [prepare(replace(clip, samples=loud)).window(i) for i in (19, 23, 26, 29, 30)]
    assert [mel.shape for mel in heard] == [(80, 16)] * 5
    assert [bool(mel.max() > 0) for mel in heard] == [False, True, True, True, False]


def test_a_batch_never_shows_the_mouth_that_is_asked_for(talking: Talking):
    batch = draw_batch([talking], 16, np.random.default_rng(5))
    assert batch.mels.shape == (16, 1, 80, 16)
    assert batch.faces.shape == (16, 6, SIDE, SIDE)
    assert batch.wanted.shape == (16, 3, SIDE, SIDE)
    assert batch.lips.shape == (16, 20, 2)
    assert not batch.faces[:, :3, SIDE // 2 :].any()
    assert torch.equal(batch.faces[:, :3, : SIDE // 2], batch.wanted[:, :, : SIDE // 2])
    shown = batch.faces[:, 3:]
    assert ((shown - batch.wanted).abs().flatten(1).amax(1) > 0.05).all()
    assert -4 <= batch.mels.min() <= batch.mels.max() <= 4
    again = draw_batch([talking], 16, np.random.default_rng(5))
    assert torch.equal(again.faces, batch.faces)
    assert torch.equal(again.mels, batch.mels)


def test_lips_move_with_their_picture(talking: Talking):
    place = np.array([[1.05, 0, -3], [0, 1.05, 2]], np.float32)
    marked = np.zeros((KEPT, KEPT, 3), np.uint8)
    x, y = 40, 60
    marked[y + MARGIN - 1 : y + MARGIN + 2, x + MARGIN - 1 : x + MARGIN + 2] = 255
    rows, columns = np.nonzero(cut(marked, place)[..., 0] > 127)
    assert (columns.mean(), rows.mean()) == pytest.approx((1.05 * x - 3, 1.05 * y + 2), abs=0.6)


def test_sound_is_changed_within_its_scale():
    rng = np.random.default_rng(2)
    mel = rng.uniform(-4, 4, (80, 16)).astype(np.float32)
    for _ in range(30):
        changed = change_sound(mel, rng)
        assert changed.shape == mel.shape
        assert -4 <= changed.min() <= changed.max() <= 4
        assert silence(rng).max() < 1
    tone = np.full((80, 16), -4, np.float32)
    tone[40] = 2
    assert stretch_voice(tone, 1.1).mean(1).argmax() == 44
    assert np.array_equal(stretch_voice(tone, 1.0), tone)


def test_errors_count_most_in_the_mouth():
    lips = torch.full((1, 20, 2), 60.0)
    lips[0, 0], lips[0, 6] = torch.tensor([30.0, 60.0]), torch.tensor([66.0, 70.0])
    weights = weights_of(lips)[0, 0]
    assert weights[65, 48] == MOUTH_WEIGHT
    assert weights[90, 48] == weights[65, 10] == LOWER_WEIGHT
    assert weights[20, 48] == 1
    assert lips_error(lips, lips) == 0
    assert lips_error(lips + 3, lips) == pytest.approx(2.5)  # smooth: 3 - 0.5; the gap is the same
    flat, edge = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    edge[..., 48:] = 1
    assert edge_error(flat, flat + 0.5, torch.ones(1, 1, SIDE, SIDE)) == 0  # of another level, but as sharp
    assert edge_error(flat, edge, torch.ones(1, 1, SIDE, SIDE)) == pytest.approx(1 / (SIDE - 1))


def test_a_judge_learns_where_lips_are(talking: Talking):
    torch.manual_seed(0)
    judge, rng = Judge(), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        batch = draw_batch([talking], 16, rng)
        loss = lips_error(judge(batch.wanted[:, :, SIDE // 2 :]), batch.lips)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_correlation():
    rising = np.arange(5.0)
    assert correlate(rising, rising * 2 + 1) == pytest.approx(1)
    assert correlate(rising, -rising) == pytest.approx(-1)
    assert correlate(rising, np.ones(5)) == 0


def test_the_same_clips_are_held_out_when_packs_are_added(clip: TalkingClip, tmp_path: Path):
    recipe = Recipe((tmp_path,), tmp_path, held_out=0.3)
    clips = [replace(clip, name=f"c{i}") for i in range(12)]
    write_pack(clips[:6], tmp_path / "a.npz")
    few, unseen = split_clips(recipe)
    write_pack(clips[6:], tmp_path / "b.npz")
    more, still_unseen = split_clips(recipe)
    assert {one.name for one in unseen[str(tmp_path)]} <= {one.name for one in still_unseen[str(tmp_path)]}
    assert {one.name for one in more} & {one.name for one in still_unseen[str(tmp_path)]} == set()
    assert len(more) + len(still_unseen[str(tmp_path)]) == 12
    assert all(is_held_out(one.name, recipe) for one in still_unseen[str(tmp_path)])
    assert len(few) < len(more)


def test_the_recipe_runs_end_to_end_and_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["sync", "--tiny", "-o", str(tmp_path)])
    made = tmp_path / "sync" / "run" / "model.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == f"sync: {made}"
    network = Wav2Lip(Wav2LipWidths.of(read_tensors(made)))
    assert network.widths == WIDTHS
    load_into(network, made)
    lines = [json.loads(line) for line in made.with_name("log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["judge", "ear", "whole"]
    assert lines[-1]["part_done"] == 1
    score = lines[-1][str(tmp_path / "sync" / "talking")]
    assert set(score) == {"voice", "face", "gain", "error"}
    train(Recipe((tmp_path / "sync" / "talking",), made.parent, minutes=1e-3))
    assert len(made.with_name("log.jsonl").read_text().splitlines()) == 3
