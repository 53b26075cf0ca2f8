from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from training.make_weights import RECIPES, main


def test_the_reading_recipe_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["reading", "--tiny", "-o", str(tmp_path)])
    made = tmp_path / "reading" / "run" / "model.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == f"reading: {made}"
    load_into(LipCoordNet(), made)
    lines = [json.loads(line) for line in made.with_name("log.jsonl").read_text().splitlines()]
    assert lines[0]["n_clips"] == 3
    assert lines[-1]["part_done"] == 1
    assert 0 < lines[-1]["ctc"] < 100


def test_a_recipe_that_does_not_exist_is_named_with_those_that_do(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["cooking", "-o", "x"])
    assert f"cooking: no such recipe; expected any of {', '.join(RECIPES)}" in capsys.readouterr().err
