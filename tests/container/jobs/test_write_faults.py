"""A fault at every single write of a job's life, and a restart after each."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.job_life import INPUT, JOB, OUTPUT_NAME
from support.write_faults import CONTENT, KILLED, MODES, Mode

ROOT = Path(__file__).parents[3]
LOG = b"a line of the model\n"


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What was found after each fault. The modes run side by side: a life mostly waits for polls and the disk."""
    with ThreadPoolExecutor(len(MODES)) as modes:
        found = modes.map(live_with_faults, MODES, [tmp_path_factory.mktemp(mode) for mode in MODES])
        return [life for of_mode in found for life in of_mode]


def live_with_faults(mode: Mode, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "support.write_faults", str(folder), mode]
    environment = os.environ | {"PYTHONPATH": "tests"}  # at the repository's root: tests/container is no package
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", MODES)
def test_the_job_ends_once_whatever_write_fails(lives: list[dict[str, Any]], mode: Mode):
    of_mode = [one for one in lives if one["mode"] == mode]
    assert [one["n"] for one in of_mode] == list(range(len(of_mode)))
    assert of_mode[0]["n_writes"] >= {"fails": 55, "killed": 55, "lost": 8}[mode]
    assert all(one["fired"] for one in of_mode[1:-1])
    for one in of_mode:
        assert one["status"] == (KILLED if mode == "killed" and one["fired"] else 0), one
        assert one["restart_status"] == 0, one.get("traceback", one)
        if one["state"] is None:
            check_nothing_is_left(one)
        else:
            check_success(one)
    assert any(one["acknowledged"] for one in of_mode[1:])


def test_both_files_and_the_database_have_failed(lives: list[dict[str, Any]]):
    failed = Counter(one["fired"] for one in lives)  # of all modes: which write is the n-th differs a little by timing
    for name in ("commit", "INSERT", "UPDATE", "fsync", "mkdir", "rename", "replace", "copyfile"):
        assert failed[name], failed


def check_nothing_is_left(life: dict[str, Any]) -> None:
    assert not life["acknowledged"], life
    assert (life["files"], life["n_deliveries"]) == ({}, 0), life


def check_success(life: dict[str, Any]) -> None:
    """The job has succeeded once, its files have the right bytes, and those of other attempts are gone."""
    assert life["state"] == "succeeded", life
    assert life["ends"] == ["succeeded"], life
    assert life["outcomes"]["succeeded"] == 1, life
    assert life["n_deliveries"] == 1, life
    ((key, digest),) = life["outputs"]
    assert digest == sha256(CONTENT), life
    files = {name.removeprefix(f"{JOB.id}/"): found for name, found in life["files"].items()}
    logs = {name for name in files if name.startswith("logs/")}
    assert {name: found for name, found in files.items() if name not in logs} == {
        "input": sha256(INPUT),
        key: sha256(CONTENT),
    }, life
    assert key.endswith(f"/{OUTPUT_NAME}")
    assert {files[name] for name in logs} <= {sha256(LOG)}, life
    assert all(name.count(".") == 1 for name in logs), life  # no partial files
