"""Submitting and watching jobs, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import text

from container.jobs.records import JobError, JobState, NewJob
from inference.errors import IdempotencyConflict, JobNotFound, Overloaded

from .conftest import LIMITS, JobDatabase

NEW = NewJob("a" * 32, "owner-a", "client-a", "invocations", {}, "1" * 64, 10, idempotency_key="key-1")


def test_the_same_key_and_request_is_the_same_job(database: JobDatabase) -> None:
    first = database.repository.submit(NEW)
    second = database.repository.submit(replace(NEW, id="b" * 32))
    assert (first.is_new, second.is_new) == (True, False)
    assert second.job == first.job


def test_the_same_key_with_another_request_is_a_conflict(database: JobDatabase) -> None:
    database.repository.submit(NEW)
    with pytest.raises(IdempotencyConflict, match="'key-1': another request"):
        database.repository.submit(replace(NEW, id="b" * 32, request_sha256="2" * 64))


def test_keys_are_of_their_owner(database: JobDatabase) -> None:
    database.repository.submit(NEW)
    other = database.repository.submit(replace(NEW, id="b" * 32, owner="owner-b", request_sha256="2" * 64))
    assert other.is_new


def test_a_submission_that_is_repeated_by_id_is_queued_once(database: JobDatabase) -> None:
    new = replace(NEW, idempotency_key=None)
    assert database.repository.submit(new).is_new
    assert not database.repository.submit(new).is_new  # the answer to the first commit was lost


def test_a_full_queue_refuses(database: JobDatabase) -> None:
    for _ in range(LIMITS.max_queued):
        database.submit()
    with pytest.raises(Overloaded, match="100 jobs are queued, at most 100"):
        database.submit()
    database.claim()
    database.clock.now += 1
    database.submit()


def test_jobs_are_found_by_their_owner_only(database: JobDatabase) -> None:
    job = database.submit()
    assert database.repository.find(job.id, "owner-a") == job
    for find in (database.repository.find, database.repository.cancel):
        with pytest.raises(JobNotFound):
            find(job.id, "owner-b")
    with pytest.raises(JobNotFound):
        database.repository.find("f" * 32)


def test_lists_have_pages_from_the_newest(database: JobDatabase) -> None:
    ids = [database.submit().id for _ in range(5)]
    database.submit(owner="owner-b")
    first = database.repository.list_page(2, owner="owner-a")
    assert [one.id for one in first] == [ids[4], ids[3]]
    rest = database.repository.list_page(10, before=first[-1].number, owner="owner-a")
    assert [one.id for one in rest] == [ids[2], ids[1], ids[0]]
    database.claim()
    assert [one.id for one in database.repository.list_page(10, state=JobState.STARTING)] == [ids[0]]


def test_statistics(database: JobDatabase) -> None:
    for _ in range(3):
        database.submit()
        database.clock.now += 10
    database.claim()
    found = database.repository.statistics()
    assert (found.n_queued, found.n_running, found.n_attempts, found.oldest_wait_s) == (2, 1, 1, 20.0)
    assert found.n_input_bytes == 30


def test_a_finished_job_is_deleted_after_its_time(database: JobDatabase) -> None:
    job, other = database.submit(), database.submit()
    lease = database.claim()
    database.repository.delete(lease.job_number)  # it runs: it stays
    database.queue.publish(lease, {}, [])
    assert database.repository.expired() == []
    database.clock.now += LIMITS.keep_s
    assert [one.id for one in database.repository.expired()] == [job.id]
    database.repository.delete(job.number)
    assert database.repository.known_ids([job.id, other.id]) == {other.id}
    with database.engine.connect() as connection:
        for table in ("job_events", "job_attempts"):
            query = text(f"SELECT count(*) FROM {table} WHERE job_number = :number")
            assert connection.scalar(query, {"number": job.number}) == 0


def test_a_job_is_swept_once(database: JobDatabase) -> None:
    job = database.submit()
    assert database.repository.unswept() == []
    database.queue.publish(database.claim(), {}, [])
    assert [one.id for one in database.repository.unswept()] == [job.id]
    database.repository.mark_swept(job.number)
    assert database.repository.unswept() == []


def test_the_end_of_a_job_and_its_webhook_are_one_transaction(database: JobDatabase) -> None:
    job = database.submit(webhook_url="https://example.com/hook")
    database.submit()  # without one
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))
    database.queue.publish(database.claim(), {}, [])
    with database.engine.connect() as connection:
        (row,) = connection.execute(text("SELECT * FROM webhook_deliveries")).mappings()
    assert (row["event"], row["url"], row["state"], row["n_tries"]) == ("job.failed", job.webhook_url, "pending", 0)
    payload = json.loads(row["payload"])
    assert payload["type"] == "job.failed"
    assert payload["data"]["id"] == job.id
    assert payload["data"]["error"]["code"] == "no_audio"
