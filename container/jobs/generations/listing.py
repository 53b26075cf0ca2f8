"""The list of generations: its filters and pages, as sync.so has them.

Source: https://sync.so/docs/api-reference/api/generate-api/list: filters may be repeated, or be separated by commas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import QueryParams

from container.http.generation_errors import INVALID_INPUT, GenerationRejected
from container.jobs.generations.views import STATUSES
from container.jobs.records import JobState
from inference.requests.body import shorten

MAX_LIMIT = 100
MAX_UNPAGED = 1000  # generations of a list without "limit"
MAX_IDS = 1000
PARAMETERS = ("status", "ids", "limit", "cursor")


@dataclass(frozen=True)
class GenerationFilter:
    """The part of the list that is requested. cursor: id of the last generation of the page before."""

    states: tuple[JobState, ...] = ()
    ids: tuple[str, ...] = ()
    limit: int = MAX_UNPAGED
    cursor: str | None = None

    @classmethod
    def parse(cls, query: QueryParams) -> Self:
        """Parse the query of a request. Raises: GenerationRejected naming the parameter."""
        if unknown := set(query) - set(PARAMETERS):
            raise rejected_parameter(min(unknown), f"not offered; known: {', '.join(PARAMETERS)}")
        statuses, ids = split_values(query, "status"), split_values(query, "ids")
        if wrong := set(statuses) - set(STATUSES.values()):
            known = ", ".join(dict.fromkeys(STATUSES.values()))
            raise rejected_parameter("status", f"found {shorten(min(wrong))}; expected some of {known}")
        if len(ids) > MAX_IDS:
            raise rejected_parameter("ids", f"{len(ids)} ids; at most {MAX_IDS} expected")
        limit, cursor = query.get("limit"), query.get("cursor")
        if limit is not None and not (re.fullmatch("[0-9]{1,3}", limit) and 1 <= int(limit) <= MAX_LIMIT):
            raise rejected_parameter("limit", f"found {shorten(limit)}; expected 1 to {MAX_LIMIT}")
        if cursor is not None and limit is None:
            raise rejected_parameter("cursor", 'expected "limit" as well')
        states = tuple(state for state, status in STATUSES.items() if status in statuses)
        return cls(states, ids, MAX_UNPAGED if limit is None else int(limit), cursor)


def split_values(query: QueryParams, name: str) -> tuple[str, ...]:
    """Return the values of a filter."""
    return tuple(one.strip() for text in query.getlist(name) for one in text.split(",") if one.strip())


def rejected_parameter(name: str, message: str) -> GenerationRejected:
    return GenerationRejected(INVALID_INPUT, f'"{name[:40]}": {message}')
