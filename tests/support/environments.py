"""The environments beside the project's own, which `make environments` creates."""

from __future__ import annotations

from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"


def environment(name: str) -> Path:
    """Return the Python of an environment; without it the test is skipped."""
    if not (BUILD / name / ".ready").is_file():
        pytest.skip(f"build/{name} does not exist: run make environments")
    return BUILD / name / "bin" / "python"
