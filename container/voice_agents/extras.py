"""The optional packages of voice agents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def require_extra(name: str) -> Iterator[None]:
    """Name the extra if an import inside of the block fails. Raises: ModuleNotFoundError."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(f"{err.msg}; it comes with the extra {name}: pip install 'viseme[{name}]'") from err
