"""Webhooks of jobs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from container.jobs.delivery_queue import RETRY_DELAYS_S, TRY_S, Delivery, DeliveryQueue
from container.jobs.records import JobError
from container.jobs.webhook_sender import WebhookSender
from container.jobs.webhooks import WebhookSigner
from inference.errors import AccessDenied, InvalidRequest, StorageError

from .conftest import LIMITS, JobDatabase

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "https://example.com/hook"


class Receiver:
    """Records posts, and answers each with the next of its answers, or with the last one."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.received: list[tuple[str, bytes, dict[str, str]]] = []

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        self.received.append((url, body, headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def make_sender(database: JobDatabase) -> Callable[[Receiver], WebhookSender]:
    database.submit(webhook_url=URL)
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))
    queue = DeliveryQueue(database.engine, LIMITS, database.clock)
    return lambda receiver: WebhookSender(queue, receiver, WebhookSigner(SECRET).headers, database.clock)


def states(database: JobDatabase) -> list[tuple[str, int, int | None, str | None]]:
    with database.engine.connect() as connection:
        query = text("SELECT state, n_tries, last_status, last_error FROM webhook_deliveries ORDER BY number")
        return [tuple(row) for row in connection.execute(query)]


def test_a_webhook_is_delivered_once_and_verifies(
    database: JobDatabase, make_sender: Callable[[Receiver], WebhookSender]
) -> None:
    receiver = Receiver(204)
    sender = make_sender(receiver)
    assert sender.send_due() == 1
    database.clock.now += 100_000
    assert sender.send_due() == 0
    ((url, body, headers),) = receiver.received
    assert url == URL
    assert states(database) == [("delivered", 1, 204, None)]
    # The library's own check, but for the age: the clock of this test stands still in 1970.
    signed_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    expected = Webhook(SECRET).sign(headers["webhook-id"], signed_at, body.decode())
    assert headers["webhook-signature"] == expected
    assert json.loads(body)["type"] == "job.failed"


def test_a_signature_of_now_passes_the_librarys_check() -> None:
    now = datetime.now(UTC).timestamp()
    delivery = Delivery("msg_1", "job.succeeded", URL, '{"type": "job.succeeded"}', 1)
    headers = WebhookSigner(SECRET).headers(delivery, now)
    assert Webhook(SECRET).verify(delivery.payload, headers) == {"type": "job.succeeded"}


def test_a_webhook_that_fails_is_tried_again_with_the_same_id(
    database: JobDatabase, make_sender: Callable[[Receiver], WebhookSender]
) -> None:
    receiver = Receiver(500, StorageError("https://example.com/hook: ConnectError"), 200)
    sender = make_sender(receiver)
    for delay in RETRY_DELAYS_S[:3]:
        assert sender.send_due() == 1
        database.clock.now += delay - 1
        assert sender.send_due() == 0
        database.clock.now += 1
    assert states(database) == [("delivered", 3, 200, None)]
    assert len({headers["webhook-id"] for _, _, headers in receiver.received}) == 1


def test_a_webhook_is_given_up_after_the_last_try(
    database: JobDatabase, make_sender: Callable[[Receiver], WebhookSender]
) -> None:
    sender = make_sender(Receiver(503))
    for delay in (*RETRY_DELAYS_S, 0.0):
        assert states(database)[0][0] == "pending"
        assert sender.send_due() == 1
        database.clock.now += delay
    assert states(database) == [("failed", len(RETRY_DELAYS_S) + 1, 503, "status 503")]


@pytest.mark.parametrize("answer", [410, AccessDenied("example.com: has an address that is not public")])
def test_a_webhook_that_cannot_succeed_is_not_tried_again(
    database: JobDatabase, make_sender: Callable[[Receiver], WebhookSender], answer: int | Exception
) -> None:
    sender = make_sender(Receiver(answer))
    sender.send_due()
    assert [row[0] for row in states(database)] == ["failed"]


def test_a_sender_that_dies_leaves_the_webhook_to_the_next(
    database: JobDatabase, make_sender: Callable[[Receiver], WebhookSender]
) -> None:
    class Killed(BaseException):
        pass

    class DyingReceiver(Receiver):
        def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
            raise Killed

    with pytest.raises(Killed):
        make_sender(DyingReceiver(200)).send_due()
    assert [row[0] for row in states(database)] == ["pending"]
    database.clock.now += TRY_S
    queue = DeliveryQueue(database.engine, LIMITS, database.clock)
    assert [one.n_tries for one in queue.take_due(10, 10)] == [2]


@pytest.mark.parametrize("secret", ["", "short", "whsec_" + base64.b64encode(b"short").decode(), "whsec_!!!"])
def test_a_wrong_secret_is_named(secret: str) -> None:
    with pytest.raises(InvalidRequest, match="VISEME_WEBHOOK_SECRET"):
        WebhookSigner(secret)


@pytest.mark.parametrize(("events", "n_deliveries"), [(("job.failed", "job.canceled"), 1), (("job.succeeded",), 0)])
def test_a_webhook_is_only_for_the_events_that_were_requested(
    database: JobDatabase, events: tuple[str, ...], n_deliveries: int
) -> None:
    database.submit(webhook_url=URL, webhook_events=events)
    database.queue.fail(database.claim(), JobError("no_audio", "no audio stream", 400))
    assert len(states(database)) == n_deliveries
