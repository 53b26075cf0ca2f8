"""A Python environment on top of the stock image's packages."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """An environment on top of another, like an image layer: new packages are installed here."""

    python: Path
    site_packages: Path
    below: Path

    @classmethod
    def on_top_of(cls, python: Path, home: Path) -> Layer:
        """Make an empty layer in a folder, on top of the environment of that Python."""
        subprocess.run([str(python), "-m", "venv", "--without-pip", str(home)], check=True)
        [site_packages] = home.glob("lib/python*/site-packages")
        [below] = python.parents[1].glob("lib/python*/site-packages")
        (site_packages / "below.pth").write_text(f"{below}\n")
        return cls(home / "bin" / "python", site_packages, below)

    def installed(self) -> dict[str, tuple[str, str]]:
        """Return version and location of each package."""
        command = [str(self.python), "-m", "pip", "list", "--format=json", "--verbose", "--disable-pip-version-check"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return {one["name"].lower(): (one["version"], one["location"]) for one in found}
