from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from inference.weights.registry import STARTER
from training.make_weights import NEW_SHARE, READING_STAGES, RECIPES, main, write_names


def read_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_reading_recipe_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["reading", "--tiny", "-o", str(tmp_path)])
    runs = [tmp_path / "reading" / stage.name for stage in READING_STAGES]
    assert capsys.readouterr().out.splitlines()[-1] == f"reading: {runs[-1] / 'model.safetensors'}"
    for run in runs:
        load_into(LipCoordNet(), run / "model.safetensors")
        lines = read_log(run)
        assert lines[0]["n_clips"] == 3
        assert lines[-1]["part_done"] == 1
        assert 0 < lines[-1]["ctc"] < 100


def test_the_reading_recipe_continues_from_other_weights(tmp_path: Path):
    """With more people, at a learning rate that starts near zero: three clips hardly change them."""
    start = STARTER.shipped_in / STARTER.files[0].name
    main(["reading", "--tiny", "-o", str(tmp_path), "--start", str(start)])
    assert not (tmp_path / "reading" / READING_STAGES[0].name).exists()
    before, after = load_file(start), load_file(tmp_path / "reading" / "more_people" / "model.safetensors")
    made = load_file(tmp_path / "reading" / "model.safetensors")
    for name, value in before.items():
        assert torch.allclose(value.float(), after[name].float(), atol=0.02), name
        expected = value.float() + NEW_SHARE * (after[name].float() - value.float())
        assert torch.allclose(made[name].float(), expected, atol=2e-3), name


def test_clips_that_measure_are_named_as_packs_name_them(tmp_path: Path):
    for name, rows in (("clips", "s1_bbwm7a.mpg,s1\ns20_brbk7n.mpg,s20"), ("eval", "s1_bbaf2n.mpg,s1")):
        (tmp_path / f"{name}.csv").write_text(f"file,speaker\n{rows}\n")
    path = write_names([tmp_path / "clips.csv", tmp_path / "eval.csv"], tmp_path / "new" / "names")
    assert path.read_text() == "bbwm7a\nbbaf2n\n"


def test_a_recipe_that_does_not_exist_is_named_with_those_that_do(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["cooking", "-o", "x"])
    assert f"cooking: no such recipe; expected any of {', '.join(RECIPES)}" in capsys.readouterr().err


def test_continuing_needs_the_clips_of_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["reading", "-o", str(tmp_path), "--start", "weights.safetensors"])
    assert "--start needs --grid" in capsys.readouterr().err
