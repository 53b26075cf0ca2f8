"""Names of what a durable job makes."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNSAFE = re.compile(r"^[.-]|[^A-Za-z0-9._+-]")  # what names of stored files do not have
MAX_STEM = 100  # characters


def video_names(models: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the videos of checkpoints, which may be called anything that a file can be."""
    names: list[str] = []
    for model in models:
        stem = UNSAFE.sub("_", model)[:MAX_STEM] or "_"
        same = [f"{stem}.mp4", *(f"{stem}-{i}.mp4" for i in range(2, len(models) + 1))]
        names.append(next(name for name in same if name not in names))
    return tuple(names)
