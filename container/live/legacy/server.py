"""The server of older clients: each frame is requested by number, in JSON or in binary, on one connection."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from container.http.pacing import Pacer
from container.live.avatar_cache import AvatarCache
from container.live.legacy.messages import (
    MAX_AUDIO_BYTES,
    MAX_FRAME_ID,
    FrameRequest,
    pack_error,
    pack_response,
    pack_video_frame,
    parse_request,
)
from container.live.legacy.single_frames import (
    LEGACY_SAMPLE_RATE,
    VIDEO_TYPES,
    LatencyByAvatar,
    NumberedFrame,
    encode_video_frame,
    render_frame_with_audio,
)
from container.live.transport import transport_of
from inference.error_responses import Failure, failure_of
from inference.errors import InvalidRequest, Overloaded
from inference.requests.body import decode_base64, load_object

logger = logging.getLogger("viseme.live")
# Messages a second of one client, which may be a proxy with dozens of avatars: more would leave no time for others.
MESSAGE_RATE = 2000.0
BROADCAST_INTERVAL_S = 5.0
# Without a message, though pings are answered. Older clients ask for each frame, and connect again.
IDLE_TIMEOUT_S = 1800.0
GOING_AWAY = 1001  # close code: https://www.iana.org/assignments/websocket
MAX_SAMPLE_RATE = 192_000  # Hz
MAX_JSON_CHARS = 2 << 20  # the longest audio in base64, and some room
Handler = Callable[[dict[str, Any], str], Awaitable[str | bytes]]  # takes the fields of a request, and the client


@dataclass(frozen=True)
class LegacyProtocol:
    """The differences between the older servers.

    name: of `protocol` in responses. binary_ack: the response to `switch_to_binary`.
    broadcasts_stats: whether the server sends statistics unprompted.
    """

    name: str
    binary_ack: dict[str, Any]
    broadcasts_stats: bool = True


MINIMAL = LegacyProtocol(
    "json_fallback",
    {
        "type": "protocol_info",
        "binary_supported": True,
        "binary_protocol_version": "1.0",
        "message": "Binary protocol available",
    },
)
OPTIMIZED = LegacyProtocol("json_optimized", MINIMAL.binary_ack)
PROXY = LegacyProtocol("json", {"type": "protocol_ack", "message": "Binary protocol supported"}, broadcasts_stats=False)


class LegacyServer:
    """Serves all older clients, and counts their requests."""

    def __init__(self, avatars: AvatarCache, latencies: LatencyByAvatar, stall_timeout_s: float) -> None:
        """stall_timeout_s: a client that reads nothing for this long is disconnected."""
        self._avatars, self._latencies, self._stall_timeout_s = avatars, latencies, stall_timeout_s
        self._pacer = Pacer(rate=MESSAGE_RATE, burst=MESSAGE_RATE)
        self._connections: set[LegacyConnection] = set()
        self.n_json, self.n_binary, self.n_failed, self._total_ms = 0, 0, 0, 0.0
        self._handlers: dict[str, Handler] = {
            "get_models": self._get_models,
            "get_model_stats": self._get_model_stats,
            "list_models": self._list_models,
            "get_metadata": self._get_metadata,
            "get_video_frame": self._get_video_frame,
        }

    @property
    def n_requests(self) -> int:
        return self.n_json + self.n_binary

    async def serve(self, socket: WebSocket, protocol: LegacyProtocol, client: str) -> None:
        """Serve an accepted connection until it ends. Each message gets one response, in order.

        client: that the connection comes from; clients take turns.
        """
        connection = LegacyConnection(socket, protocol, self._stall_timeout_s)
        self._connections.add(connection)
        try:
            while (message := await connection.receive(IDLE_TIMEOUT_S)) is not None:
                await self._pacer.wait(client)
                if isinstance(message, bytes):
                    await connection.send(await self._handle_binary(message, client))
                else:
                    await connection.send(await self._handle_json(message, protocol, client))
        except WebSocketDisconnect:
            return
        except Overloaded as err:
            logger.info("an older client that sends too much was disconnected", extra={"reason": str(err)})
            connection.abort()
        except TimeoutError:
            logger.info("an older client that reads nothing was disconnected")
            connection.abort()
        finally:
            self._connections.discard(connection)

    async def broadcast(self) -> None:
        """Send the statistics to all clients regularly, until canceled, as the older servers did."""
        while True:
            await asyncio.sleep(BROADCAST_INTERVAL_S)
            if self.n_requests:
                text = json.dumps(self.stats())
                ready = [one for one in self._connections if one.protocol.broadcasts_stats and one.can_send_now]
                for connection in ready:
                    try:
                        await connection.send(text)
                    except (WebSocketDisconnect, TimeoutError):
                        connection.abort()

    def stats(self) -> dict[str, Any]:
        return {
            "type": "stats",
            "total_requests": self.n_requests,
            "binary_requests": self.n_binary,
            "json_requests": self.n_json,
            "binary_percentage": 100 * self.n_binary / max(self.n_requests, 1),
            "average_time_ms": self._total_ms / max(self.n_requests, 1),
            "connected_clients": len(self._connections),
        }

    async def _handle_binary(self, message: bytes, client: str) -> bytes:
        started = time.perf_counter()
        self.n_binary += 1
        try:
            request = parse_request(message)
            frame = await self._render(request, LEGACY_SAMPLE_RATE, client)
        except Exception as err:  # noqa: BLE001 - the edge
            return pack_error(ms_since(started), self._record_failure(err).message)
        took_ms = self._record(request.model_name, frame, started)
        return pack_response(request.frame_id, took_ms, pad_jpeg(frame.jpeg), frame.bounds)

    async def _handle_json(self, text: str, protocol: LegacyProtocol, client: str) -> str | bytes:
        started = time.perf_counter()
        self.n_json += 1
        common = {"request_id": self.n_requests, "protocol": protocol.name}
        fields: dict[str, Any] = {}
        try:
            fields = parse_json(text)
            kind = fields.get("type") or "inference"
            if kind in ("switch_to_binary", "test_binary"):
                return json.dumps(protocol.binary_ack)
            if kind == "get_stats":
                return json.dumps(self.stats())
            if kind == "inference":
                return await self._infer(fields, started, common, client)
            return await self._handler_of(kind)(fields, client)
        except Exception as err:  # noqa: BLE001 - the edge
            failure = self._record_failure(err)
            return json_error(fields, failure, common | {"processing_time_ms": ms_since(started)})

    def _handler_of(self, kind: object) -> Handler:
        if not isinstance(kind, str) or kind not in self._handlers:
            raise InvalidRequest(f"Unknown message type: {str(kind)[:40]}")
        return self._handlers[kind]

    async def _infer(self, fields: dict[str, Any], started: float, common: dict[str, Any], client: str) -> str:
        request, sample_rate = parse_json_request(fields), fields.get("sample_rate", LEGACY_SAMPLE_RATE)
        frame = await self._render(request, sample_rate, client)
        took_ms = self._record(request.model_name, frame, started)
        times = {
            "prepare_time_ms": frame.prepare_ms,
            "inference_time_ms": frame.infer_ms,
            "composite_time_ms": frame.compose_ms,
        }
        response = {
            "success": True,
            "model_name": request.model_name,
            "frame_id": request.frame_id,
            "prediction_data": base64.b64encode(frame.jpeg).decode(),
            "prediction_shape": "x".join(map(str, frame.shape)),
            "bounds": frame.bounds,
            "processing_time_ms": took_ms,
            "metadata": {"audio": frame.audio_source} | times,
        }
        return json.dumps(response | times | common)

    async def _render(self, request: FrameRequest, sample_rate: int, client: str) -> NumberedFrame:
        async with self._avatars.acquire(request.model_name) as package:
            return await self._avatars.run_single_frame(
                client, render_frame_with_audio, package, request.frame_id, request.audio, sample_rate
            )

    async def _get_models(self, _fields: dict[str, Any], _client: str) -> str:
        names = [info.name for info in await self._avatars.list_packages()]
        return json.dumps({"type": "models", "models": {"loaded_models": names, "count": len(names)}})

    async def _list_models(self, _fields: dict[str, Any], _client: str) -> str:
        names = [info.name for info in await self._avatars.list_packages()]
        return json.dumps({"type": "model_list", "models": names, "count": len(names)})

    async def _get_model_stats(self, fields: dict[str, Any], _client: str) -> str:
        name = parse_name(fields)
        async with self._avatars.acquire(name) as package:
            n_frames = package.n_frames
        latency = self._latencies.get(name)
        stats = {
            "model_name": name,
            "total_requests": latency.n_requests,
            "avg_inference_time_ms": latency.mean_ms,
            "min_inference_time_ms": latency.min_ms,
            "max_inference_time_ms": latency.max_ms,
            "frame_count": n_frames,
        }
        return json.dumps({"type": "model_stats", "stats": stats})

    async def _get_metadata(self, fields: dict[str, Any], _client: str) -> str:
        name = parse_name(fields)
        async with self._avatars.acquire(name) as package:
            box = package.box(0)
            metadata = {
                "type": "metadata",
                "success": True,
                "model_name": name,
                "frame_count": package.n_frames,
                "available_videos": VIDEO_TYPES,
                "audio_path": "",  # packages contain audio features, but no audio
                "bounds": [box.left, box.top, box.right, box.bottom],
            }
        return json.dumps(metadata)

    async def _get_video_frame(self, fields: dict[str, Any], client: str) -> bytes:
        name, frame_id = parse_name(fields), parse_frame_id(fields)
        video_type = fields.get("video_type") or "full_body"
        async with self._avatars.acquire(name) as package:
            jpeg = await self._avatars.run_single_frame(client, encode_video_frame, package, frame_id, str(video_type))
        return pack_video_frame(frame_id, str(video_type), jpeg)

    def _record(self, name: str, frame: NumberedFrame, started: float) -> float:
        """Count a request, and return how long it took in milliseconds."""
        took_ms = ms_since(started)
        self._total_ms += took_ms
        self._latencies.add(name, frame.infer_ms)
        return took_ms

    def _record_failure(self, err: Exception) -> Failure:
        self.n_failed += 1
        failure = failure_of(err)
        if failure.code == "internal_error":
            logger.error("unexpected error", exc_info=err)
        return failure


class LegacyConnection:
    """One connection. Responses and broadcasts are sent one at a time."""

    def __init__(self, socket: WebSocket, protocol: LegacyProtocol, stall_timeout_s: float) -> None:
        self.protocol = protocol
        self._socket, self._stall_timeout_s = socket, stall_timeout_s
        self._transport = transport_of(socket)
        self._sending = asyncio.Lock()

    @property
    def can_send_now(self) -> bool:
        """Whether a message would be sent at once."""
        return not self._sending.locked() and (self._transport is None or self._transport.is_writable)

    async def receive(self, timeout_s: float) -> str | bytes | None:
        """Return the next message, or None if the connection is closed, also because none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._socket.receive()
        except TimeoutError:
            logger.info("an older client that sends nothing was disconnected")
            await self._close_idle(f"no message for {timeout_s:g} s")
            return None
        if message["type"] == "websocket.disconnect":
            return None
        content: bytes | None = message.get("bytes")
        return str(message["text"]) if content is None else content

    async def _close_idle(self, reason: str) -> None:
        async with self._sending, asyncio.timeout(self._stall_timeout_s):
            await self._socket.close(GOING_AWAY, reason)

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises: TimeoutError if the client reads nothing, WebSocketDisconnect if it is gone."""
        async with self._sending:
            if self._transport is None or not self._transport.is_writable:
                async with asyncio.timeout(self._stall_timeout_s):
                    await self._send(message)
            else:  # sent at once, so no timeout is needed
                await self._send(message)

    async def _send(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._socket.send_bytes(message)
        else:
            await self._socket.send_text(message)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def json_error(fields: dict[str, Any], failure: Failure, common: dict[str, Any]) -> str:
    """Return an error response. As in the older servers, its type is that of the response to the same request."""
    types = {
        "list_models": "model_list",
        "get_models": "models",
        "get_model_stats": "model_stats",
        "get_metadata": "metadata",
        "get_video_frame": "video_frame",
    }
    kind = fields.get("type") or "inference"
    response = {"success": False, "error": failure.message, "code": failure.code} | common
    if kind != "inference":
        response["type"] = types.get(kind, "error") if isinstance(kind, str) else "error"
    echoed = {key: fields[key] for key in ("model_name", "frame_id") if is_echoable(fields.get(key))}
    return json.dumps(response | echoed)


def parse_json(text: str) -> dict[str, Any]:
    """Decode a JSON message. Raises: InvalidRequest if it is too long or not an object."""
    if len(text) > MAX_JSON_CHARS:
        raise InvalidRequest(f"a message of {len(text)} characters; expected at most {MAX_JSON_CHARS}")
    return load_object(text, "text message")


def parse_json_request(fields: dict[str, Any]) -> FrameRequest:
    """Read a frame request from a JSON object. Raises: InvalidRequest that names the invalid key."""
    sample_rate = fields.get("sample_rate", LEGACY_SAMPLE_RATE)
    if not isinstance(sample_rate, int) or isinstance(sample_rate, bool) or not 0 < sample_rate <= MAX_SAMPLE_RATE:
        raise InvalidRequest(f"sample_rate {str(sample_rate)[:40]!r}: expected 1 to {MAX_SAMPLE_RATE} Hz")
    return FrameRequest(parse_name(fields), parse_frame_id(fields), parse_audio(fields.get("audio_override")))


def parse_name(fields: dict[str, Any]) -> str:
    """Read `model_name`. Raises: InvalidRequest."""
    name = fields.get("model_name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"model_name {str(name)[:40]!r}: expected the name of an avatar")
    return name


def parse_frame_id(fields: dict[str, Any]) -> int:
    """Read `frame_id`. Raises: InvalidRequest."""
    frame_id = fields.get("frame_id", 0)
    if not isinstance(frame_id, int) or isinstance(frame_id, bool) or not 0 <= frame_id <= MAX_FRAME_ID:
        raise InvalidRequest(f"frame_id {str(frame_id)[:40]!r}: expected an integer of at least 0")
    return frame_id


def parse_audio(encoded: object) -> bytes | None:
    """Decode `audio_override`, or return None if it is empty. Raises: InvalidRequest."""
    if encoded is None or encoded == "":
        return None
    if not isinstance(encoded, str):
        raise InvalidRequest(f"audio_override of type {type(encoded).__name__}: expected base64")
    if len(encoded) > MAX_AUDIO_BYTES * 4 // 3 + 4:
        raise InvalidRequest(
            f"audio_override of {len(encoded)} characters: expected the base64 of at most {MAX_AUDIO_BYTES} bytes"
        )
    return decode_base64(encoded, "audio_override")


def pad_jpeg(jpeg: bytes) -> bytes:
    """Append zero bytes so that the bounds after the JPEG are 4-byte aligned.

    One browser client maps the bounds in place as float32. Decoders ignore the padding.
    """
    return jpeg + bytes(-(len(jpeg) + 17) % 4)


def is_echoable(value: object) -> bool:
    """Return whether a value of the request may be repeated in the response: an integer or a short string."""
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= 255)


def ms_since(started: float) -> float:
    """Return the milliseconds since a `time.perf_counter` value."""
    return (time.perf_counter() - started) * 1000
