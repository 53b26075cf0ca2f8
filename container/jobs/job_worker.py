"""`viseme worker`: runs the jobs of a shared database, on any number of machines.

Celery has the main thread: it receives the messages that wake this worker. The jobs run on an event loop in a thread of
their own, as they do in a server, so that a job of hours keeps no message from being acknowledged and no signal from
being handled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from container.jobs.broker import receive_wakes, stop_receiving
from container.jobs.service import POLL_S, JobService
from container.logs import set_up_logs
from inference.errors import InvalidRequest, NotReady, VisemeError
from inference.locked_folders import remove_orphans
from inference.media.sandbox.confinement import deny_inspection
from inference.settings import Settings

logger = logging.getLogger("viseme.jobs")
Result = TypeVar("Result")
# Seconds for a job to end after SIGTERM. Then it is given back to the queue: hosts kill a container after 30.
GRACE_S = 20.0
POLL_END_S = 0.1
NOISY_LOGGERS = ("celery.app.trace", "celery.worker.strategy", "celery.bootsteps")  # several lines for each message


class JobThread:
    """The jobs of this process, on an event loop in a thread of its own. Other threads may call any method."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True)
        self._is_hurried = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the loop inside of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def start(self) -> None:
        """Load the models and begin to run jobs. Raises: NotReady if the models cannot be loaded; InvalidRequest."""
        self._wait_for(self._start())

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._service.wake_runners)

    def drain(self) -> None:
        """Claim no more jobs; if it is called again, do not wait for the one that runs. Signal handlers may call it."""
        self._loop.call_soon_threadsafe(self._drain)

    def stop(self, grace_s: float) -> None:
        """Wait for the job that runs, at most so many seconds; then give it back to the queue."""
        self._wait_for(self._stop(grace_s))

    async def _start(self) -> None:
        await self._service.start_pool()
        while not self._service.is_draining:
            try:
                await self._service.open()
            except InvalidRequest:
                raise
            except VisemeError as err:
                logger.warning("the jobs cannot be opened yet", extra={"reason": str(err)})
                await asyncio.sleep(POLL_S)
            else:
                return

    def _drain(self) -> None:
        self._is_hurried = self._service.is_draining
        self._service.drain()

    async def _stop(self, grace_s: float) -> None:
        self._service.drain()
        deadline = time.monotonic() + grace_s
        while self._service.n_running and not self._is_hurried and time.monotonic() < deadline:
            await asyncio.sleep(POLL_END_S)
        await self._service.stop()

    def _wait_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class SignalHandler:
    """Ends Celery on SIGTERM and SIGINT, and has the jobs end. A second signal ends the job that runs at once."""

    def __init__(self, *on_signal: Callable[[], None]) -> None:
        self._on_signal = on_signal
        self.first_at: float | None = None  # on the clock of `time.monotonic`

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def left_of(self, grace_s: float) -> float:
        """Return how many seconds of a time that began with the first signal are left."""
        return grace_s if self.first_at is None else max(self.first_at + grace_s - time.monotonic(), 0)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()
        for act in self._on_signal:
            act()


def run_job_worker(settings: Settings, service: JobService | None = None) -> int:
    """Run jobs until a signal arrives. Returns: the exit code, 1 if the models cannot be loaded.

    Raises: InvalidRequest if a setting is wrong, or there is no broker.
    """
    if settings.broker_url is None:
        raise InvalidRequest("a worker needs a broker: --broker redis://HOST, or VISEME_BROKER_URL")
    set_up_logs()
    for noisy in NOISY_LOGGERS:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    deny_inspection()
    remove_orphans()
    jobs = JobThread(service or JobService(settings))
    handler = SignalHandler(jobs.drain, stop_receiving)
    with jobs.running():
        handler.install()
        try:
            jobs.start()
            if handler.first_at is None:
                logger.info("viseme worker is ready")
                receive_wakes(settings.broker_url, jobs.wake)
        except NotReady as err:
            logger.critical("the worker cannot start", extra={"reason": str(err)})
            return 1
        finally:
            jobs.stop(handler.left_of(GRACE_S))
    logger.info("the worker has ended")
    return 0
