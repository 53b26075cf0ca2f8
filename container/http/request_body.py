"""Request bodies: bounded while they arrive, and written to disk so that they take no memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request

from container.http.clients import ClientCounter
from inference.errors import BodyTimeout, Canceled, InvalidRequest, MediaTooLarge, Overloaded
from inference.locked_folders import locked_folder
from inference.requests.deadlines import ASYNC_DEADLINE_S, deadlines_of, is_asynchronous
from inference.settings import Settings

MAX_BODY_BYTES = 25 << 20  # bytes of a real-time request: SageMaker's limit
MAX_ASYNC_BODY_BYTES = 1 << 30  # bytes of an asynchronous request
BODY_TIMEOUT_S = 30.0  # seconds for a body to arrive
# A body arrives at 1 kB/s at least; a connection may stall for as long as the grace.
BODY_GRACE_S = 10.0
MIN_BODY_BYTES = 10_000  # bytes in that time
WRITE_BYTES = 128 << 10  # bytes per write to disk


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one request: bytes of its body, seconds for it to arrive, seconds until the answer.

    sync_deadline_s: seconds until the answer if the request is lip sync.
    """

    body_bytes: int
    body_timeout_s: float
    deadline_s: float
    sync_deadline_s: float


def limits_of(headers: Mapping[str, str], settings: Settings, *, is_streamed: bool = False) -> RequestLimits:
    """Return the limits of a request: higher ones if SageMaker marks it as asynchronous, or the answer is streamed.

    On SageMaker only the platform reaches the container, and it bounds real-time calls itself, whatever their
    headers. Elsewhere anyone can send this header, and could occupy a worker for an hour and a gigabyte of disk.
    """
    deadline_s, sync_deadline_s = deadlines_of(headers, settings, is_streamed=is_streamed)
    if is_asynchronous(headers, settings):
        return RequestLimits(MAX_ASYNC_BODY_BYTES, ASYNC_DEADLINE_S, deadline_s, sync_deadline_s)
    return RequestLimits(MAX_BODY_BYTES, BODY_TIMEOUT_S, deadline_s, sync_deadline_s)


class BodyQuota:
    """Bounds on the request bodies of one server: how many arrive at once, and how many bytes lie on its disk."""

    def __init__(self, max_bodies: int, max_bytes: int) -> None:
        self._by_client = ClientCounter()
        self._max_bodies, self._max_bytes = max_bodies, max_bytes
        self.n_arriving = 0
        self.n_bytes = 0  # of the bodies on disk, and those that callers have announced

    @contextlib.contextmanager
    def arriving(self, client: str | None) -> Iterator[None]:
        """Count one body that arrives.

        client: that sends it, which may send half of all; None if any number of callers may be behind it.
        Raises: Overloaded if too many arrive already.
        """
        if self.n_arriving >= self._max_bodies:
            raise Overloaded(f"{self.n_arriving} bodies are arriving already; try again in a few seconds")
        share = None if client is None else max(self._max_bodies // 2, 1)
        with self._by_client.opened(client or "", share, "uploads"):
            self.n_arriving += 1
            try:
                yield
            finally:
                self.n_arriving -= 1

    def occupy(self, n_bytes: int) -> None:
        """Count bytes on disk. Raises: Overloaded if they do not fit."""
        if self.n_bytes + n_bytes > self._max_bytes:
            raise Overloaded(
                f"the bodies on disk have {self.n_bytes} bytes, at most {self._max_bytes}; try again later"
            )
        self.n_bytes += n_bytes

    def release(self, n_bytes: int) -> None:
        self.n_bytes -= n_bytes


@asynccontextmanager
async def body_on_disk(
    request: Request, limits: RequestLimits, quota: BodyQuota, client: str | None = None
) -> AsyncIterator[Path]:
    """Yield the body as a file that is deleted afterwards. client: see `BodyQuota.arriving`.

    Raises: MediaTooLarge if it is over the limit, whatever it declares; Canceled if the caller disconnects,
    BodyTimeout if it arrives too slowly, Overloaded if the disk is full, or the quota is used up.
    """
    n_declared = check_content_length(request, limits.body_bytes)
    with contextlib.ExitStack() as stack:
        try:
            with quota.arriving(client):
                folder = stack.enter_context(locked_folder("viseme-body-"))
                path = folder / "body"
                # Closed inside this block as well: closing flushes again what a full disk rejected, and fails again.
                with path.open("xb") as file:
                    body = BodyWriter(file, limits, quota, n_declared, stack)
                    await body.write(request)
        except OSError as err:
            raise Overloaded("the server has no disk space for the body; try again later") from err
        yield path


class BodyWriter:
    """Writes one body to a file, in few large writes: callers may send it in chunks of one byte."""

    def __init__(
        self, file: IO[bytes], limits: RequestLimits, quota: BodyQuota, n_declared: int, stack: contextlib.ExitStack
    ) -> None:
        """Occupy the declared bytes; stack: releases them. Raises: Overloaded."""
        self._file, self._limits, self._quota = file, limits, quota
        self._buffer = bytearray()
        self._n_bytes = self._n_occupied = 0
        stack.callback(lambda: quota.release(self._n_occupied))
        self._occupy(n_declared)

    async def write(self, request: Request) -> None:
        """Write the body. Raises: MediaTooLarge, Canceled, BodyTimeout, Overloaded; OSError if the disk is full."""
        now = asyncio.get_running_loop().time()
        deadline = now + self._limits.body_timeout_s
        try:
            async with asyncio.timeout_at(min(now + BODY_GRACE_S, deadline)) as timeout:
                await self._write_at_rate(request, deadline, timeout)
        except ClientDisconnect as err:
            raise Canceled("the caller disconnected while the body was read") from err
        except TimeoutError as err:
            raise BodyTimeout(self._describe_delay(deadline)) from err

    async def _write_at_rate(self, request: Request, deadline: float, timeout: asyncio.Timeout) -> None:
        """Write the body. The timeout is moved on with every `MIN_BODY_BYTES`, as far as the deadline."""
        loop = asyncio.get_running_loop()
        n_due = MIN_BODY_BYTES
        async for chunk in request.stream():
            self._n_bytes += len(chunk)
            if self._n_bytes > self._limits.body_bytes:
                raise MediaTooLarge(f"the body is over the limit of {self._limits.body_bytes} bytes")
            self._occupy(self._n_bytes)
            self._buffer += chunk
            is_full = len(self._buffer) >= WRITE_BYTES
            if is_full:
                timeout.reschedule(deadline)  # a slow disk is no fault of the caller's
                await self._flush()
            if is_full or self._n_bytes >= n_due:
                n_due = self._n_bytes + MIN_BODY_BYTES
                timeout.reschedule(min(loop.time() + BODY_GRACE_S, deadline))
        timeout.reschedule(deadline)
        await self._flush()

    async def _flush(self) -> None:
        written, self._buffer = self._buffer, bytearray()
        await asyncio.to_thread(self._file.write, written)

    def _occupy(self, n_bytes: int) -> None:
        """Occupy this many bytes in total. Raises: Overloaded."""
        if n_bytes > self._n_occupied:
            self._quota.occupy(n_bytes - self._n_occupied)
            self._n_occupied = n_bytes

    def _describe_delay(self, deadline: float) -> str:
        if asyncio.get_running_loop().time() >= deadline:
            return f"the body did not arrive within {self._limits.body_timeout_s:g} s"
        return f"the body arrives too slowly: under {MIN_BODY_BYTES} bytes in {BODY_GRACE_S:g} s"


async def read_small_body(request: Request, max_bytes: int) -> bytes:
    """Return a body of few kilobytes.

    Raises: MediaTooLarge if it is over the limit, Canceled if the caller disconnects, BodyTimeout if it is slow.
    """
    check_content_length(request, max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_GRACE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise MediaTooLarge(f"the body is over the limit of {max_bytes} bytes")
    except ClientDisconnect as err:
        raise Canceled("the caller disconnected while the body was read") from err
    except TimeoutError as err:
        raise BodyTimeout(f"the body did not arrive within {BODY_GRACE_S:g} s") from err
    return bytes(body)


def check_content_length(request: Request, max_bytes: int) -> int:
    """Return the declared length, 0 if there is none.

    Raises: InvalidRequest if it is not a number, MediaTooLarge if it is over the limit.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise InvalidRequest(f"content-length {declared!r}: expected a number")
    if int(declared) > max_bytes:
        raise MediaTooLarge(f"the body has {declared} bytes; at most {max_bytes} expected")
    return int(declared)
