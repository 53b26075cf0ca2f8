"""Webhooks: each is delivered at least once, signed by the Standard Webhooks scheme.

A delivery is taken by one conditional update, which also sets the time of the next try, so that two servers do not send
it at once, and one that dies in the middle leaves it to the next.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import CursorResult, select, update

from container.jobs.schema import IS_PENDING, deliveries
from container.jobs.transactions import JobTransactions
from inference.errors import CallerError, InvalidRequest, VisemeError

logger = logging.getLogger("viseme.webhooks")
# Seconds from each try to the next; after the last the delivery has failed. The specification's own example.
RETRY_DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
TRY_S = 120.0  # seconds that a try may take: the next one is not before, unless the first is known to have failed
GONE = 410  # the receiver wants no more of them
PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
BATCH = 20  # deliveries taken at once


@dataclass(frozen=True)
class Delivery:
    """A webhook to be sent. id: the same at each try, so that the receiver can ignore a repetition."""

    id: str
    event: str
    url: str
    payload: str
    n_tries: int


class DeliveryQueue(JobTransactions):
    """The webhooks that are to be delivered."""

    def take_due(self) -> list[Delivery]:
        """Take the deliveries that are due. They are due again if they are not finished before their next try."""
        now = self._clock()
        due = select(deliveries).where(IS_PENDING, deliveries.c.next_try_at <= now).limit(BATCH)
        taken = []
        with self._writing() as db:
            for row in db.execute(due.order_by(deliveries.c.next_try_at)).mappings():
                same = deliveries.c.id == row["id"], deliveries.c.n_tries == row["n_tries"], IS_PENDING
                values = {"n_tries": row["n_tries"] + 1, "next_try_at": now + max(TRY_S, next_delay(row["n_tries"]))}
                changed: CursorResult[Any] = db.execute(update(deliveries).where(*same).values(values))
                if changed.rowcount == 1:
                    names = ("id", "event", "url", "payload")
                    taken.append(Delivery(**{name: row[name] for name in names}, n_tries=row["n_tries"] + 1))
        return taken

    def finish(self, delivery: Delivery, status: int | None, error: str | None, *, is_final: bool) -> None:
        """Record a try. is_final: there is no other one."""
        is_delivered = status is not None and is_success(status)
        state = "delivered" if is_delivered else "failed" if is_final else "pending"
        next_try_at = self._clock() + next_delay(delivery.n_tries - 1)
        values = {"state": state, "last_status": status, "last_error": error, "next_try_at": next_try_at}
        with self._writing() as db:
            db.execute(update(deliveries).where(deliveries.c.id == delivery.id, IS_PENDING).values(values))


def next_delay(n_tries: int) -> float:
    """Return the seconds from a try to the next. n_tries: before that try."""
    return RETRY_DELAYS_S[min(n_tries, len(RETRY_DELAYS_S) - 1)]


def is_success(status: int) -> bool:
    return 200 <= status < 300


class Poster(Protocol):
    """What sends a body to a URL: `OutboundClient`."""

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int: ...


class WebhookSigner:
    """Signs webhooks with the deployment's secret."""

    def __init__(self, secret: str) -> None:
        """secret: `whsec_` and 24 to 64 bytes in base64. Raises: InvalidRequest."""
        from standardwebhooks import Webhook

        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except ValueError as err:
            raise InvalidRequest("VISEME_WEBHOOK_SECRET: expected whsec_ and base64") from err
        if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            raise InvalidRequest(
                f"VISEME_WEBHOOK_SECRET: found {len(key)} bytes; expected {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"
            )
        self._webhook = Webhook(key)

    def headers(self, delivery: Delivery, now: float) -> dict[str, str]:
        """Return the headers of a webhook that is sent now, in seconds since 1970."""
        signature = self._webhook.sign(delivery.id, datetime.fromtimestamp(now, UTC), delivery.payload)
        return {
            "content-type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": signature,
        }


class WebhookSender:
    """Sends the webhooks that are due."""

    def __init__(
        self,
        queue: DeliveryQueue,
        client: Poster,
        headers: Callable[[Delivery, float], dict[str, str]],
        clock: Callable[[], float],
    ) -> None:
        """headers: returns those of a delivery at a time, signed."""
        self._queue, self._client, self._headers, self._clock = queue, client, headers, clock

    def send_due(self) -> int:
        """Send what is due, one after another. Returns: the number of tries. Raises: StorageError."""
        due = self._queue.take_due()
        for delivery in due:
            self._send(delivery)
        return len(due)

    def _send(self, delivery: Delivery) -> None:
        status, error, is_final = None, None, delivery.n_tries > len(RETRY_DELAYS_S)
        try:
            status = self._client.post(delivery.url, delivery.payload.encode(), self._headers(delivery, self._clock()))
        except CallerError as err:  # the URL itself: no other try succeeds
            error, is_final = str(err), True
        except VisemeError as err:
            error = str(err)
        if status is not None and not is_success(status):
            error, is_final = f"status {status}", is_final or status == GONE
        self._queue.finish(delivery, status, error, is_final=is_final)
        extra = {"webhook": delivery.id, "event_type": delivery.event, "status": status, "tries": delivery.n_tries}
        if error is None:
            logger.info("webhook delivered", extra=extra)
        else:
            logger.warning("webhook not delivered", extra=extra | {"reason": error, "final": is_final})
