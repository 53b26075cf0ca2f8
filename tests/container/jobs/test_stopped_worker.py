"""A runner that was stopped (SIGSTOP) for longer than its lease, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from support.job_life import INPUT, JOB, OUTPUT_NAME
from support.waiting import wait_until

from container.jobs.database import open_database
from container.jobs.records import AttemptOutcome, JobRecord, JobState
from container.jobs.repository import JobRepository
from container.jobs.storage import FolderStorage

ROOT = Path(__file__).parents[3]


@dataclass
class RunnerProcess:
    """A process that runs jobs. gate: a file that lets its job end."""

    process: subprocess.Popen[bytes]
    gate: Path
    log: Path

    def has_logged(self, text: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return text in self.log.read_text()


@contextmanager
def runner_process(folder: Path, name: str) -> Iterator[RunnerProcess]:
    gate, log = folder / f"{name}.gate", folder / f"{name}.log"
    command = [sys.executable, "-m", "support.job_life", str(folder / "data"), f"made by {name}", str(gate)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "tests"}, stderr=stderr)
    try:
        yield RunnerProcess(process, gate, log)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("is_finished", [False, True], ids=["while the other runs", "after the other has finished"])
def test_a_stopped_runner_publishes_nothing(tmp_path: Path, is_finished: bool):
    repository, storage = submit(tmp_path)

    def find() -> JobRecord:
        return repository.find(JOB.id)

    with runner_process(tmp_path, "first") as first, runner_process(tmp_path, "second") as second:
        # Either may claim the job: the one that has it is stopped.
        wait_until(lambda: first.has_logged("job started") or second.has_logged("job started"))
        stopped, other = (first, second) if first.has_logged("job started") else (second, first)
        wait_until(lambda: find().state is JobState.PROCESSING)
        stop_outside_transactions(stopped.process, tmp_path / "data" / "jobs" / "jobs.sqlite3")
        wait_until(lambda: find().attempt == 2 and find().state is JobState.PROCESSING)
        if is_finished:
            other.gate.touch()
            wait_until(lambda: find().state is JobState.SUCCEEDED)
        stopped.gate.touch()  # its worker has finished, for all that it can see
        stopped.process.send_signal(signal.SIGCONT)
        wait_until(lambda: stopped.has_logged("job lost"))
        assert not stopped.has_logged("job ended")
        if not is_finished:
            found = find()
            assert (found.state, found.result, found.attempt) == (JobState.PROCESSING, None, 2)
            assert [one.key for one in found.outputs] == [None]
            other.gate.touch()
        wait_until(lambda: find().state is JobState.SUCCEEDED)
        wait_until(lambda: not repository.unswept())
        done = find()
        winner = "first" if other is first else "second"
        assert [one.outcome for one in done.attempts] == [AttemptOutcome.LOST, AttemptOutcome.SUCCEEDED]
        (output,) = done.outputs
        assert output.key == f"attempts/2/{OUTPUT_NAME}"
        with storage.read(JOB.id, output.key) as path:
            assert path.read_bytes() == f"made by {winner}".encode()
        wait_until(lambda: [path.name for path in (storage.root / JOB.id / "attempts").iterdir()] == ["2"])
        ends = [one.data for one in repository.events_after(done.number) if one.data.get("state") == "succeeded"]
        assert len(ends) == 1


def stop_outside_transactions(process: subprocess.Popen[bytes], database: Path) -> None:
    """Stop a process at a moment at which it does not hold the lock of SQLite, which no other process could take."""

    def is_stopped_without_lock() -> bool:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        with contextlib.closing(sqlite3.connect(database, timeout=2.0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                return False
            db.execute("ROLLBACK")
            return True

    wait_until(is_stopped_without_lock)


def submit(folder: Path) -> tuple[JobRepository, FolderStorage]:
    """Queue the job, with its input, before any runner is started."""
    repository = JobRepository(open_database(None, folder / "data"))
    storage = FolderStorage(folder / "data" / "jobs" / "files" / repository.identity())
    (folder / "body").write_bytes(INPUT)
    storage.write(JOB.id, "input", folder / "body")
    repository.submit(JOB)
    return repository, storage
