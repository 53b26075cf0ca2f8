"""The webhooks that are to be delivered, in the order of each job.

A delivery is taken by one conditional update, which also sets the time of the next try, so that two servers do not send
it at once, and one that dies in the middle leaves it to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, RowMapping, exists, select, update

from container.jobs.schema import IS_PENDING, PENDING, deliveries
from container.jobs.transactions import JobTransactions, is_over

# Seconds from each try to the next; after the last the delivery has failed. The example of the specification of
# Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
RETRY_DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
MAX_AHEAD_S = max(RETRY_DELAYS_S) + 600.0  # that a next try can be ahead
TRY_S = 120.0  # seconds that a try may take: the next one is not before, unless the first is known to have failed


@dataclass(frozen=True)
class Delivery:
    """A webhook to be sent.

    id: the same at each try, so that the receiver can ignore a repetition. receiver: the host and port of the URL.
    """

    id: str
    event: str
    url: str
    payload: str
    n_tries: int
    receiver: str = ""


class DeliveryQueue(JobTransactions):
    """The webhooks that are to be delivered. Any method raises StorageError if the database cannot be reached."""

    def take_due(self, limit: int, per_receiver: int, n_sending: Counter[str] | None = None) -> list[Delivery]:
        """Take deliveries that are due. They are due again if they are not finished before their next try.

        A job's next delivery is taken only once the one before it has been delivered or has failed. limit: of all.
        per_receiver: of those of one receiver, together with those that are being sent to it already: `n_sending`.
        """
        counts = Counter(n_sending)
        taken: list[Delivery] = []
        with self._writing() as db:
            while (n_wanted := limit - len(taken)) > 0:
                busy = [one for one, n in counts.items() if n >= per_receiver]
                rows = self._find_due(db, n_wanted, busy)
                for row in rows:
                    if counts[row["receiver"]] < per_receiver and self._take(db, row):
                        counts[row["receiver"]] += 1
                        taken.append(delivery_of(row))
                if len(rows) < n_wanted:  # there are no others
                    break
        return taken

    def finish(self, delivery: Delivery, status: int | None, error: str | None, *, is_final: bool) -> None:
        """Record a try. is_final: there is no other one."""
        is_delivered = status is not None and is_success(status)
        state = "delivered" if is_delivered else "failed" if is_final else "pending"
        next_try_at = self._clock() + next_delay(delivery.n_tries - 1)
        values = {"state": state, "last_status": status, "last_error": error, "next_try_at": next_try_at}
        with self._writing() as db:
            db.execute(update(deliveries).where(deliveries.c.id == delivery.id, IS_PENDING).values(values))

    def _find_due(self, db: Connection, limit: int, busy: Collection[str]) -> Sequence[RowMapping]:
        """Return deliveries that are due, except to these receivers. PostgreSQL locks them, and skips locked ones."""
        earlier = deliveries.alias("earlier")
        waits = exists().where(
            earlier.c.job_number == deliveries.c.job_number,
            earlier.c.number < deliveries.c.number,
            earlier.c.state == PENDING,
        )
        due = (
            IS_PENDING,
            is_over(deliveries.c.next_try_at, self._clock(), MAX_AHEAD_S),
            deliveries.c.receiver.not_in(busy),
            ~waits,
        )
        query = select(deliveries).where(*due).order_by(deliveries.c.next_try_at, deliveries.c.number).limit(limit)
        return db.execute(query.with_for_update(skip_locked=True) if self._is_postgresql else query).mappings().all()

    def _take(self, db: Connection, row: RowMapping) -> bool:
        """Record that a delivery is being tried; return whether it was still to be."""
        same = deliveries.c.id == row["id"], deliveries.c.n_tries == row["n_tries"], IS_PENDING
        next_try_at = self._clock() + max(TRY_S, next_delay(row["n_tries"]))
        values = {"n_tries": row["n_tries"] + 1, "next_try_at": next_try_at}
        changed: CursorResult[Any] = db.execute(update(deliveries).where(*same).values(values))
        return changed.rowcount == 1


def delivery_of(row: RowMapping) -> Delivery:
    """Return the delivery of a row, as it is once it has been taken."""
    names = ("id", "event", "url", "payload", "receiver")
    return Delivery(**{name: row[name] for name in names}, n_tries=row["n_tries"] + 1)


def next_delay(n_tries: int) -> float:
    """Return the seconds from a try to the next. n_tries: before that try."""
    return RETRY_DELAYS_S[min(n_tries, len(RETRY_DELAYS_S) - 1)]


def is_success(status: int) -> bool:
    return 200 <= status < 300
