"""The packages of Viseme's image: those of requirements.txt, with what they require, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def link_image_packages(folder: Path) -> None:
    """Link them into a folder that takes the place of the image's site-packages."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    found: dict[str, Distribution] = {}
    pending = [Requirement(line) for line in lines if line and not line.startswith("#")]
    while pending:
        one = pending.pop()
        name = normalize(one.name)
        if name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(one.name)
        pending += [Requirement(line) for line in found[name].requires or ()]
    for one in found.values():
        for path in roots_of(one):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(one.locate_file(str(path)))


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def roots_of(package: Distribution) -> Iterator[Path]:
    """Yield a package's files and folders; what lies in a folder that packages share, one by one."""
    found = set()
    for file in package.files or ():
        top = file.parts[0]
        if top in ("..", "__pycache__"):
            continue
        is_shared = len(file.parts) > 1 and not Path(str(package.locate_file(f"{top}/__init__.py"))).exists()
        found.add(Path(*file.parts[: 2 if is_shared else 1]))
    yield from sorted(found)
