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

    def installed(self) -> dict[str, tuple[str, str]]:
        """Return version and location of each package."""
        command = [str(self.python), "-m", "pip", "list", "--format=json", "--verbose", "--disable-pip-version-check"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return {one["name"].lower(): (one["version"], one["location"]) for one in found}
