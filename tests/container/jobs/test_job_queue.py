"""Claims, leases and publications, on SQLite and PostgreSQL."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from container.jobs.database import default_url, make_engine
from container.jobs.job_queue import LEASE_S, JobQueue
from container.jobs.processes import ProcessIdentity
from container.jobs.records import AttemptOutcome, JobError, JobState, OutputRecord
from inference.errors import LeaseLost

from .conftest import LIMITS, JobDatabase

ERROR = JobError("no_face_found", "no face in 75 frames", 400)
VIDEO = OutputRecord("wav2lip", JobState.SUCCEEDED, "attempts/1/wav2lip.mp4", "video/mp4", 1000, "ab" * 32)


def test_a_job_runs_and_is_published(database: JobDatabase) -> None:
    job = database.submit(outputs=("wav2lip", "wav2lip_gan"))
    assert (job.state, job.progress, job.attempt) == (JobState.QUEUED, 0, 0)
    lease = database.claim()
    assert (lease.attempt, lease.prefix) == (1, "attempts/1")
    assert database.find(job.id).state is JobState.STARTING
    database.queue.start(lease)
    database.queue.report_progress(lease, "faces", 40)
    found = database.find(job.id)
    assert (found.state, found.stage, found.progress) == (JobState.PROCESSING, "faces", 40)
    database.queue.record_output(lease, VIDEO)
    assert [one.state for one in database.find(job.id).outputs] == [JobState.SUCCEEDED, JobState.QUEUED]
    database.clock.now += 5
    other = OutputRecord("wav2lip_gan", JobState.SUCCEEDED, "attempts/1/wav2lip_gan.mp4", details={"num_frames": 75})
    database.queue.publish(lease, {"status": "success"}, [VIDEO, other], (812.5, None))
    done = database.find(job.id)
    assert (done.state, done.progress, done.result) == (JobState.SUCCEEDED, 100, {"status": "success"})
    assert done.outputs == (VIDEO, other)
    assert (done.finished_at, done.expires_at) == (database.clock.now, database.clock.now + LIMITS.keep_s)
    (attempt,) = done.attempts
    assert (attempt.outcome, attempt.ram_peak_mib) == (AttemptOutcome.SUCCEEDED, 812.5)


def test_outputs_have_states_of_their_own(database: JobDatabase) -> None:
    job = database.submit(task="unknown")
    lease = database.claim()
    database.queue.start(lease)
    database.queue.begin_outputs(lease, "lipsync", ["wav2lip", "wav2lip_gan"])
    database.queue.record_output(lease, VIDEO)
    found = database.find(job.id)
    assert (found.task, [(one.name, one.state) for one in found.outputs]) == (
        "lipsync",
        [("wav2lip", JobState.SUCCEEDED), ("wav2lip_gan", JobState.PROCESSING)],
    )
    database.queue.fail(lease, ERROR, retry_after_s=0.0)
    assert database.find(job.id).outputs == (OutputRecord("wav2lip"), OutputRecord("wav2lip_gan"))


@pytest.mark.parametrize("way", ["released", "expired"])
def test_a_lost_attempt_leaves_no_output(database: JobDatabase, way: str) -> None:
    job = database.submit(outputs=("wav2lip",))
    lease = database.claim()
    database.queue.record_output(lease, VIDEO)
    if way == "released":
        database.queue.release(lease)
    else:
        database.clock.now += LEASE_S
        assert database.queue.free_expired_leases() == [job.id]
    assert database.find(job.id).outputs == (OutputRecord("wav2lip"),)


def test_an_attempt_with_another_default_model_replaces_the_outputs(database: JobDatabase) -> None:
    job = database.submit()
    lease = database.claim()
    database.queue.begin_outputs(lease, "lipsync", ["first", "other"])
    database.queue.begin_outputs(lease, "lipsync", ["other", "second"])
    assert [one.name for one in database.find(job.id).outputs] == ["other", "second"]


def test_events_are_numbered_in_order(database: JobDatabase) -> None:
    job = database.submit()
    lease = database.claim()
    database.queue.start(lease)
    database.queue.add_words(lease, [{"word": "bin", "start": 0.1, "end": 0.3, "confidence": 0.9}])
    database.queue.report_progress(lease, "reading", 50)
    database.queue.publish(lease, {}, [])
    found = database.repository.events_after(job.number)
    assert [one.sequence for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one.kind for one in found] == ["state", "state", "state", "words", "progress", "state"]
    assert found[-1].data == {"state": "succeeded"}
    assert [one.sequence for one in database.repository.events_after(job.number, 4)] == [5, 6]


def test_nothing_is_claimed_from_an_empty_queue(database: JobDatabase) -> None:
    assert not database.queue.has_ready()
    assert database.queue.claim("worker-a", ProcessIdentity("host", "1:1")) is None


def test_a_lease_that_ran_out_publishes_nothing(database: JobDatabase) -> None:
    job = database.submit()
    lease = database.claim()
    database.queue.start(lease)
    database.clock.now += LEASE_S
    for write in (
        lambda: database.queue.publish(lease, {}, [VIDEO]),
        lambda: database.queue.renew(lease),
        lambda: database.queue.report_progress(lease, "faces", 10),
        lambda: database.queue.record_output(lease, VIDEO),
        lambda: database.queue.add_words(lease, []),
        lambda: database.queue.fail(lease, ERROR),
        lambda: database.queue.release(lease),
    ):
        with pytest.raises(LeaseLost):
            write()
    found = database.find(job.id)
    assert (found.state, found.outputs, found.result) == (JobState.PROCESSING, (), None)


def test_a_renewed_lease_lasts(database: JobDatabase) -> None:
    database.submit()
    lease = database.claim()
    for _ in range(5):
        database.clock.now += LEASE_S - 1
        database.queue.renew(lease)
    assert database.queue.free_expired_leases() == []
    database.queue.publish(lease, {}, [])


def test_the_earlier_of_two_attempts_publishes_nothing(database: JobDatabase) -> None:
    job = database.submit(outputs=("wav2lip",))
    first = database.claim("worker-a")
    database.queue.start(first)
    database.queue.record_output(first, VIDEO)
    database.clock.now += LEASE_S
    assert database.queue.free_expired_leases() == [job.id]
    second = database.claim("worker-a")  # of the same name: only the attempt differs
    assert second.attempt == 2
    assert database.find(job.id).outputs[0].state is JobState.QUEUED
    with pytest.raises(LeaseLost):
        database.queue.publish(first, {"by": 1}, [VIDEO])
    database.queue.publish(second, {"by": 2}, [])
    done = database.find(job.id)
    assert done.result == {"by": 2}
    assert [one.outcome for one in done.attempts] == [AttemptOutcome.LOST, AttemptOutcome.SUCCEEDED]


def test_publishing_twice_is_publishing_once(database: JobDatabase) -> None:
    job = database.submit(webhook_url="https://example.com/hook")
    lease = database.claim()
    database.queue.publish(lease, {"n": 1}, [])
    database.queue.publish(lease, {"n": 2}, [])  # the answer to the first was lost
    assert database.find(job.id).result == {"n": 1}
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM webhook_deliveries")) == 1


def test_a_job_that_loses_every_worker_fails(database: JobDatabase) -> None:
    job = database.submit(outputs=("wav2lip",))
    for attempt in range(1, LIMITS.max_attempts + 1):
        assert database.claim().attempt == attempt
        database.clock.now += LEASE_S
        assert database.queue.free_expired_leases() == [job.id]
    failed = database.find(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code == "worker_died"
    assert [one.state for one in failed.outputs] == [JobState.FAILED]
    assert not database.queue.has_ready()


def test_attempts_that_were_released_do_not_count(database: JobDatabase) -> None:
    job = database.submit()
    for _ in range(2 * LIMITS.max_attempts):
        database.queue.release(database.claim())
    assert database.find(job.id).state is JobState.QUEUED
    database.queue.publish(database.claim(), {}, [])


def test_an_error_may_be_retried_later(database: JobDatabase) -> None:
    job = database.submit()
    database.queue.fail(database.claim(), ERROR, retry_after_s=60)
    assert database.find(job.id).state is JobState.QUEUED
    assert database.queue.claim("worker-a", ProcessIdentity("host", "1:1")) is None
    database.clock.now += 60
    lease = database.claim()
    database.queue.fail(lease, ERROR)
    failed = database.find(job.id)
    assert (failed.state, failed.error) == (JobState.FAILED, ERROR)
    assert [one.error for one in failed.attempts] == [ERROR, ERROR]


def test_leases_of_dead_processes_are_freed_at_once(database: JobDatabase) -> None:
    dead, alive, elsewhere = database.submit(), database.submit(), database.submit()
    for host, process in (("host-a", "1:1"), ("host-a", "2:2"), ("host-b", "1:1")):
        database.claim(process, ProcessIdentity(host, process))
    freed = database.queue.free_dead_leases("host-a", lambda process: process == "2:2")
    assert freed == [dead.id]
    states = [database.find(one.id).state for one in (dead, alive, elsewhere)]
    assert states == [JobState.QUEUED, JobState.STARTING, JobState.STARTING]


def test_canceling_ends_a_queued_job_and_takes_the_lease_of_a_running_one(database: JobDatabase) -> None:
    running, queued = database.submit(outputs=("wav2lip",)), database.submit()
    lease = database.claim()
    for job in (running, queued):
        assert database.repository.cancel(job.id).state is JobState.CANCELED
    with pytest.raises(LeaseLost):
        database.queue.publish(lease, {}, [VIDEO])
    canceled = database.find(running.id)
    assert [one.state for one in canceled.outputs] == [JobState.CANCELED]
    assert [one.outcome for one in canceled.attempts] == [AttemptOutcome.CANCELED]
    assert not database.queue.has_ready()
    assert database.repository.cancel(running.id) == canceled  # nothing is left to cancel


def test_a_client_with_many_jobs_does_not_starve_another(database: JobDatabase) -> None:
    for _ in range(50):
        database.submit(client="busy")
    for _ in range(10):
        database.queue.publish(database.claim(), {}, [])
    late = database.submit(client="late")
    claimed = [database.claim().job_id for _ in range(2)]
    assert late.id in claimed  # behind at most one job of the other client


def test_clients_take_turns(database: JobDatabase) -> None:
    order = {}
    for client in ("a", "a", "a", "b", "b", "c"):
        order[database.submit(client=client).id] = client
    assert [order[database.claim().job_id] for _ in range(6)] == ["a", "b", "c", "a", "b", "a"]


def test_a_lost_job_runs_before_those_that_wait(database: JobDatabase) -> None:
    first = database.submit()
    database.submit()
    database.claim()
    database.clock.now += LEASE_S
    database.queue.free_expired_leases()
    assert database.claim().job_id == first.id


def claim_all(url: str, worker: str, found: multiprocessing.Queue[str]) -> None:
    engine = make_engine(url)
    queue = JobQueue(engine, LIMITS)
    while (claimed := queue.claim(worker, ProcessIdentity.current())) is not None:
        found.put(claimed[0].job_id)
    engine.dispose()


def test_processes_never_claim_the_same_job(database: JobDatabase, engine: Engine, tmp_path: Path) -> None:
    submitted = [database.submit(client=f"client-{i % 3}").id for i in range(60)]
    url = engine.url.render_as_string(hide_password=False)
    assert url.startswith("postgresql") or url == default_url(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[str] = spawn.Queue()
    processes = [spawn.Process(target=claim_all, args=(url, f"worker-{i}", found)) for i in range(3)]
    for process in processes:
        process.start()
    claimed = Counter(found.get(timeout=60) for _ in submitted)
    for process in processes:
        process.join()
    assert claimed == Counter(submitted)


def test_times_that_were_recorded_by_a_wrong_clock_do_not_hold_jobs(database: JobDatabase) -> None:
    """The clock was a day ahead, and was put right."""
    leased, waiting = database.submit(), database.submit()
    database.clock.now += 86_400
    database.claim("worker-a")
    database.queue.fail(database.claim("worker-b"), JobError("overloaded", "full"), retry_after_s=120)
    database.clock.now -= 86_400
    assert database.queue.free_expired_leases() == [leased.id]
    assert {database.claim().job_id, database.claim().job_id} == {leased.id, waiting.id}


def test_a_retry_waits_for_its_time(database: JobDatabase) -> None:
    database.submit()
    database.queue.fail(database.claim(), JobError("overloaded", "full"), retry_after_s=120)
    database.clock.now += 119
    assert not database.queue.has_ready()
    database.clock.now += 1
    assert database.queue.has_ready()
