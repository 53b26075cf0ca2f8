"""Sending webhooks: several at a time, none of them held up by another receiver, in the order of each job."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select
from support.waiting import PATIENCE_S, wait_until

from container.jobs import webhook_sender
from container.jobs.deliveries import receiver_of
from container.jobs.delivery_queue import TRY_S, Delivery, DeliveryQueue
from container.jobs.schema import deliveries
from container.jobs.webhook_sender import MAX_SENDING, MAX_SENDING_PER_RECEIVER, WebhookSender
from inference.errors import StorageError

from .conftest import LIMITS, JobDatabase

SLOW, QUICK = "https://slow.example/hook", "https://quick.example/hook"


class Receivers:
    """The receivers: the slow one answers once it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.received: list[str] = []
        self.n_waiting = 0
        self.most_waiting = 0
        self._lock = threading.Lock()

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        if receiver_of(url).startswith("slow"):
            with self._lock:
                self.n_waiting += 1
                self.most_waiting = max(self.most_waiting, self.n_waiting)
            assert self.release.wait(PATIENCE_S)
            with self._lock:
                self.n_waiting -= 1
        with self._lock:
            self.received.append(headers["webhook-id"])
        return 200 if body else 500


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    found = Receivers()
    yield found
    found.release.set()


@pytest.fixture
def queue(database: JobDatabase) -> DeliveryQueue:
    return DeliveryQueue(database.engine, LIMITS, database.clock)


@pytest.fixture
def sender(queue: DeliveryQueue, receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookSender]:
    monkeypatch.setattr(webhook_sender, "WAIT_S", 0.05)
    sender = WebhookSender(queue, receivers, lambda delivery, _now: {"webhook-id": delivery.id}, queue._clock)
    yield sender
    receivers.release.set()
    sender.stop()


def add_deliveries(database: JobDatabase, url: str, *ids: str, job_number: int | None = None) -> None:
    """Record deliveries that are due, each of a job of its own unless one is given."""
    row = {"event": "job.succeeded", "url": url, "receiver": receiver_of(url), "payload": "{}", "state": "pending"}
    times = {"next_try_at": database.clock.now, "created_at": database.clock.now}
    numbers = [job_number or database.submit().number for _ in ids]
    with database.engine.begin() as db:
        for one, number in zip(ids, numbers, strict=True):
            db.execute(insert(deliveries).values(row | times | {"id": one, "job_number": number}))


def states(database: JobDatabase) -> Counter[str]:
    with database.engine.connect() as db:
        return Counter(db.scalars(select(deliveries.c.state)))


def test_a_slow_receiver_does_not_delay_the_others(
    database: JobDatabase, sender: WebhookSender, receivers: Receivers
) -> None:
    add_deliveries(database, SLOW, *(f"slow-{i}" for i in range(MAX_SENDING_PER_RECEIVER + 2)))
    add_deliveries(database, QUICK, "quick-0", "quick-1", "quick-2")
    assert sender.send_due() == MAX_SENDING_PER_RECEIVER + 3
    wait_until(lambda: len(receivers.received) == 3)
    assert set(receivers.received) == {"quick-0", "quick-1", "quick-2"}
    assert sender.send_due() == 0  # the slow receiver has all its places
    receivers.release.set()
    while states(database)["pending"]:
        sender.send_due()
    assert receivers.most_waiting == MAX_SENDING_PER_RECEIVER
    assert Counter(receivers.received).most_common(1)[0][1] == 1
    assert states(database) == {"delivered": MAX_SENDING_PER_RECEIVER + 5}


def test_only_so_many_are_sent_at_a_time(
    database: JobDatabase, sender: WebhookSender, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "MAX_SENDING", 2)
    for i in range(3):
        add_deliveries(database, f"https://slow-{i}.example/hook", f"slow-{i}")
    assert sender.send_due() == 2
    assert sender.send_due() == 0
    receivers.release.set()
    while states(database)["pending"]:
        sender.send_due()
    assert receivers.most_waiting == 2


def test_the_next_webhook_of_a_job_waits_for_the_one_before(database: JobDatabase, queue: DeliveryQueue) -> None:
    job = database.submit()
    add_deliveries(database, QUICK, "first", "second", job_number=job.number)
    add_deliveries(database, QUICK, "other")
    assert [one.id for one in queue.take_due(MAX_SENDING, 4)] == ["first", "other"]
    assert queue.take_due(MAX_SENDING, 4) == []
    queue.finish(Delivery("first", "", QUICK, "{}", 1), 500, "status 500", is_final=False)
    assert queue.take_due(MAX_SENDING, 4) == []
    database.clock.now += 5
    (again,) = queue.take_due(MAX_SENDING, 4)
    assert (again.id, again.n_tries) == ("first", 2)
    queue.finish(again, 204, None, is_final=False)
    assert [one.id for one in queue.take_due(MAX_SENDING, 4)] == ["second"]


def test_a_webhook_that_was_recorded_by_a_wrong_clock_is_sent(database: JobDatabase, queue: DeliveryQueue) -> None:
    """The clock was a day ahead, and was put right."""
    database.clock.now += 86_400
    add_deliveries(database, QUICK, "late")
    database.clock.now -= 86_400
    assert [one.id for one in queue.take_due(MAX_SENDING, 4)] == ["late"]
    assert queue.take_due(MAX_SENDING, 4) == []


def test_a_backlog_of_one_receiver_leaves_places_to_the_others(database: JobDatabase, queue: DeliveryQueue) -> None:
    add_deliveries(database, SLOW, *(f"slow-{i}" for i in range(8)))
    database.clock.now += 1
    add_deliveries(database, QUICK, "quick")
    found = queue.take_due(4, 3, Counter({"slow.example": 1}))
    assert [one.id for one in found] == ["slow-0", "slow-1", "quick"]


def test_servers_that_send_at_once_take_no_webhook_twice(database: JobDatabase, queue: DeliveryQueue) -> None:
    ids = [f"one-{i}" for i in range(24)]
    add_deliveries(database, QUICK, *ids[:12])
    add_deliveries(database, SLOW, *ids[12:])
    start, taken = threading.Barrier(4), list[str]()

    def take() -> None:
        start.wait(PATIENCE_S)
        for _ in range(12):
            taken.extend(one.id for one in queue.take_due(3, 2))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_a_webhook_that_could_not_be_recorded_is_sent_again(
    database: JobDatabase,
    queue: DeliveryQueue,
    sender: WebhookSender,
    receivers: Receivers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_deliveries(database, QUICK, "one")

    def fail(*_args: object, **_options: object) -> None:
        raise StorageError("the jobs database failed")

    with monkeypatch.context() as away:
        away.setattr(queue, "finish", fail)
        with pytest.raises(StorageError, match="the jobs database failed"):
            sender.send_due()
    assert sender.send_due() == 0
    database.clock.now += TRY_S
    assert sender.send_due() == 1
    assert receivers.received == ["one", "one"]
    assert states(database) == {"delivered": 1}


def test_a_sender_that_is_stopped_begins_no_more(
    database: JobDatabase, sender: WebhookSender, receivers: Receivers
) -> None:
    add_deliveries(database, QUICK, "one")
    sender.stop()
    assert sender.send_due() == 0
    assert receivers.received == []
