from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.models import LipCoordNet
from inference.weights.registry import STARTER
from inference.weights.tensors import load_into
from training.augmentation import MIRRORED_LIPS, Augmentation, Sample, mirror
from training.lip_reading import read_recipe, split_clips, train
from training.mouths import NO_TARGET, decode_strip, load_packs, place_words, spread_characters, symbols_of

WORDS = "BIN BLUE AT F TWO NOW"


def write_pack(folder: Path, n_clips: int) -> Path:
    """A pack of grey mouths, in the form that `load_packs` reads."""
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


def test_packs_are_read_and_split_for_good(tmp_path: Path):
    clips = load_packs(write_pack(tmp_path, 8))
    assert decode_strip(clips[0]).shape == (75, 64, 128, 3)
    assert clips[0].text == WORDS
    recipe = read_recipe(["--mouths", str(tmp_path), "--start", "x", "-o", "y", "--held-out", "2"])
    kept, held_out = split_clips(recipe)
    assert len(kept) == 6
    assert {c.name for c in kept}.isdisjoint(c.name for c in held_out)
    assert [c.name for c in split_clips(recipe)[1]] == [c.name for c in held_out]


def test_names_to_leave_out_are_in_neither_part(tmp_path: Path):
    write_pack(tmp_path, 8)
    (tmp_path / "names").write_text("clip03\nclip05\n")
    arguments = ["--mouths", str(tmp_path), "--start", "x", "-o", "y", "--leave-out", str(tmp_path / "names")]
    names = {clip.name for part in split_clips(read_recipe(arguments)) for clip in part}
    assert len(names) == 6
    assert not names & {"clip03", "clip05"}


def test_characters_spread_over_their_word_by_hand():
    slots, within = place_words(np.array([0.0, 6.0]), np.array([6.0, 8.0]))
    targets = spread_characters(["BIN", "AT"], slots, within)
    b, i, n, a, t = (symbols_of(c)[0] - 1 for c in "BINAT")
    assert targets[:9].tolist() == [b, b, i, i, n, NO_TARGET, a, t, NO_TARGET]


def test_a_mirror_is_its_own_undoing_and_swaps_the_corners():
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 128, 3), np.uint8)
    lips = np.random.default_rng(1).random((3, 20, 2), dtype=np.float32)
    once = mirror(frames, lips)
    assert np.array_equal(once[0], frames[:, :, ::-1])
    assert once[1][0, 0, 0] == pytest.approx(1 - lips[0, 6, 0])
    again = mirror(*once)
    assert np.array_equal(again[0], frames)
    assert again[1] == pytest.approx(lips)
    assert MIRRORED_LIPS[MIRRORED_LIPS].tolist() == list(range(20))


def test_changes_keep_shapes_and_are_the_same_for_the_same_seed():
    slots, within = place_words(np.arange(6.0) * 10 + 8, np.arange(6.0) * 10 + 18)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (75, 64, 128, 3), np.uint8)
    sample = Sample(frames, rng.random((75, 20, 2), dtype=np.float32), slots, within)
    changed = [Augmentation(1).vary(sample, np.random.default_rng(5)) for _ in range(2)]
    assert changed[0].frames.shape == frames.shape
    assert changed[0].frames.dtype == np.uint8
    assert np.array_equal(changed[0].frames, changed[1].frames)
    assert not np.array_equal(changed[0].frames, frames)


def test_a_tiny_run_learns_logs_and_goes_on_where_it_stopped(tmp_path: Path):
    start = STARTER.shipped_in / STARTER.files[0].name
    write_pack(tmp_path, 5)
    arguments = ["--mouths", str(tmp_path), "--start", str(start), "-o", str(tmp_path / "run"), "--held-out", "1"]
    train(read_recipe([*arguments, "--epochs", "1", "--batch", "2"]))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [0, 1]
    assert np.isfinite(log[1]["loss"])
    load_into(LipCoordNet(), tmp_path / "run" / "model.safetensors")
    train(read_recipe([*arguments, "--epochs", "2", "--batch", "2"]))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [0, 1, 2]
