from __future__ import annotations

from pathlib import Path

import pytest

import training

PACKAGES = ("lip_reading", "lip_sync", "avatar")


@pytest.mark.parametrize("package", PACKAGES)
def test_trainings_do_not_import_one_another(package: str):
    """What two trainings share is in training.common."""
    others = [f"training.{other} import" for other in PACKAGES if other != package]
    others += [f"training.{other}." for other in PACKAGES if other != package]
    for path in (Path(training.__file__).parent / package).glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("from ", "import "))]
        assert not [line for line in imports if any(other in line for other in others)], path
