"""The AWS CLI: that of the environment for its version, or one on the PATH."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = (ROOT / "build" / "aws-cli" / "bin", ROOT / "build" / "aws-cli-2" / "bin")


@cache
def find_cli(major: int) -> Path | None:
    """Return the AWS CLI of a version: of the environment for it, or on the PATH."""
    folders = [*ENVIRONMENTS, *map(Path, os.environ["PATH"].split(":")), Path("/usr/bin")]
    for path in (folder / "aws" for folder in folders):
        if os.access(path, os.X_OK) and version_of(path)[0] == major:
            return path
    return None


@cache
def version_of(cli: Path) -> tuple[int, int]:
    try:
        run = subprocess.run([str(cli), "--version"], capture_output=True, text=True, check=False)
    except OSError:  # a program for another processor
        return 0, 0
    found = re.match(r"aws-cli/(\d+)\.(\d+)\.", run.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def require_cli(major: int) -> Path:
    """Return the AWS CLI of a version, or skip the test."""
    found = find_cli(major)
    if found is None:
        pytest.skip(f"no AWS CLI {major} here: make environments installs it")
    return found
