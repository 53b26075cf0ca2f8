"""The sender of webhooks: several at a time, so that a slow receiver delays only its own."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from container.jobs.delivery_queue import RETRY_DELAYS_S, Delivery, DeliveryQueue, is_success
from inference.errors import CallerError, VisemeError

logger = logging.getLogger("viseme.webhooks")
GONE = 410  # the receiver wants no more of them
MAX_SENDING = 16  # webhooks sent at a time
MAX_SENDING_PER_RECEIVER = 4
WAIT_S = 0.5  # seconds to wait for one that is being sent to end, and make place for another
STOP_S = 2.0  # seconds that those being sent have to end when the server does


class Poster(Protocol):
    """What sends a body to a URL: `OutboundClient`."""

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int: ...


class WebhookSender:
    """Sends the webhooks that are due, each in a thread of its own, of which there is a limited number.

    Daemon threads: a receiver that takes a minute to answer does not keep the process from ending. What was being sent
    then is sent again by the next server, with the same id.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        client: Poster,
        headers: Callable[[Delivery, float], dict[str, str]],
        clock: Callable[[], float],
    ) -> None:
        """headers: returns those of a delivery at a time, signed."""
        self._queue, self._client, self._headers, self._clock = queue, client, headers, clock
        self._changed = threading.Condition()
        self._sending: Counter[str] = Counter()  # webhooks being sent, by receiver
        self._n_ended = 0
        self._errors: list[BaseException] = []
        self._is_stopped = False

    def send_due(self) -> int:
        """Send what is due. Slow ones may still be being sent when it returns: call it again soon.

        Returns: the number of tries that it began. Raises: StorageError if the database cannot be reached.
        """
        n_begun = 0
        while True:
            n_new, has_ended = self._begin_due()
            n_begun += n_new
            if not n_new and not has_ended:
                break
        self._raise_errors()
        return n_begun

    def stop(self) -> None:
        """Begin no more, and wait a moment for those that are being sent."""
        with self._changed:
            self._is_stopped = True
            self._changed.wait_for(lambda: not self._sending.total(), STOP_S)

    def _begin_due(self) -> tuple[int, bool]:
        """Begin to send what is due and has a place. Returns: how many, and whether one ended within a moment."""
        with self._changed:
            n_free = 0 if self._is_stopped else MAX_SENDING - self._sending.total()
            sending, n_ended = Counter(self._sending), self._n_ended
        due = self._queue.take_due(n_free, MAX_SENDING_PER_RECEIVER, sending) if n_free else []
        for delivery in due:
            with self._changed:
                self._sending[delivery.receiver] += 1
            threading.Thread(target=self._run, args=(delivery,), name="webhook", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._n_ended > n_ended or not self._sending.total(), WAIT_S)
            return len(due), self._n_ended > n_ended

    def _run(self, delivery: Delivery) -> None:
        """Send one webhook; `send_due` reports what goes wrong unexpectedly."""
        try:
            self._send(delivery)
        except BaseException as err:  # noqa: BLE001 - raised by the next `send_due`
            with self._changed:
                self._errors.append(err)
        finally:
            with self._changed:
                self._sending[delivery.receiver] -= 1
                self._sending += Counter()  # forget receivers to which none is sent
                self._n_ended += 1
                self._changed.notify_all()

    def _raise_errors(self) -> None:
        with self._changed:
            errors, self._errors = self._errors, []
        for err in errors[1:]:
            logger.error("a webhook could not be recorded", exc_info=err)
        if errors:
            raise errors[0]

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
