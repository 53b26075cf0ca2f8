from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from inference.weights.registry import STARTER
from training.common.lips import MIRRORED_LIPS
from training.common.mouth_packs import MouthClip, decode_crops, load_packs, place_words
from training.lip_reading import train as train_module
from training.lip_reading.augmentation import (
    Augmentation,
    MouthSample,
    compress,
    drop_frames,
    jitter_time,
    mirror,
)
from training.lip_reading.splice import splice_words
from training.lip_reading.targets import NO_TARGET, spread_characters, text_classes
from training.lip_reading.train import LipReadingRecipe, LipReadingTraining, main, split_clips

WORDS = "BIN BLUE AT F TWO NOW"


def write_pack(folder: Path, n_clips: int) -> Path:
    """Write a pack of grey mouths, in the format that `load_packs` reads."""
    rng = np.random.default_rng(0)
    strips = [rng.integers(60, 200, (75 * 64, 128, 3), np.uint8) for _ in range(n_clips)]
    jpegs = [cv2.imencode(".jpg", cv2.GaussianBlur(strip, (0, 0), 5))[1].ravel() for strip in strips]
    starts = np.arange(6, dtype=np.float32) * 10 + 8
    np.savez(
        folder / "pack.npz",
        jpeg=np.concatenate(jpegs),
        offsets=np.cumsum([0] + [len(jpeg) for jpeg in jpegs]),
        n_frames=np.full(n_clips, 75, np.int16),
        coords=rng.normal(0.5, 0.03, (n_clips, 75, 20, 2)).astype(np.float16),
        clips=np.array([f"clip{i:02}" for i in range(n_clips)]),
        transcripts=np.array([WORDS] * n_clips),
        word_start=np.tile(starts, (n_clips, 1)),
        word_end=np.tile(starts + 10, (n_clips, 1)),
    )
    return folder


def make_recipe(*folders: Path, **options: Any) -> LipReadingRecipe:
    return LipReadingRecipe(folders, Path("run"), **options)


def clip_names(clips: list[MouthClip]) -> list[str]:
    return [clip.name for clip in clips]


def test_packs_are_read_and_split_the_same_way_each_time(tmp_path: Path):
    clips = load_packs(write_pack(tmp_path, 8))
    assert decode_crops(clips[0]).shape == (75, 64, 128, 3)
    assert clips[0].text == WORDS
    trained_by_folder, held_out = split_clips(make_recipe(tmp_path, held_out=2))
    (trained,), (held,) = trained_by_folder.values(), held_out.values()
    assert (len(trained), len(held)) == (6, 2)
    assert set(clip_names(trained)).isdisjoint(clip_names(held))
    assert clip_names(split_clips(make_recipe(tmp_path, held_out=2))[1][str(tmp_path)]) == clip_names(held)


def test_every_folder_has_its_own_held_out_clips(tmp_path: Path):
    one, other = (write_pack(make_folder(tmp_path / name), n) for name, n in (("one", 8), ("other", 12)))
    trained, held_out = split_clips(make_recipe(one, other, held_out=2))
    assert {name: len(clips) for name, clips in held_out.items()} == {str(one): 2, str(other): 2}
    assert {name: len(clips) for name, clips in trained.items()} == {str(one): 6, str(other): 10}


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_excluded_clips_are_in_neither_part_and_change_no_others(tmp_path: Path):
    write_pack(tmp_path, 8)
    (tmp_path / "names").write_text("clip03\nclip05\n")
    whole, part = (split_clips(make_recipe(tmp_path, leave_out=names)) for names in (None, tmp_path / "names"))
    for of_whole, of_part in zip(whole, part, strict=True):
        remaining = [name for name in clip_names(of_whole[str(tmp_path)]) if name not in ("clip03", "clip05")]
        assert clip_names(of_part[str(tmp_path)]) == remaining
    assert sum(len(clips[str(tmp_path)]) for clips in part) == 6


def write_people(folder: Path, *people: str, n_clips: int = 4) -> Path:
    """Write a pack of grey mouths for each person."""
    folder.mkdir()
    for person in people:
        write_pack(folder, n_clips)
        with np.load(folder / "pack.npz") as pack:
            arrays = {name: pack[name] for name in pack.files}
        arrays["clips"] = np.array([f"{person}_{i}" for i in range(n_clips)])
        np.savez(folder / f"{person}_.npz", **arrays)
    (folder / "pack.npz").unlink()
    return folder


def test_all_clips_of_strangers_are_held_out_and_no_others_of_their_folder(tmp_path: Path):
    people, others = write_people(tmp_path / "people", "a", "b", "c"), write_people(tmp_path / "others", "d")
    trained, held_out = split_clips(make_recipe(people, others, held_out=1, strangers=("b",)))
    assert {clip.person for clip in trained[str(people)]} == {"a", "c"}
    assert len(trained[str(people)]) == 8
    assert sorted(clip_names(held_out[str(people)])) == ["b_0", "b_1", "b_2", "b_3"]
    assert len(held_out[str(others)]) == 1


def test_all_clips_of_an_unscored_folder_are_trained_on(tmp_path: Path):
    people, others = write_people(tmp_path / "people", "a", "b"), write_people(tmp_path / "others", "a")
    trained, held_out = split_clips(make_recipe(people, others, held_out=1, strangers=("a",), unscored=(others,)))
    assert {clip.person for clip in trained[str(people)]} == {"b"}
    assert len(trained[str(others)]) == 4
    assert set(held_out) == {str(people)}


def make_training(*folders: Path, run: Path, **options: Any) -> LipReadingTraining:
    run.mkdir()
    start = STARTER.shipped_in / STARTER.files[0].name
    recipe = LipReadingRecipe(folders, run, start, threads=1, held_out=1, **options)
    return LipReadingTraining(recipe, *split_clips(recipe))


def test_shares_are_of_folders_and_equal_among_their_people(tmp_path: Path):
    """Folder one has a person of 3 clips beside one of 40: each is drawn as often; and each folder by its share."""
    one = write_people(tmp_path / "one", "a", n_clips=44)
    write_people(tmp_path / "b", "b", n_clips=4)
    (tmp_path / "b" / "b_.npz").rename(one / "b_.npz")
    training = make_training(one, write_people(tmp_path / "two", "c"), run=tmp_path / "run", shares=(0.8, 0.2))
    rng = np.random.default_rng(0)
    drawn = Counter(clip.person for _ in range(40) for batch in training.batches(rng) for clip in batch)
    n_drawn = sum(drawn.values())
    assert n_drawn == 40 * len(training.clips)
    assert {person: n / n_drawn for person, n in drawn.items()} == pytest.approx(
        {"a": 0.4, "b": 0.4, "c": 0.2}, abs=0.04
    )


def test_only_folders_to_splice_are_spliced_and_the_others_lend_first_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    people, heads = write_people(tmp_path / "people", "a"), write_people(tmp_path / "heads", "b", "c")
    training = make_training(people, heads, run=tmp_path / "run", spliced=(1, 0), joined=0)
    calls: list[tuple[MouthSample, list[MouthSample]]] = []

    def record(head: MouthSample, tails: list[MouthSample]) -> MouthSample:
        calls.append((head, tails))
        return splice_words(head, tails)

    monkeypatch.setattr(train_module, "splice_words", record)
    strips = {clip.person: set() for clip in training.clips}
    for clip in training.clips:
        strips[clip.person].add(decode_crops(clip).tobytes())
        assert training.draw_sample(clip, np.random.default_rng(1)).frames.shape == (75, 64, 128, 3)
    assert len(calls) == sum(clip.person == "a" for clip in training.clips)
    for head, tails in calls:
        assert head.frames.tobytes() in strips["b"] | strips["c"]
        assert len(tails) == 3
        assert all(tail.frames.tobytes() in strips["a"] for tail in tails)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (1.0,)}, "shares: expected 2 values"),
        ({"shares": (0.5, 0.4)}, "expected a sum of 1, found 0.9"),
        ({"spliced": (0.5, 1.5)}, "spliced: expected 2 values of 0..1"),
        ({"spliced": (1.0, 0.0), "views": 2}, "spliced, disguised: not with views"),
        ({"disguised": 0.5, "views": 2}, "spliced, disguised: not with views"),
        ({"disguised": 1.5}, "disguised: expected 0..1, found 1.5"),
        ({"frozen": 4}, "frozen: expected 0 to 3, found 4"),
    ],
)
def test_shares_that_do_not_fit_the_folders_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make_recipe(Path("one"), Path("other"), **options)


def test_characters_spread_over_their_word_by_hand():
    word_indices, word_progress = place_words(np.array([0.0, 6.0]), np.array([6.0, 8.0]))
    targets = spread_characters(["BIN", "AT"], word_indices, word_progress)
    b, i, n, a, t = (text_classes(c)[0] - 1 for c in "BINAT")
    assert targets[:9].tolist() == [b, b, i, i, n, NO_TARGET, a, t, NO_TARGET]


def test_mirroring_swaps_the_corners_and_is_its_own_inverse():
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 128, 3), np.uint8)
    lips = np.random.default_rng(1).random((3, 20, 2), dtype=np.float32)
    once = mirror(frames, lips)
    assert np.array_equal(once[0], frames[:, :, ::-1])
    assert once[1][0, 0, 0] == pytest.approx(1 - lips[0, 6, 0])
    again = mirror(*once)
    assert np.array_equal(again[0], frames)
    assert again[1] == pytest.approx(lips)
    assert MIRRORED_LIPS[MIRRORED_LIPS].tolist() == list(range(20))


def test_augmentation_keeps_shapes_and_is_the_same_for_the_same_seed():
    word_indices, word_progress = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (75, 64, 128, 3), np.uint8)
    sample = MouthSample(
        frames, rng.random((75, 20, 2), dtype=np.float32), word_indices, word_progress, tuple(WORDS.split()), WORDS
    )
    changed = [Augmentation(1).augment(sample, np.random.default_rng(5)) for _ in range(2)]
    assert changed[0].frames.shape == frames.shape
    assert changed[0].frames.dtype == np.uint8
    assert np.array_equal(changed[0].frames, changed[1].frames)
    assert not np.array_equal(changed[0].frames, frames)


def make_ramp_sample() -> MouthSample:
    """Return a sample whose frame t is grey of level 3 t, with all lip points at t / 100."""
    word_indices, word_progress = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    numbers = np.arange(75)
    frames = np.broadcast_to((numbers * 3).astype(np.uint8)[:, None, None, None], (75, 64, 128, 3))
    lips = np.broadcast_to((numbers / 100)[:, None, None], (75, 20, 2)).astype(np.float32)
    return MouthSample(frames, lips, word_indices, word_progress, tuple(WORDS.split()), WORDS)


@pytest.mark.parametrize("seed", range(5))
def test_dropped_frames_are_filled_from_both_sides(seed: int):
    """A ramp filled from both sides is the same ramp."""
    sample = make_ramp_sample()
    dropped = drop_frames(sample, np.random.default_rng(seed))
    assert np.abs(dropped.frames.astype(int) - sample.frames).max() <= 1
    assert dropped.lips == pytest.approx(sample.lips, abs=1e-5)
    assert np.array_equal(dropped.frames[[0, -1]], sample.frames[[0, -1]])


def test_time_jitter_repeats_and_skips_frames_in_order():
    levels = jitter_time(make_ramp_sample(), np.random.default_rng(0)).frames[:, 0, 0, 0].astype(int) // 3
    steps = np.diff(levels).tolist()
    assert {0, 2} <= set(steps)
    assert min(steps) == 0
    assert np.abs(levels - np.arange(75)).max() <= 1


def test_compression_loses_detail_and_keeps_the_image():
    rng = np.random.default_rng(0)
    frames = np.clip(rng.normal(128, 30, (75, 64, 128, 3)), 0, 255).astype(np.uint8)
    for seed in range(6):
        compressed = compress(frames, np.random.default_rng(seed))
        assert compressed.shape == frames.shape
        assert compressed.dtype == np.uint8
        assert compressed.std() < frames.std()
        assert compressed.mean() == pytest.approx(frames.mean(), abs=2)


def test_the_same_seed_repeats_a_run(tmp_path: Path):
    """With one thread, exactly. With more, the order of dropout's random draws varies."""
    start = STARTER.shipped_in / STARTER.files[0].name
    write_pack(tmp_path, 3)
    arguments = ["--mouths", str(tmp_path), "--start", str(start), "--held-out", "1", "--epochs", "1", "--threads", "1"]
    logs = []
    for name in ("one", "other"):
        main([*arguments, "-o", str(tmp_path / name)])
        line = json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])
        logs.append({key: value for key, value in line.items() if key != "took_s"})
    assert logs[0] == logs[1]


def test_frozen_convolutions_stay_and_the_rest_trains(tmp_path: Path):
    start = STARTER.shipped_in / STARTER.files[0].name
    write_pack(tmp_path, 3)
    arguments = ["--mouths", str(tmp_path), "--start", str(start), "-o", str(tmp_path / "run"), "--held-out", "1"]
    main([*arguments, "--epochs", "1", "--views", "2", "--joined", "0.5"])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(log[1]["loss"])
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["network"]
    before = load_file(start)
    is_alike = {name: torch.equal(value.half(), before[name]) for name, value in state.items()}
    assert {name for name, alike in is_alike.items() if alike} == {name for name in before if name.startswith("conv")}


def test_samples_are_disguised_as_other_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = write_people(tmp_path / "one", "a"), write_people(tmp_path / "two", "b", "c")
    training = make_training(*folders, run=tmp_path / "run", disguised=1, joined=0)
    seen: list[MouthSample] = []
    monkeypatch.setattr(train_module, "disguise", lambda sample, other, _: seen.append(other) or sample)
    rng = np.random.default_rng(0)
    for _ in range(30):
        training.draw_sample(next(clip for clip in training.clips if clip.person == "b"), rng)
    of_others = [clip.lips for clip in training.clips if clip.person != "b"]
    assert len(seen) == 30
    assert all(any(np.array_equal(other.lips, lips) for lips in of_others) for other in seen)
    training.recipe = replace(training.recipe, disguised=0)
    training.draw_sample(training.clips[0], rng)
    assert len(seen) == 30


def test_a_disguise_needs_a_second_person(tmp_path: Path):
    training = make_training(write_people(tmp_path / "one", "a"), run=tmp_path / "run", disguised=1, joined=0)
    with pytest.raises(ValueError, match="at least two people, found only those of a"):
        training.draw_sample(training.clips[0], np.random.default_rng(1))


def test_as_many_convolutions_as_told_stay(tmp_path: Path):
    training = make_training(write_people(tmp_path / "one", "a"), run=tmp_path / "run", frozen=1)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.network.train()
    training.step(training.clips)
    after = training.network.state_dict()
    stayed = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert stayed == {"conv1.weight", "conv1.bias"}


def test_a_tiny_run_trains_logs_and_resumes(tmp_path: Path):
    start = STARTER.shipped_in / STARTER.files[0].name
    write_pack(tmp_path, 3)
    arguments = ["--mouths", str(tmp_path), "--start", str(start), "-o", str(tmp_path / "run"), "--held-out", "1"]
    main([*arguments, "--epochs", "1", "--batch", "2", "--joined", "0.5"])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in log] == [0, 1]
    assert np.isfinite(log[1]["loss"])
    assert set(log[1]["average"]) == {str(tmp_path), f"{tmp_path}, joined"}
    load_into(LipCoordNet(), tmp_path / "run" / "model.safetensors")
    main([*arguments, "--epochs", "2", "--batch", "2"])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in log] == [0, 1, 2]
