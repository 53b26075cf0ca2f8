"""The events of jobs, streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.job_server import JobServer
from support.waiting import wait_until

from container.http.responses import StreamAborted
from container.jobs.api import events as events_module
from container.jobs.api.events import EventFeed, JobWatch, last_sequence_of, positions_of, stream_events
from container.jobs.records import JobEvent, JobRecord
from inference.errors import InvalidRequest, StorageError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "POLL_S", 0.02)


def read_stream(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the id, the kind and the data of each event."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def events_of(jobs: JobServer, job_id: str, last_id: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    headers = {} if last_id is None else {"last-event-id": str(last_id)}
    with jobs.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        return list(read_stream(answer.iter_lines()))


def test_a_job_is_followed_to_its_end(jobs: JobServer):
    job = jobs.submit(b"wait").json()
    found = []
    with jobs.client.stream("GET", job["urls"]["events"]) as answer:
        for one in read_stream(answer.iter_lines()):
            found.append(one)
            if one[1] == "words":
                jobs.pool.release.set()
    assert [sequence for sequence, *_ in found] == list(range(1, 7))
    assert [kind for _, kind, _ in found] == ["state", "state", "state", "progress", "words", "state"]
    states = [data["state"] for _, kind, data in found if kind == "state"]
    assert states == ["queued", "starting", "processing", "succeeded"]
    assert found[3][2] == {"attempt": 1, "time": found[3][2]["time"], "stage": "reading", "progress": 50}
    assert found[4][2]["words"] == [{"word": "BIN", "start": 0.0, "end": 0.4}]


def test_a_stream_goes_on_after_the_last_event(jobs: JobServer):
    job = jobs.wait_for(jobs.submit().json()["id"])
    whole = events_of(jobs, job["id"])
    assert events_of(jobs, job["id"], 2) == whole[2:]
    assert events_of(jobs, job["id"], 0) == whole


def test_nothing_follows_the_end(jobs: JobServer):
    """204 has EventSource stop: https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model"""
    job = jobs.wait_for(jobs.submit().json()["id"])
    last = events_of(jobs, job["id"])[-1][0]
    url = job["urls"]["events"]
    assert jobs.client.get(url, headers={"last-event-id": str(last)}).status_code == 204
    assert jobs.client.get(url, headers={"last-event-id": "999"}).status_code == 204
    assert jobs.client.head(url).status_code == 200
    bad = jobs.client.get(url, headers={"last-event-id": "-1"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_request")


def test_a_canceled_job_ends_its_stream(jobs: JobServer):
    job = jobs.submit(b"wait").json()
    with jobs.client.stream("GET", job["urls"]["events"]) as answer:
        for _, kind, data in read_stream(answer.iter_lines()):
            if kind == "words":
                assert jobs.client.delete(job["urls"]["job"]).json()["state"] == "canceled"
            last = data
    assert last["state"] == "canceled"


def test_a_quiet_stream_has_comments_and_ends_when_the_server_goes_down(
    jobs: JobServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events_module, "KEEP_ALIVE_S", 0.05)
    job = jobs.wait_for(jobs.submit(b"wait").json()["id"], "processing")
    with jobs.client.stream("GET", job["urls"]["events"]) as answer:
        lines = answer.iter_lines()
        n_comments = 0
        while n_comments < 3:
            n_comments += next(lines) == ": keep-alive"
        jobs.server.drain()
        assert not any(line.startswith("data") and "succeeded" in line for line in lines)
    wait_until(lambda: jobs.server._job_routes._feed.n_streams == 0)


def test_a_client_has_a_limited_number_of_streams(jobs: JobServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events_module, "MAX_STREAMS", 1)
    job = jobs.wait_for(jobs.submit(b"wait").json()["id"], "processing")
    with jobs.client.stream("GET", job["urls"]["events"]) as answer:
        lines = answer.iter_lines()  # the stream is closed with its last reference
        assert next(lines) == "retry: 2000"
        refused = jobs.client.get(job["urls"]["events"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    jobs.server.drain()
    wait_until(lambda: jobs.server._job_routes._feed._clients.total == 0)


def make_event(sequence: int) -> JobEvent:
    return JobEvent(sequence, 1, "progress", {"progress": sequence}, 0.0)


class EventLog:
    """The events of jobs, as the database would have them."""

    def __init__(self) -> None:
        self.events: dict[int, list[JobEvent]] = {1: [], 2: []}
        self.reads: list[list[tuple[int, int]]] = []
        self.error: Exception | None = None

    async def read(self, places: Sequence[tuple[int, int]]) -> list[list[JobEvent]]:
        self.reads.append(list(places))
        if self.error is not None:
            raise self.error
        return [[one for one in self.events[number] if one.sequence > after] for number, after in places]


def test_streams_of_one_job_share_its_reads():
    async def go() -> None:
        log = EventLog()
        feed = EventFeed(log.read)
        log.events[1] = [make_event(i) for i in (1, 2, 3)]
        async with feed.watching(1, 0) as early, feed.watching(1, 2) as late, feed.watching(2, 0):
            assert [one.sequence for one in await early.take()] == [1, 2, 3]
            assert [one.sequence for one in await late.take()] == [3]
            assert (early.sequence, late.sequence) == (3, 3)
            log.events[1].append(make_event(4))
            assert [one.sequence for one in await late.take()] == [4]
        assert log.reads[0] == [(1, 0), (2, 0)]
        n_reads = len(log.reads)
        await asyncio.sleep(0.1)
        assert len(log.reads) <= n_reads + 1  # no stream is open

    asyncio.run(go())


def test_a_slow_reader_keeps_one_batch():
    async def go() -> None:
        log = EventLog()
        feed = EventFeed(log.read)
        log.events[1] = [make_event(1)]
        async with feed.watching(1, 0) as slow:
            async with asyncio.timeout(30):
                await slow.changed.wait()
            log.events[1].append(make_event(2))
            n_reads = len(log.reads)
            while len(log.reads) < n_reads + 3:
                await asyncio.sleep(0.01)
            assert log.reads[-1] == []
            assert [one.sequence for one in await slow.take()] == [1]
            assert [one.sequence for one in await slow.take()] == [2]

    asyncio.run(go())


def test_a_database_that_cannot_be_read_ends_the_streams():
    async def go() -> None:
        log = EventLog()
        log.error = StorageError("the jobs database failed")
        feed = EventFeed(log.read)
        async with feed.watching(1, 0) as watch:
            with pytest.raises(StorageError):
                await watch.take()

    asyncio.run(go())


def test_a_stream_ends_without_a_traceback_if_the_database_fails():
    """There may be a thousand of them, and their clients connect again."""

    async def go() -> None:
        log = EventLog()
        log.error = StorageError("the jobs database failed")
        job = cast("JobRecord", SimpleNamespace(id="1" * 32, number=1))
        events = stream_events(job, 0, EventFeed(log.read), lambda: False)
        assert (await anext(events)).startswith(b"retry")
        with pytest.raises(StreamAborted):
            await anext(events)

    asyncio.run(go())


def test_positions_are_the_lowest_of_each_job():
    assert positions_of([JobWatch(1, 5), JobWatch(2, 9), JobWatch(1, 3)]) == {1: 3, 2: 9}


def test_the_last_event_id_is_a_number():
    assert (last_sequence_of(None), last_sequence_of(""), last_sequence_of("17")) == (0, 0, 17)
    for wrong in ("-1", "1.5", "abc", "1" * 10, "١"):
        with pytest.raises(InvalidRequest, match="Last-Event-ID"):
            last_sequence_of(wrong)
