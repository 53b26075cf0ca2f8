"""Rows of the jobs database as records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from container.jobs.records import (
    AttemptOutcome,
    AttemptRecord,
    JobError,
    JobEvent,
    JobRecord,
    JobState,
    OutputRecord,
)
from container.jobs.schema import attempts, jobs, outputs
from inference.errors import JobNotFound


def load_job(db: Connection, condition: ColumnElement[bool]) -> JobRecord:
    """Return the only job that meets a condition, with outputs and attempts. Raises: JobNotFound."""
    row = db.execute(select(jobs).where(condition)).mappings().one_or_none()
    if row is None:
        raise JobNotFound("there is no such job; it may have been deleted after its time")
    number = row["number"]
    made = select(outputs).where(outputs.c.job_number == number).order_by(outputs.c.position)
    tried = select(attempts).where(attempts.c.job_number == number).order_by(attempts.c.number)
    return job_of(
        row,
        tuple(output_of(one) for one in db.execute(made).mappings()),
        tuple(attempt_of(one) for one in db.execute(tried).mappings()),
    )


def job_of(row: RowMapping, made: tuple[OutputRecord, ...] = (), tried: tuple[AttemptRecord, ...] = ()) -> JobRecord:
    values = {name: row[name] for name in JobRecord.__dataclass_fields__ if name in row}
    values |= {
        "state": JobState(row["state"]),
        "error": error_of(row["error"]),
        "webhook_events": tuple(row["webhook_events"]),
    }
    return JobRecord(**values, outputs=made, attempts=tried)


def output_of(row: RowMapping) -> OutputRecord:
    values = {name: row[name] for name in OutputRecord.__dataclass_fields__}
    return OutputRecord(**values | {"state": JobState(row["state"]), "error": error_of(row["error"])})


def attempt_of(row: RowMapping) -> AttemptRecord:
    values = {name: row[name] for name in AttemptRecord.__dataclass_fields__}
    outcome = None if row["outcome"] is None else AttemptOutcome(row["outcome"])
    return AttemptRecord(**values | {"outcome": outcome, "error": error_of(row["error"])})


def event_of(row: RowMapping) -> JobEvent:
    return JobEvent(**{name: row[name] for name in JobEvent.__dataclass_fields__})


def error_of(value: dict[str, Any] | None) -> JobError | None:
    return None if value is None else JobError(**value)
