"""What a model of a document did not keep. For scripts that run in the environment of `make check-stack`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lost_fields(given: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Yield the places of what is in `given`, and in `kept` not or with another value."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            here = f"{place}.{name}" if place else name
            if name in kept:
                yield from lost_fields(value, kept[name], here)
            else:
                yield here
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for i, (value, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost_fields(value, other, f"{place}.{i}")
    elif given != kept:
        yield place
