"""Pages of jobs."""

from __future__ import annotations

import base64

import pytest
from support.job_server import JobServer

from container.jobs.api.paging import Page, make_cursor
from container.jobs.records import JobState
from inference.errors import InvalidRequest


def test_a_page_is_parsed():
    assert Page.parse({}) == Page(20, None, None)
    query = {"limit": "100", "cursor": make_cursor(7), "state": "queued"}
    assert Page.parse(query) == Page(100, 7, JobState.QUEUED)


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


WRONG = {
    "no limit": ({"limit": "0"}, '"limit": found .0.; expected 1 to 100'),
    "a high limit": ({"limit": "101"}, '"limit"'),
    "digits of another script": ({"limit": "١"}, '"limit"'),
    "an empty limit": ({"limit": ""}, '"limit"'),
    "a state": ({"state": "done"}, '"state": found .done.; expected one of queued, starting'),
    "a parameter": ({"page": "2"}, '"page": no such parameter'),
    "a plain number": ({"cursor": "7"}, '"cursor"'),
    "an empty cursor": ({"cursor": ""}, '"cursor"'),
    "a negative number": ({"cursor": encode("jobs<-7")}, '"cursor"'),
    "a zero": ({"cursor": encode("jobs<0")}, '"cursor"'),
    "a number beyond the database's": ({"cursor": encode("jobs<" + "9" * 19)}, '"cursor"'),
    "no base64": ({"cursor": "!!!!"}, '"cursor"'),
    "a padded cursor": ({"cursor": make_cursor(10) + "="}, '"cursor"'),
    "a long cursor": ({"cursor": "A" * 10_000}, '"cursor"'),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_parameter_is_named(kind: str):
    query, words = WRONG[kind]
    with pytest.raises(InvalidRequest, match=words):
        Page.parse(query)


def test_a_list_is_read_page_by_page(jobs: JobServer):
    ids = [jobs.submit(b"video %d" % i).json()["id"] for i in range(5)]
    for job_id in ids:
        jobs.wait_for(job_id)
    found, cursor, sizes = [], None, []
    while cursor is not None or not sizes:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = jobs.client.get("/v1/jobs", params=query).json()
        found += [job["id"] for job in page["jobs"]]
        sizes.append(len(page["jobs"]))
        cursor = page["next_cursor"]
        jobs.submit(b"later", idempotency_key="one")  # a job that comes while the list is read shifts nothing
    assert found == ids[::-1]
    assert sizes == [2, 2, 1]


def test_a_list_is_of_one_state(jobs: JobServer):
    failed = jobs.wait_for(jobs.submit(b"fail").json()["id"])
    done = jobs.wait_for(jobs.submit().json()["id"])
    (only,) = jobs.client.get("/v1/jobs", params={"state": "failed"}).json()["jobs"]
    assert only == {name: failed[name] for name in only}
    assert "result" not in only
    (other,) = jobs.client.get("/v1/jobs?state=succeeded").json()["jobs"]
    assert other["id"] == done["id"]
    assert jobs.client.get("/v1/jobs?state=canceled").json() == {"jobs": [], "next_cursor": None}


def test_a_bad_cursor_is_a_400(jobs: JobServer):
    answer = jobs.client.get("/v1/jobs?cursor=7")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
