from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from moto import mock_aws
from support.live_server import PATIENCE_S

from container.cli import main

SCRIPT = Path(sys.executable).parent / "viseme"
ROOT = Path(__file__).parents[3]


def test_our_own_server_keeps_the_contract(weights_cache: Path, tmp_path: Path):
    (tmp_path / "weights").symlink_to(weights_cache)
    env = {"VISEME_DATA_DIR": str(tmp_path), "VISEME_DEADLINE_S": str(PATIENCE_S)}
    env["VISEME_QUEUE_SIZE"] = "3"  # most of the many requests at once are refused, instead of read one by one
    command = [str(SCRIPT), "doctor", "--quick", "--json", "--deadline-s", str(PATIENCE_S)]
    run = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=3 * PATIENCE_S
    )
    found = json.loads(run.stdout)
    assert run.returncode == 0, run.stderr
    assert (found["target"], found["failed"]) == ("viseme serve", False)
    outcomes = {one["check"]: one["outcome"] for one in found["findings"]}
    unchecked = {"idle connection", "stalled body", "deadline"}
    assert {name for name, outcome in outcomes.items() if outcome == "not checked"} == unchecked
    # A busy machine may be worth a warning of the pings meanwhile, and of nothing else.
    assert {name for name, outcome in outcomes.items() if outcome == "warn"} <= {"ping under load"}
    assert {"many requests at once", "requests at SIGTERM", "exit after SIGTERM"} <= outcomes.keys()


def test_a_container_with_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests"))))
    command = f"{sys.executable} -m support.planted_container DiesAtStart"
    assert main(["doctor", "--container-command", command]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("FAIL         start: it ended with exit code 1: no module named torch")


def test_a_port_on_which_nothing_listens(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--url", "http://127.0.0.1:1"]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("FAIL         connection: http://127.0.0.1:1: ")
    assert "listen on 0.0.0.0" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "localhost:8080"], "expected http://HOST:PORT"),
        (["--url", "http://localhost:8080/ping"], "expected http://HOST:PORT"),
        (["--url", "http://localhost:99999"], "out of range"),
        (["--url", "http://localhost:1", "--pid", "4194304"], "no such process"),
        (["--pid", "1"], "expected --url"),
        (["--region", "eu-west-1"], "expected --endpoint-name"),
        (["--url", "http://a", "--endpoint-name", "b"], "--url and --endpoint-name: expected one of them"),
        (["--container-command", "/no/such/file"], "cannot be started"),
        (["--endpoint-name", "viseme", "--profile", "no-such"], "no-such"),
        (["--endpoint-name", "a_b", "--region", "us-east-1"], "expected letters, digits and inner hyphens"),
    ],
)
def test_what_cannot_be_checked(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err


@mock_aws
def test_an_endpoint_is_looked_for_in_its_region(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    assert main(["doctor", "--endpoint-name", "viseme", "--region", "eu-west-1"]) == 2
    assert "--endpoint-name viseme: no such endpoint in eu-west-1" in capsys.readouterr().err
