"""Pages of lists: a limit, and an opaque cursor to the next page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from container.jobs.records import JobState
from inference.errors import InvalidRequest

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
PARAMETERS = ("limit", "cursor", "state")
CURSOR = re.compile(rb"jobs<([1-9][0-9]{0,17})")


@dataclass(frozen=True)
class Page:
    """The part of a list that is requested. before: the number of the last job of the page before this one."""

    limit: int = DEFAULT_LIMIT
    before: int | None = None
    state: JobState | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Parse the query of a request. Raises: InvalidRequest naming the parameter."""
        if unknown := set(query) - set(PARAMETERS):
            raise InvalidRequest(f'"{min(unknown)[:40]}": no such parameter; known: {", ".join(PARAMETERS)}')
        cursor, state = query.get("cursor"), query.get("state")
        before = None if cursor is None else parse_cursor(cursor)
        return cls(parse_limit(query.get("limit", str(DEFAULT_LIMIT))), before, parse_state(state))


def parse_limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidRequest(f'"limit": found {text[:40]!r}; expected 1 to {MAX_LIMIT}')
    return int(text)


def parse_state(text: str | None) -> JobState | None:
    if text is None:
        return None
    try:
        return JobState(text)
    except ValueError as err:
        raise InvalidRequest(f'"state": found {text[:40]!r}; expected one of {", ".join(JobState)}') from err


def make_cursor(number: int) -> str:
    """Return a cursor to the jobs before this one."""
    return base64.urlsafe_b64encode(f"jobs<{number}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> int:
    """Return the number in a cursor. Raises: InvalidRequest if `make_cursor` has not made it."""
    try:
        decoded = base64.b64decode(text[:100] + "=" * (-len(text[:100]) % 4), altchars=b"-_", validate=True)
    except ValueError:
        decoded = b""
    match = CURSOR.fullmatch(decoded)
    if match is None or make_cursor(int(match[1])) != text:
        raise InvalidRequest(f'"cursor": found {text[:40]!r}; expected the "next_cursor" of a page')
    return int(match[1])
