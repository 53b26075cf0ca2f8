"""SageMaker Runtime's HTTP/2 API in front of a local container: a stand-in for AWS, run in an environment of its own.

Source: the operation InvokeEndpointWithBidirectionalStream in AWS's HTTP/2 SDK (path, headers, events, errors), whose
own code decodes the requests' events and encodes the responses'; for the container's side (WebSocket messages, text or
binary, and a query string) AWS's developer guide on bidirectional streaming. Messages are split into parts, which the
real service may do.

Usage: python sagemaker_http2.py CERT KEY CONTAINER_URL; prints its port, then one JSON line for each event received.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import traceback
from contextlib import suppress
from io import BytesIO

import h2.config
import h2.connection
import h2.events
import websockets
from smithy_aws_event_stream.events import Event, EventMessage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

PATH = "/invocations-bidirectional-stream"
PART_BYTES = 4096
SIGNED = "STREAMING-AWS4-HMAC-SHA256-EVENTS"


class Http2Connection(asyncio.Protocol):
    """One connection of a caller."""

    def __init__(self, container_url: str) -> None:
        self._container_url = container_url
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._streams: dict[int, asyncio.Queue[bytes | None]] = {}
        self._window = asyncio.Event()
        self._is_lost = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_lost = True
        self._window.set()
        for received in self._streams.values():
            received.put_nowait(None)

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._streams[event.stream_id] = asyncio.Queue()
                task = asyncio.create_task(self._serve(event.stream_id, dict(event.headers)))
                task.add_done_callback(self._check)
                self._tasks.add(task)
            elif isinstance(event, h2.events.DataReceived):
                self._streams[event.stream_id].put_nowait(event.data)
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self._streams[event.stream_id].put_nowait(None)
            elif isinstance(event, h2.events.WindowUpdated):
                self._window.set()
        self._flush()

    def _check(self, task: asyncio.Task[None]) -> None:
        """Close the connection if serving a stream failed, so that its caller does not wait."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error)
            self._transport.close()

    def _flush(self) -> None:
        self._transport.write(self._http.data_to_send())

    async def _serve(self, stream_id: int, headers: dict[str, str]) -> None:
        _, folder, name, action = headers[":path"].rstrip("?").split("/")
        assert (folder, action) == ("endpoints", PATH.strip("/")), headers[":path"]
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=")
        assert headers["x-amz-content-sha256"] == SIGNED
        if name == "broken":
            await self._respond(stream_id, 500, "InternalServerError", {"Message": "try again"})
            return
        query = headers.get("x-amzn-sagemaker-model-query-string", "")
        try:
            async with connect(f"{self._container_url}{PATH}?{query}", max_size=None, proxy=None) as socket:
                self._start(stream_id, 200, "application/vnd.amazon.eventstream")
                to_container = asyncio.create_task(self._pass_requests(stream_id, socket))
                with suppress(ConnectionClosedError):  # the container's error was passed on before
                    await self._pass_responses(stream_id, socket)
                to_container.cancel()
                self._end(stream_id)
        except InvalidStatus as err:
            original = err.response.body.decode()
            fields = {"OriginalStatusCode": err.response.status_code, "OriginalMessage": original}
            await self._respond(stream_id, 424, "ModelError", {"Message": "the model answered with an error"} | fields)

    async def _pass_requests(self, stream_id: int, socket: websockets.ClientConnection) -> None:
        buffered = b""
        while (data := await self._streams[stream_id].get()) is not None:
            buffered += data
            while len(buffered) >= 4 and len(buffered) >= (n := int.from_bytes(buffered[:4], "big")):
                await self._pass_request(buffered[:n], socket)
                buffered = buffered[n:]
        await socket.close()

    async def _pass_request(self, encoded: bytes, socket: websockets.ClientConnection) -> None:
        """Send what a signed event contains: an event of its own, or nothing at the end of the stream."""
        signed = decode(encoded)
        assert {":date", ":chunk-signature"} <= set(signed.headers)
        if not signed.payload:
            return
        event = decode(signed.payload)
        kinds = {name: event.headers[name] for name in (":message-type", ":event-type", "DataType", "CompletionState")}
        print(json.dumps(kinds | {"n_bytes": len(event.payload)}), flush=True)
        await socket.send(event.payload.decode() if kinds["DataType"] == "UTF8" else event.payload)

    async def _pass_responses(self, stream_id: int, socket: websockets.ClientConnection) -> None:
        async for message in socket:
            is_text = isinstance(message, str)
            error = json.loads(message).get("ModelStreamError") if is_text else None
            if error is not None:
                await self._send(stream_id, exception_event("ModelStreamError", error))
                continue
            content = message.encode() if is_text else message
            for start in range(0, len(content), PART_BYTES):
                end = start + PART_BYTES
                state = "PARTIAL" if end < len(content) else "COMPLETE"
                await self._send(stream_id, payload_event(content[start:end], "UTF8" if is_text else "BINARY", state))

    def _end(self, stream_id: int) -> None:
        if not self._is_lost:
            self._http.end_stream(stream_id)
            self._flush()

    def _start(self, stream_id: int, status: int, content_type: str, **more: str) -> None:
        headers = [(":status", str(status)), ("content-type", content_type), *more.items()]
        self._http.send_headers(stream_id, headers)
        self._flush()

    async def _respond(self, stream_id: int, status: int, error: str, fields: dict[str, object]) -> None:
        self._start(stream_id, status, "application/json", **{"x-amzn-errortype": error})
        await self._send(stream_id, json.dumps(fields).encode())
        self._end(stream_id)

    async def _send(self, stream_id: int, data: bytes) -> None:
        while data and not self._is_lost:
            size = min(self._http.local_flow_control_window(stream_id), self._http.max_outbound_frame_size)
            if size <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            self._http.send_data(stream_id, data[:size])
            self._flush()
            data = data[size:]


def decode(encoded: bytes) -> EventMessage:
    event = Event.decode(BytesIO(encoded))
    assert event is not None
    return event.message


def payload_event(content: bytes, data_type: str, state: str) -> bytes:
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    return EventMessage(headers=headers | {"DataType": data_type, "CompletionState": state}, payload=content).encode()


def exception_event(name: str, fields: dict[str, str]) -> bytes:
    headers = {":message-type": "exception", ":exception-type": name, ":content-type": "application/json"}
    return EventMessage(headers=headers, payload=json.dumps(fields).encode()).encode()


async def serve(cert: str, key: str, container_url: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http2Connection(container_url), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
