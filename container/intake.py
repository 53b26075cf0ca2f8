"""Request bodies: bounded while they arrive, and kept on disk so that memory holds none of them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inference.errors import Canceled, DeadlineExceeded, InvalidRequest, MediaTooLarge, Overloaded

MAX_BODY = 25 << 20  # bytes; SageMaker's limit for a real-time request
MAX_ASYNC_BODY = 1 << 30  # for an asynchronous one
ASYNC_HEADER = "x-amzn-sagemaker-inference-id"
ASYNC_DEADLINE_S = 3600.0
BODY_S = 30.0  # for a body to arrive: a caller that dawdles holds a place that others need
DISCARD_S = 10.0  # for the rest of a body that is refused


@asynccontextmanager
async def body_on_disk(request: Request) -> AsyncIterator[Path]:
    """The body as a file, gone afterwards.

    Raises: MediaTooLarge where it is larger than it may be, whatever it declares; Canceled where the
    caller goes away, DeadlineExceeded where it dawdles, Overloaded where the disk is full.
    """
    most = MAX_ASYNC_BODY if ASYNC_HEADER in request.headers else MAX_BODY
    check_declared(request, most)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="viseme-body-"))
            await write_body(request, file, most)
        except OSError as err:
            raise Overloaded("the server has no room for the body; try again later") from err
        yield Path(file.name)


async def write_body(request: Request, file: IO[bytes], most: int) -> None:
    """Raises: MediaTooLarge, Canceled, DeadlineExceeded; OSError where the disk is full."""
    n_bytes = 0
    limit_s = ASYNC_DEADLINE_S if ASYNC_HEADER in request.headers else BODY_S
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if n_bytes > most:
                    raise MediaTooLarge(f"the body is over {most} bytes; that is the limit")
                file.write(chunk)
    except ClientDisconnect as err:
        raise Canceled("the caller went away while the body was read") from err
    except TimeoutError as err:
        raise DeadlineExceeded(f"the body did not arrive within {limit_s:.0f} s") from err
    file.flush()


def check_declared(request: Request, most: int) -> None:
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise InvalidRequest(f"content-length {declared!r}: expected a number")
    if int(declared) > most:
        raise MediaTooLarge(f"the body is of {declared} bytes; at most {most} expected")


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
