"""The proof of jobs: what it must not overlook."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.job_child import OUTPUT, make_input, make_output
from bench.job_kills import Changes, Faults, JobClient, check

BODY = make_input(1, 0.1)
GOOD: dict[str, Any] = {
    "id": "a",
    "state": "succeeded",
    "error": None,
    "attempts": [{"outcome": "lost"}, {"outcome": "succeeded"}],
    "outputs": [{"name": OUTPUT, "url": "/v1/jobs/a/outputs/digest.bin"}],
}


class AnsweringClient(JobClient):
    """Returns what a test says."""

    def __init__(self, later: dict[str, Any] = GOOD, content: bytes = make_output(BODY)) -> None:
        self._later, self._content = later, content

    def wait(self, _job_id: str) -> dict[str, Any]:
        return self._later

    def download(self, _url: str) -> bytes:
        return self._content


def test_a_job_that_ended_once_is_right() -> None:
    assert list(check(AnsweringClient(), BODY, GOOD)) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"state": "failed"}, "a: failed, succeeded 1 times"),
        ({"state": "processing", "attempts": []}, "a: processing, succeeded 0 times"),
        ({"attempts": [{"outcome": "succeeded"}] * 2}, "a: succeeded, succeeded 2 times"),
        ({"outputs": []}, "wrong bytes in []"),
    ],
)
def test_a_wrong_job_is_named(changed: dict[str, Any], found: str) -> None:
    job = GOOD | changed
    (line,) = check(AnsweringClient(job), BODY, job)
    assert found in line


def test_wrong_bytes_and_later_changes_are_named() -> None:
    assert list(check(AnsweringClient(content=b"other"), BODY, GOOD)) == [f"a: wrong bytes in ['{OUTPUT}']"]
    assert list(check(AnsweringClient(GOOD | {"progress": 3}), BODY, GOOD)) == ["a: changed after its end"]


def test_each_kind_of_fault_occurs_in_each_round() -> None:
    faults = Faults({"one": int, "two": int, "three": int}, [], 1)
    assert Counter(faults._next_kind() for _ in range(9)) == {"one": 3, "two": 3, "three": 3}


def test_workers_change_when_each_fifth_of_the_jobs_has_ended() -> None:
    done: list[str] = []
    changes = Changes({name: (lambda name=name: done.append(name)) for name in ("killed", "ended", "added")})
    for n_ended in range(1, 11):
        changes.on_ended(n_ended / 10)
        assert len(done) == min(n_ended // 2, 3)
    assert changes.counts == Counter(done) == Counter(["killed", "ended", "added"])
