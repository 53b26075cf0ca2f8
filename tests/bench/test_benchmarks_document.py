"""The commands of docs/benchmarks.md: each module takes its arguments, and `make bench` runs it."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"python -m (bench\.\w+)(.*)")
RUN_ALONE = {"bench.gpu_check": "gpu-check", "bench.image_check": "image-check"}  # by targets of their own


class Parsed(Exception):
    """The arguments were accepted."""


def documented() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    return sorted({(one[1], one[2].strip()) for one in map(COMMAND.fullmatch, re.findall(r"`([^`]+)`", text)) if one})


def made(*variables: str) -> list[tuple[str, str]]:
    """Return the modules and arguments that `make bench` would run."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    # VIDEO: any file that exists and has no rule.
    dry_run = ["make", "--dry-run", "bench", "VIDEO=README.md", *variables]
    found = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.replace("\\\n", " ").splitlines()
    return [(one[1], one[2].strip()) for one in map(COMMAND.search, lines) if one]


def check_arguments(module: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *given: Any) -> None:
        parse(self, *given)  # exits on an unknown argument
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [module, *shlex.split(arguments)])
    with pytest.raises(Parsed):
        importlib.import_module(module).main()


def test_the_document_names_its_commands():
    assert len(documented()) > 15


@pytest.mark.parametrize(("module", "arguments"), documented())
def test_documented_commands_are_accepted(module: str, arguments: str, monkeypatch: pytest.MonkeyPatch):
    check_arguments(module, arguments, monkeypatch)


def test_make_bench_runs_all_that_is_documented(monkeypatch: pytest.MonkeyPatch):
    everything = made("SLOW=1", "CLIPS=eval.csv clips.csv", "GRID=grid")
    for module, arguments in everything:
        check_arguments(module, arguments, monkeypatch)
    modules = {module for module, _ in everything}
    assert {module for module, _ in documented()} <= modules | RUN_ALONE.keys()
    with_words = {(module, tuple(re.findall(r"--\S+ [a-z\d]+", arguments))) for module, arguments in everything}
    for module, arguments in documented():  # such as --reference each
        if module not in RUN_ALONE:
            wanted = set(re.findall(r"--\S+ [a-z\d]+", arguments))
            assert any(name == module and wanted <= set(words) for name, words in with_words), f"{module} {arguments}"
    assert everything.index(("bench.sync_quality", "--reference each --grid grid")) > 0


def test_a_clone_without_data_skips_what_needs_it():
    modules = [module for module, _ in made("CLIPS=", "GRID=")]
    assert {"bench.speed", "bench.long_read", "bench.cold_start", "bench.throughput"} <= set(modules)
    needs_data_or_time = {"bench.accuracy", "bench.joined", "bench.precisions", "bench.attack", "bench.fuzz"}
    assert not needs_data_or_time & set(modules)
    assert {"bench.attack", "bench.fuzz", "bench.sync_quality"} <= {one for one, _ in made("SLOW=1", "CLIPS=", "GRID=")}


@pytest.mark.parametrize("module", sorted({module for module, _ in documented()}))
def test_documented_modules_run_as_programs(module: str):
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert 'if __name__ == "__main__":' in path.read_text("utf-8"), f"{module} would do nothing"
