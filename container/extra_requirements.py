"""Print the requirements of Viseme's extras, for the image: `pip install viseme[NAME]` would bring torch, too.

python -m container.extra_requirements NAME[,NAME...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import metadata

from packaging.requirements import Requirement


def requirements_of(extras: Sequence[str]) -> list[str]:
    """Return what the extras need besides the package's own requirements. Raises: ValueError if one does not exist."""
    found = metadata("viseme")
    known = found.get_all("Provides-Extra") or []
    if unknown := [extra for extra in extras if extra not in known]:
        raise ValueError(f"no such extra: {', '.join(unknown)}; expected any of {', '.join(sorted(known))}")
    every = [Requirement(text) for text in found.get_all("Requires-Dist") or []]
    conditional = [one for one in every if one.marker is not None and not one.marker.evaluate({"extra": ""})]
    chosen = [one for one in conditional if any(one.marker.evaluate({"extra": extra}) for extra in extras)]  # type: ignore[union-attr]
    for one in chosen:
        one.marker = None
    return [str(one) for one in chosen]


if __name__ == "__main__":
    print(*requirements_of(sys.argv[1].split(",")), sep="\n")  # noqa: T201 - for pip
