"""The events of jobs as they happen, by server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from container.http.clients import ClientCounter
from container.http.responses import StreamAborted
from container.jobs.api.views import event_view
from container.jobs.records import JobEvent, JobRecord, JobState
from inference.errors import InvalidRequest, Overloaded, StorageError

logger = logging.getLogger("viseme.jobs")
EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = "last-event-id"
POLL_S = 0.3  # seconds between looks at the database, for all streams together
KEEP_ALIVE_S = 15.0  # seconds without an event after which a comment is sent
MAX_STREAM_S = 3600.0  # seconds until a stream ends; the client goes on with a new one
MAX_STREAMS = 1024
MAX_STREAMS_PER_CLIENT = 16
RECONNECT = b"retry: 2000\n\n"  # milliseconds
KEEP_ALIVE = b": keep-alive\n\n"
Read = Callable[[Sequence[tuple[int, int]]], Awaitable[list[list[JobEvent]]]]


@dataclass(eq=False)
class JobWatch:
    """What one stream has read of a job's events. sequence: of the last one. batch: those that follow, not sent yet."""

    job_number: int
    sequence: int
    batch: list[JobEvent] = field(default_factory=list)
    error: Exception | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self) -> list[JobEvent]:
        """Wait for events, and return them. Raises: what went wrong when they were read."""
        await self.changed.wait()
        self.changed.clear()
        if self.error is not None:
            raise self.error
        taken, self.batch = self.batch, []
        self.sequence = taken[-1].sequence
        return taken

    def put(self, events: list[JobEvent]) -> None:
        if events:
            self.batch = events
            self.changed.set()

    def fail(self, err: Exception) -> None:
        self.error = err
        self.changed.set()


class EventFeed:
    """Reads new events of the jobs that are watched: in one task for all streams, while there are any.

    A stream whose reader is slow has one batch in memory, and the next is read when it has taken that.
    """

    def __init__(self, read: Read) -> None:
        """read: returns the events of jobs after these sequence numbers, for pairs of job number and sequence."""
        self._read = read
        self._watches: list[JobWatch] = []
        self._task: asyncio.Task[None] | None = None
        self._clients = ClientCounter()

    @property
    def n_streams(self) -> int:
        return len(self._watches)

    @asynccontextmanager
    async def watching(self, job_number: int, sequence: int) -> AsyncIterator[JobWatch]:
        """Watch a job inside of the block. sequence: of the last event that is known."""
        watch = JobWatch(job_number, sequence)
        self._watches.append(watch)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        try:
            yield watch
        finally:
            self._watches.remove(watch)
            if not self._watches and self._task is not None:
                self._task.cancel()
                self._task = None

    @contextlib.contextmanager
    def opened(self, client: str | None) -> Iterator[None]:
        """Count a stream inside of the block. client: None if any number may be behind it. Raises: Overloaded."""
        if self._clients.total >= MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} event streams are open, which is the limit; try again later")
        limit = None if client is None else MAX_STREAMS_PER_CLIENT
        with self._clients.opened(client or "", limit, "event streams"):
            yield

    async def _poll(self) -> None:
        while True:
            waiting = [watch for watch in self._watches if not watch.changed.is_set()]
            places = positions_of(waiting)
            try:
                found = dict(zip(places, await self._read(list(places.items())), strict=True))
            except Exception as err:  # noqa: BLE001 - each stream reports it
                for watch in waiting:
                    watch.fail(err)
            else:
                for watch in waiting:
                    events = found[watch.job_number]
                    watch.put([event for event in events if event.sequence > watch.sequence])
            await asyncio.sleep(POLL_S)


def positions_of(watches: Iterable[JobWatch]) -> dict[int, int]:
    """Return the numbers of the watched jobs, and the lowest sequence number from which one of them is watched."""
    lowest: dict[int, int] = {}
    for watch in watches:
        lowest[watch.job_number] = min(watch.sequence, lowest.get(watch.job_number, watch.sequence))
    return lowest


def last_sequence_of(text: str | None) -> int:
    """Return the sequence number in Last-Event-ID; 0 without one. Raises: InvalidRequest."""
    if text is None or not text:
        return 0
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InvalidRequest(f"Last-Event-ID: found {text[:40]!r}; expected the id of an event")
    return int(text)


async def stream_events(
    job: JobRecord, sequence: int, feed: EventFeed, is_stopping: Callable[[], bool]
) -> AsyncGenerator[bytes]:
    """Yield the events of a job after one of them, until its end; comments while nothing happens.

    is_stopping: whether this server goes down: clients then go on at another one.
    """
    loop = asyncio.get_running_loop()
    end, quiet_since = loop.time() + MAX_STREAM_S, loop.time()
    yield RECONNECT
    async with feed.watching(job.number, sequence) as watch:
        while loop.time() < end and not is_stopping():
            try:
                events = await asyncio.wait_for(watch.take(), POLL_S)
            except StorageError as err:  # the client goes on with a new stream
                logger.warning("a stream of events ends", extra={"job": job.id, "reason": str(err)})
                raise StreamAborted(str(err)) from err
            except TimeoutError:
                if loop.time() - quiet_since >= KEEP_ALIVE_S:
                    quiet_since = loop.time()
                    yield KEEP_ALIVE
                continue
            quiet_since = loop.time()
            yield b"".join(encode_event(event) for event in events)
            if any(is_last(event) for event in events):
                return


def is_last(event: JobEvent) -> bool:
    """Return whether nothing follows: the event reports a final state."""
    return event.kind == "state" and JobState(event.data["state"]).is_final


def encode_event(event: JobEvent) -> bytes:
    text = json.dumps(event_view(event), separators=(",", ":"))
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {text}\n\n".encode()
