"""The broker: Celery over Redis, by which a server wakes the workers of other machines when it has queued a job.

A message carries nothing, is sent to every worker, and is gone once it is sent: the records in the database are the
only queue, and a worker that missed the message looks there every few seconds. So there is nothing that Redis could
lose, or hand out a second time when its visibility timeout (an hour) is over while a job of two hours still runs.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from inference.errors import InvalidRequest, StorageError

try:
    from celery import Celery
    from celery.worker import state as celery_state
    from kombu.common import Broadcast
    from kombu.exceptions import OperationalError
except ModuleNotFoundError as err:
    raise InvalidRequest("VISEME_BROKER_URL: Celery is not installed; install viseme[celery]") from err

logger = logging.getLogger("viseme.jobs")
WAKE_TASK = "viseme.wake"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0  # longer than Celery lets Redis wait for a message


def make_celery_app(broker_url: str, wake: Callable[[], None] | None = None) -> Celery:
    """Return an app whose only task calls `wake`; None for one that only sends it."""
    app = Celery("viseme", broker=broker_url, set_as_current=False)
    app.conf.update(
        broker_read_url=broker_url,  # before CELERY_BROKER_URL, which may be that of another app
        broker_write_url=broker_url,
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_default_queue=WAKE_TASK,
        task_queues=[Broadcast(WAKE_TASK, no_ack=True)],  # type: ignore[no-untyped-call]
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        worker_enable_remote_control=False,  # anyone who can reach the broker could stop the workers
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if broker_url.startswith("rediss:") else False,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": READ_TIMEOUT_S,
            "socket_keepalive": True,
        },
    )
    if wake is not None:

        def run_wake() -> None:  # Celery looks at the signature of a task, and not all that can be called have one
            wake()

        app.task(run_wake, name=WAKE_TASK)
    return app


class WakeSender:
    """Sends the message that wakes all workers."""

    def __init__(self, broker_url: str) -> None:
        self._app = make_celery_app(broker_url)

    def send(self) -> None:
        """Wake the workers. Raises: StorageError if the broker cannot be reached; it takes some seconds at most."""
        exchange = self._app.amqp.queues[WAKE_TASK].exchange
        once = {"max_retries": 1, "interval_start": 0}  # a connection that a restart has cut is opened again
        try:
            self._app.send_task(WAKE_TASK, ignore_result=True, declare=[exchange], retry=True, retry_policy=once)
        except OperationalError as err:
            broker = self._app.connection_for_write().as_uri()  # without the password
            raise StorageError(f"the broker {broker} cannot be reached ({err})") from err

    def close(self) -> None:
        self._app.close()


def receive_wakes(broker_url: str, wake: Callable[[], None]) -> None:
    """Call `wake` for each message until `stop_receiving`. A broker that cannot be reached is tried until it can.

    `wake` is also called whenever there is a connection: what was sent before is lost.
    """

    def on_connection(_consumer: Any) -> None:
        logger.info("the broker is connected")
        wake()

    worker = make_celery_app(broker_url, wake).WorkController(
        hostname=f"viseme-{os.getpid()}@{socket.gethostname()}",
        pool_cls="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        ready_callback=on_connection,
    )
    worker.start()


def stop_receiving() -> None:
    """Have `receive_wakes` return within seconds. Signal handlers may call it."""
    celery_state.should_stop = os.EX_OK
