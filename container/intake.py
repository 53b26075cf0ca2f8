"""Request bodies: bounded while they arrive, and kept on disk so that memory holds none of them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.errors import Canceled, DeadlineExceeded, InvalidRequest, MediaTooLarge, Overloaded
from inference.settings import Settings

MAX_BODY = 25 << 20  # bytes; SageMaker's limit for a real-time request
MAX_ASYNC_BODY = 1 << 30  # for an asynchronous one
ASYNC_HEADER = "x-amzn-sagemaker-inference-id"
ASYNC_DEADLINE_S = 3600.0
BODY_S = 30.0  # for a body to arrive: a caller that dawdles holds a place that others need
DISCARD_S = 10.0  # for the rest of a body that is refused


@dataclass(frozen=True)
class RequestLimits:
    """What one request may take: bytes of its body, seconds for that to arrive, seconds to be answered.

    sync_s: to be answered where it is lip sync.
    """

    body_bytes: int
    body_s: float
    deadline_s: float
    sync_s: float


def limits_of(headers: Mapping[str, str], settings: Settings) -> RequestLimits:
    """An asynchronous request's limits where SageMaker says that it is one; else the usual ones.

    On SageMaker nobody but the platform reaches the container, and it bounds real-time calls itself, whatever
    their headers. Elsewhere anybody can send this one, and would hold a worker for an hour and a gigabyte of
    the disk. Lip sync may take as long as its jobs do, but where SageMaker itself waits no longer, or a
    deadline was set.
    """
    if settings.on_sagemaker and ASYNC_HEADER in headers:
        return RequestLimits(MAX_ASYNC_BODY, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S, ASYNC_DEADLINE_S)
    is_set = settings.on_sagemaker or "deadline_s" in settings.model_fields_set
    sync_s = settings.deadline_s if is_set else settings.job_deadline_s
    return RequestLimits(MAX_BODY, BODY_S, settings.deadline_s, sync_s)


@asynccontextmanager
async def body_on_disk(request: Request, limits: RequestLimits) -> AsyncIterator[Path]:
    """The body as a file, gone afterwards.

    Raises: MediaTooLarge where it is larger than it may be, whatever it declares; Canceled where the
    caller goes away, DeadlineExceeded where it dawdles, Overloaded where the disk is full.
    """
    check_declared(request, limits.body_bytes)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="viseme-body-"))
            path = Path(folder, "body")
            # Closed in here, too: what a full disk did not take is written once more then, and fails again.
            with path.open("xb") as file:
                await write_body(request, file, limits)
        except OSError as err:
            raise Overloaded("the server has no room for the body; try again later") from err
        yield path


async def write_body(request: Request, file: IO[bytes], limits: RequestLimits) -> None:
    """Raises: MediaTooLarge, Canceled, DeadlineExceeded; OSError where the disk is full."""
    n_bytes = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if n_bytes > limits.body_bytes:
                    raise MediaTooLarge(f"the body is over {limits.body_bytes} bytes; that is the limit")
                file.write(chunk)
    except ClientDisconnect as err:
        raise Canceled("the caller went away while the body was read") from err
    except TimeoutError as err:
        raise DeadlineExceeded(f"the body did not arrive within {limits.body_s:g} s") from err


def check_declared(request: Request, most: int) -> None:
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise InvalidRequest(f"content-length {declared!r}: expected a number")
    if int(declared) > most:
        raise MediaTooLarge(f"the body is of {declared} bytes; at most {most} expected")


class ClosingResponse(Response):
    """A refusal to a caller whose body does not come: the connection ends with it, and nobody waits for more."""

    def __init__(self, content: bytes, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(content, status_code, dict(headers) | {"connection": "close"})


class UnreadBodyResponse(Response):
    """A refusal sent while the body is still coming: the rest of it is taken and thrown away.

    To close at once would reset the connection, and the caller would lose the answer with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "100-continue" in Request(scope).headers.get("expect", ""):
            await super().__call__(scope, receive, send)  # the caller sends no body before it is told to
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                await discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def discard(receive: Receive) -> None:
    n_bytes = 0
    while n_bytes <= MAX_BODY:
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
