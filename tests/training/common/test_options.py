from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from training.common.options import Option, parse_options


@dataclass(frozen=True)
class ExampleOptions:
    run: Annotated[Path, Option("folder", short="-o")]
    packs: Annotated[tuple[Path, ...], Option("folders")] = ()
    n_clips: Annotated[int | None, Option("number of clips")] = None
    peak_rate: Annotated[float, Option("learning rate")] = 0.5
    precision: Annotated[str, Option("precision", choices=("bf16", "f32"))] = "bf16"


def parse(*arguments: str) -> ExampleOptions:
    return parse_options(ExampleOptions, "training.example", "An example.\n\nMore.", arguments)


def test_fields_are_options():
    assert parse("-o", "x") == ExampleOptions(Path("x"))
    found = parse("--run", "x", "--packs", "a", "b", "--n-clips", "3", "--peak-rate", "2", "--precision", "f32")
    assert found == ExampleOptions(Path("x"), (Path("a"), Path("b")), 3, 2.0, "f32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: -o/--run"),
        (["-o", "x", "--n-clips", "few"], "argument --n-clips: invalid int value: 'few'"),
        (["-o", "x", "--precision", "f16"], "argument --precision: invalid choice: 'f16'"),
    ],
)
def test_invalid_options_are_rejected(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_help_has_the_description(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "usage: python -m training.example" in text
    assert "An example." in text
    assert "number of clips" in text
