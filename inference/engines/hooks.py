"""What our own server says of a request, and wants to be told while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.lip_reading.live_words import OnWords

# Called with how much is done, and of how much in all where that is known: seconds of a film, or frames.
Progress = Callable[[float, float | None], None]


def no_check() -> None:
    """Nobody waits who could go away."""


@dataclass(frozen=True)
class Hooks:
    """Called while a request runs; a hook that raises ends it.

    check: looked up besides, more often than there is progress to tell. folder: for films, which the server
    clears away; None: the answer keeps them in one of its own. within_s: how long the caller waits; None where
    only the settings say. request_id: for the log.
    """

    progress: Progress | None = None
    on_words: OnWords | None = None
    check: Callable[[], None] = no_check
    folder: Path | None = None
    within_s: float | None = None
    request_id: str | None = None


def headers_of(context: Any) -> Mapping[str, str]:
    """The request's headers, names in lower case; none where the context has none."""
    get: Callable[[int], Mapping[str, str] | None] | None = getattr(context, "get_all_request_header", None)
    if get is None:
        return {}
    return {str(name).lower(): str(value) for name, value in (get(0) or {}).items()}


def hooks_of(context: Any) -> Hooks:
    """Those of our own server; none of another's."""
    hooks = getattr(context, "hooks", None)
    return hooks if isinstance(hooks, Hooks) else Hooks()
