"""Faults of single writes, of files and of SQLite, in one life of a job.

    python -m support.write_faults FOLDER MODE [N]

repeats the life of a job for every write in it, each time with a fault at another one, or once for the N-th. After each
the service is started again on the same folder. Prints a JSON object per life: what the restarted service found.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Engine, event, text

from container.jobs import sweeper
from container.jobs.database import open_database
from container.jobs.service import JobService
from inference.errors import JobNotFound, VisemeError
from support.job_life import INPUT, JOB, ScriptedPool, hurry, make_settings, wait_for_end

Mode = Literal["fails", "killed", "lost"]
MODES: tuple[Mode, ...] = ("fails", "killed", "lost")
KILLED = 77  # exit status
CONTENT = b"the video"
FILE_CALLS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")  # of the module os
COMMIT = "commit"


class WriteFaults:
    """Counts the writes of this process. The n-th fails; or ends the process; or is done and reported as failed.

    lost: counts commits only, as the others have no answer that could be lost. killer: the file that gets the name of
    the write that ended the process.
    """

    def __init__(self, mode: Mode, n: int, killer: Path) -> None:
        self._mode, self._n, self._killer = mode, n, killer
        self._lock = threading.Lock()
        self.n_writes = 0
        self.fired: str | None = None

    def write(self, name: str, error: Exception, call: Callable[[], Any]) -> Any:
        with self._lock:
            self.n_writes += self._mode != "lost" or name == COMMIT
            is_hit = 0 < self.n_writes == self._n and self.fired is None
            if is_hit:
                self.fired = name
        if not is_hit:
            return call()
        if self._mode == "killed":
            self._killer.write_text(name)
            os._exit(KILLED)
        if self._mode == "lost":
            call()
        raise error

    def install(self) -> None:
        """Put the faults into the calls that write files, and into SQLite's statements and commits."""
        for module, name in [*((os, name) for name in FILE_CALLS), (shutil, "copyfile")]:
            setattr(module, name, self._faulty(name, getattr(module, name)))
        event.listen(Engine, "do_connect", self._connect)

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.write(name, error, lambda: real(*args, **options))

        return call

    def _connect(self, _dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
        faults = self

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, *values: Any) -> Any:
                return self._write(sql, lambda: super(Cursor, self).execute(sql, *values))

            def executemany(self, sql: str, *values: Any) -> Any:
                return self._write(sql, lambda: super(Cursor, self).executemany(sql, *values))

            def _write(self, sql: str, call: Callable[[], Any]) -> Any:
                verb = sql.split(maxsplit=1)[0]
                if verb not in ("INSERT", "UPDATE", "DELETE"):
                    return call()
                self.connection.has_written = True
                return faults.write(verb, sqlite3.OperationalError("disk I/O error"), call)

        class Connection(sqlite3.Connection):
            has_written = False

            def cursor(self, factory: type[sqlite3.Cursor] = Cursor) -> Any:
                return super().cursor(factory)

            def commit(self) -> None:
                if not self.has_written:
                    return super().commit()
                self.has_written = False
                return faults.write(COMMIT, sqlite3.OperationalError("disk I/O error"), super().commit)

        options["factory"] = Connection


async def live(data_dir: Path, acknowledged: Path) -> None:
    """Submit the job and run it to its end, unless its submission fails."""
    body = data_dir.parent / "body"
    body.write_bytes(INPUT)
    job_service = JobService(make_settings(data_dir), lambda: ScriptedPool(CONTENT))
    try:
        await job_service.submit(JOB, body)
    except VisemeError:
        await job_service.stop()
        return
    acknowledged.touch()
    await wait_for_end(job_service)
    await job_service.stop()


async def restart(data_dir: Path) -> dict[str, Any]:
    """Start the service again, let it finish what it finds, and return what is then recorded and stored."""
    sweeper.ORPHAN_AGE_S = -60.0  # every folder without a record is old enough
    job_service = JobService(make_settings(data_dir), lambda: ScriptedPool(CONTENT))
    await job_service.start()
    store = await job_service.open()
    with contextlib.suppress(JobNotFound):
        await wait_for_end(job_service)
    await asyncio.to_thread(store.sweeper.delete_orphans)
    found: dict[str, Any] = {"state": None}
    with contextlib.suppress(JobNotFound):
        job = await asyncio.to_thread(store.repository.find, JOB.id)
        events = await asyncio.to_thread(store.repository.events_after, job.number)
        found["state"] = str(job.state)
        found["outcomes"] = Counter(str(one.outcome) for one in job.attempts)
        found["ends"] = [one.data["state"] for one in events if one.data.get("state") in ("succeeded", "failed")]
        found["outputs"] = [[one.key, one.sha256] for one in job.outputs]
    with store.engine.connect() as db:
        found["n_deliveries"] = db.scalar(text("SELECT count(*) FROM webhook_deliveries"))
    root = data_dir / "jobs" / "files" / store.repository.identity()
    files = [path for path in root.rglob("*") if path.is_file()]
    found["files"] = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    await job_service.stop()
    return found


def run_forked(call: Callable[[], Any], report: Path) -> int:
    """Run a call in a child process, which writes its result as JSON. Returns: the exit status."""
    if (pid := os.fork()) == 0:
        status = 1
        try:
            report.write_text(json.dumps(call()))
            status = 0
        except BaseException:  # noqa: BLE001 - reported by the parent
            report.write_text(json.dumps({"traceback": traceback.format_exc()[-4000:]}))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def live_with_fault(folder: Path, mode: Mode, n: int) -> dict[str, Any]:
    """Live once with a fault at the n-th write, then restart. n: 0 for none. folder: with the folder `template`."""
    work = Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(folder / "template", work / "data")
    (work / "tmp").mkdir()
    tempfile.tempdir = str(work / "tmp")

    def first() -> dict[str, Any]:
        faults = WriteFaults(mode, n, work / "killer")
        faults.install()
        asyncio.run(live(work / "data", work / "acknowledged"))
        return {"n_writes": faults.n_writes, "fired": faults.fired}

    status = run_forked(first, work / "first.json")
    restarted = run_forked(lambda: asyncio.run(restart(work / "data")), work / "second.json")
    is_killed = status == KILLED
    lived = {"fired": (work / "killer").read_text()} if is_killed else json.loads((work / "first.json").read_text())
    found = {"mode": mode, "n": n, "status": status, "acknowledged": (work / "acknowledged").exists(), **lived}
    found |= {"restart_status": restarted} | json.loads((work / "second.json").read_text())
    tempfile.tempdir = str(folder)
    shutil.rmtree(work)
    return found


def warm_up(folder: Path) -> None:
    """Live once in this process: the children share what is imported and cached."""
    shutil.copytree(folder / "template", folder / "data")
    orphan_age_s = sweeper.ORPHAN_AGE_S
    asyncio.run(live(folder / "data", folder / "acknowledged"))
    asyncio.run(restart(folder / "data"))
    sweeper.ORPHAN_AGE_S = orphan_age_s  # the restart has changed it
    gc.freeze()


def main() -> None:
    """Print what was found after each fault."""
    hurry()
    folder, mode = Path(sys.argv[1]), cast(Mode, sys.argv[2])
    open_database(None, folder / "template").dispose()
    if len(sys.argv) > 3:
        print(json.dumps(live_with_fault(folder, mode, int(sys.argv[3]))))
        return
    warm_up(folder)
    n = 0
    while True:
        found = live_with_fault(folder, mode, n)
        print(json.dumps(found), flush=True)
        if n and found["fired"] is None:  # the life has fewer writes
            break
        n += 1


if __name__ == "__main__":
    main()
