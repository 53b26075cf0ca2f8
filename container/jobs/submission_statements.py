"""The statements of a submission, built once: building one takes longer than running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Table, and_, bindparam, case, func, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from container.jobs.schema import events, input_usage, jobs, turns
from container.jobs.transactions import CLOCK_ROW

Upsert = postgresql.Insert | sqlite.Insert
USAGE_ROW = 1  # key of the only row of `input_usage`
# Parameters: id; owner, idempotency_key.
FIND_ID = select(jobs.c.number, jobs.c.request_sha256).where(jobs.c.id == bindparam("id"))
HAS_KEY = and_(jobs.c.owner == bindparam("owner"), jobs.c.idempotency_key == bindparam("idempotency_key"))
FIND_ID_OR_KEY = select(jobs.c.number, jobs.c.request_sha256).where(or_(jobs.c.id == bindparam("id"), HAS_KEY))
INSERT_EVENT = insert(events)


class SubmissionStatements:
    """The statements that need the database's own form of insertion.

    insert_job: inserts a row, and returns it; nothing if another process has inserted the same.
    take_turn: records and returns the turn of a `client`'s new job.
    add_input_bytes: adds `n_bytes` to the bytes of inputs and returns the sum; nothing if that is over `max_bytes`.
    """

    def __init__(self, upsert: Callable[[Table], Upsert]) -> None:
        """upsert: returns an insertion that may say what to do on a conflict."""
        self.insert_job = upsert(jobs).on_conflict_do_nothing().returning(*jobs.c)
        self.take_turn = taking_turn(upsert(turns))
        self.add_input_bytes = adding_input_bytes(upsert(input_usage))


def taking_turn(upsert: Upsert) -> ReturningInsert[Any]:
    last = select(func.max(turns.c.turn)).where(turns.c.client.in_((CLOCK_ROW, bindparam("client"))))
    new = upsert.values(client=bindparam("client"), turn=func.coalesce(last.scalar_subquery(), 0) + 1)
    # Another submission of the client may have taken that turn at the same time.
    later = case((turns.c.turn >= new.excluded.turn, turns.c.turn + 1), else_=new.excluded.turn)
    return new.on_conflict_do_update(index_elements=[turns.c.client], set_={"turn": later}).returning(turns.c.turn)


def adding_input_bytes(upsert: Upsert) -> ReturningInsert[Any]:
    new = upsert.values(key=USAGE_ROW, n_bytes=bindparam("n_bytes"))
    total = input_usage.c.n_bytes + new.excluded.n_bytes
    fits = total <= bindparam("max_bytes", type_=BigInteger)
    added = new.on_conflict_do_update(index_elements=[input_usage.c.key], set_={"n_bytes": total}, where=fits)
    return added.returning(input_usage.c.n_bytes)
