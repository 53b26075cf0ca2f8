"""Responses that release what their request holds, or that are sent before its whole body has arrived."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from container.http.answers import AnswerQuota
from container.http.request_body import MAX_BODY_BYTES
from inference.error_responses import failure_of
from inference.errors import Canceled, DeadlineExceeded
from inference.requests.deadlines import ASYNC_HEADER

logger = logging.getLogger("viseme.http")
DISCARD_TIMEOUT_S = 10.0  # seconds for the rest of a rejected body


# Key of a function in the extensions of the ASGI scope: it closes the connection once what was sent is taken.
CLOSE_EXTENSION = "viseme.close"


class StreamAborted(Exception):
    """Ends a response whose status was sent before its failure, so that clients do not take it for complete."""


class CleanupStreamingResponse(StreamingResponse):
    """A streaming response that releases the resources of its request when it ends.

    It does so even if the caller disconnects before the first chunk, or stays connected without reading.
    deadline: when it is aborted, on the clock of `time.monotonic`, which is the event loop's; `quota` may abort it
    earlier.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes],
        resources: contextlib.AsyncExitStack,
        deadline: float,
        quota: AnswerQuota,
        **kwargs: Any,
    ) -> None:
        super().__init__(chunks, **kwargs)
        self._chunks, self._resources, self._deadline, self._quota = chunks, resources, deadline, quota
        self._request_id = self.headers["x-request-id"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with (
                self._resources,
                contextlib.aclosing(self._chunks),
                asyncio.timeout_at(self._deadline) as timeout,
            ):
                with self._quota.sending(timeout) as answer:
                    await super().__call__(scope, receive, answer.observe(send))
        except TimeoutError:  # not re-raised: any caller could fill the log with tracebacks
            logger.warning("a stream was aborted: it was not read in time", extra={"request_id": self._request_id})
            await close_connection(scope, receive)
        except StreamAborted:  # neither, as its failure is logged
            if not await close_connection(scope, receive):
                raise


async def close_connection(scope: Scope, receive: Receive) -> bool:
    """Close the connection after an incomplete response; return False if the server has no way to.

    A server would log a response that just ends, with a traceback if it ends with an exception.
    """
    close = scope.get("extensions", {}).get(CLOSE_EXTENSION, {}).get("close")
    if close is None:
        return False
    close()
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


class ClosingResponse(Response):
    """An error response to a caller whose body does not arrive: it closes the connection."""

    def __init__(self, content: bytes, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(content, status_code, dict(headers) | {"connection": "close"})


class UnreadBodyResponse(Response):
    """An error response sent while the body is still arriving: the rest of the body is read and discarded.

    Closing at once would reset the connection, and the caller would lose the response with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "100-continue" in Request(scope).headers.get("expect", ""):
            # The caller sends no body before "100 Continue"; its next request must not be taken for one.
            self.headers["connection"] = "close"
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_TIMEOUT_S):
                await discard_body(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def discard_body(receive: Receive) -> None:
    """Read the rest of a body, up to its limit."""
    n_bytes = 0
    while n_bytes <= MAX_BODY_BYTES:
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


def request_id_of(connection: HTTPConnection) -> str:
    """Return the caller's request id if it is printable and short; else a new one."""
    given = connection.headers.get("x-request-id", "") or connection.headers.get(ASYNC_HEADER, "")
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else uuid.uuid4().hex


def early_response_class(err: Exception) -> type[Response]:
    """Return the class of the error response to a request whose body was not read to its end."""
    if isinstance(err, DeadlineExceeded):
        return ClosingResponse
    return Response if isinstance(err, Canceled) else UnreadBodyResponse


def http_error(err: Exception, response_class: type[Response] = Response) -> Response:
    """Return the response to an error, and log it if it is unexpected."""
    failure = failure_of(err)
    if failure.code == "internal_error":
        logger.error("unexpected error", exc_info=err)
    return response_class(failure.body(), failure.status, headers=failure.headers())


def as_model_error(response: Response) -> Response:
    """Wrap a container's error as SageMaker Runtime passes it on: status 424 with the original inside."""
    original = bytes(response.body).decode()
    body = {
        "Message": f'Received client error ({response.status_code}) from model with message "{original}".',
        "OriginalStatusCode": response.status_code,
        "OriginalMessage": original,
        "LogStreamArn": "",
    }
    headers = {"x-amzn-errortype": "ModelError", "content-type": "application/json"}
    return type(response)(json.dumps(body), 424, headers=headers | {"x-request-id": response.headers["x-request-id"]})
