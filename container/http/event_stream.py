"""AWS's event streams (`application/vnd.amazon.eventstream`), in which SageMaker Runtime sends streamed answers.

A message is, in big-endian:

    u32 length | u32 length of the headers | u32 CRC of these | headers | payload | u32 CRC of all before

and a header: u8 length of its name | name | u8 type (7: text) | u16 length | text. Source of the form: botocore's
`eventstream.py`, which decodes it; of names and error codes: the operation InvokeEndpointWithResponseStream in
botocore's service model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from container.http.responses import CLOSE_EXTENSION, StreamAborted, close_connection

logger = logging.getLogger("viseme.http")
EVENT_STREAM = "application/vnd.amazon.eventstream"
UINT32 = struct.Struct(">I")
LENGTHS = struct.Struct(">II")
TEXT_TYPE = 7  # of a header's value
TIME_EXCEEDED, STREAM_BROKEN = "ModelInvocationTimeExceeded", "StreamBroken"
LAST_EVENT_TIMEOUT_S = 1.0  # for the error that ends a stream: its reader may be the reason
ACCEPT_HEADER = b"x-amzn-sagemaker-accept"
CONTENT_TYPE_HEADER = "X-Amzn-SageMaker-Content-Type"


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode one message of an event stream."""
    encoded = b"".join(encode_header(name, value) for name, value in headers.items())
    n_bytes = LENGTHS.size + UINT32.size + len(encoded) + len(payload) + UINT32.size
    lengths = LENGTHS.pack(n_bytes, len(encoded))
    message = b"".join((lengths, UINT32.pack(zlib.crc32(lengths)), encoded, payload))
    return message + UINT32.pack(zlib.crc32(message))


def encode_header(name: str, value: str) -> bytes:
    name_bytes, value_bytes = name.encode(), value.encode()
    return struct.pack(
        f">B{len(name_bytes)}sBH{len(value_bytes)}s",
        len(name_bytes),
        name_bytes,
        TEXT_TYPE,
        len(value_bytes),
        value_bytes,
    )


def encode_part(payload: bytes) -> bytes:
    """Encode a PayloadPart: bytes of the container's answer."""
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    return encode_message(headers, payload)


def encode_exception(name: str, fields: Mapping[str, str]) -> bytes:
    """Encode an error that ends a stream: ModelStreamError or InternalStreamFailure."""
    headers = {":message-type": "exception", ":exception-type": name, ":content-type": "application/json"}
    return encode_message(headers, json.dumps(fields).encode())


def encode_model_stream_error(code: str, message: str) -> bytes:
    return encode_exception("ModelStreamError", {"Message": message, "ErrorCode": code})


def accept_of_stream(request: Request) -> Request:
    """Return a streaming call with the caller's Accept header where the container gets it.

    InvokeEndpointWithResponseStream sends it as X-Amzn-SageMaker-Accept; Accept is then the SDK's own.
    """
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"accept"]
    renamed = [(b"accept" if name == ACCEPT_HEADER else name, value) for name, value in headers]
    return Request({**request.scope, "headers": renamed}, request.receive)


class EventStreamResponse(Response):
    """A container's response as SageMaker Runtime passes it on: each piece of the body as an event.

    The status is sent before the container's answer is complete. If it breaks off, the last event is an error.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status_code, self.background = response.status_code, None
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        framing = EventFraming(send)
        try:
            await self._response(without_close(scope), receive, framing.send)
        except StreamAborted as err:  # its failure is logged
            error = encode_model_stream_error(STREAM_BROKEN, f"the model ended the stream: {err}")
        else:
            if framing.is_complete:
                return
            error = encode_model_stream_error(TIME_EXCEEDED, "the model did not finish its answer in time")
        try:
            async with asyncio.timeout(LAST_EVENT_TIMEOUT_S):
                await send({"type": "http.response.body", "body": error, "more_body": False})
        except TimeoutError:
            logger.info("the caller of a stream did not read its end")
            await close_connection(scope, receive)


def without_close(scope: Scope) -> Scope:
    """Return the scope for a response that must leave the connection open if it breaks off."""
    extensions = {name: value for name, value in scope.get("extensions", {}).items() if name != CLOSE_EXTENSION}
    return {**scope, "extensions": extensions}


class EventFraming:
    """Frames the messages of a response. is_complete: whether the last piece of its body was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = framed_headers(Headers(raw=message["headers"]))
            await self._send({**message, "headers": headers.raw})
            return
        body = message.get("body", b"")
        await self._send({**message, "body": encode_part(body) if body else b""})
        self.is_complete = not message.get("more_body", False)


def framed_headers(headers: Headers) -> MutableHeaders:
    """Return the headers of the event stream around a response."""
    framed = MutableHeaders(raw=list(headers.raw))
    framed[CONTENT_TYPE_HEADER] = headers["content-type"]
    framed["content-type"] = EVENT_STREAM
    del framed["content-length"]  # if there is one
    return framed
