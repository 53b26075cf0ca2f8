"""Older clients: frames asked for one by one, in JSON or in the binary form, on one connection."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from container.live.avatar_cache import Avatars
from container.live.legacy.messages import (
    MAX_AUDIO,
    MAX_FRAME_ID,
    FrameRequest,
    pack_answer,
    pack_error,
    pack_video_frame,
    parse_request,
)
from container.live.legacy.single_frames import LEGACY_RATE, VIDEO_TYPES, Still, Tallies, make_still, make_video_frame
from container.live.transport import LINE, Line
from container.statuses import Failure, failure_of
from inference.errors import InvalidRequest

LOG = logging.getLogger("viseme.live")
BROADCAST_S = 5.0
MAX_RATE = 192_000  # samples a second
MAX_JSON = 2 << 20  # characters: the longest sound in base64, and room


@dataclass(frozen=True)
class Dialect:
    """In what the older servers differ. name: of `protocol` in answers. tells_stats: whether they do so unasked."""

    name: str
    binary_ack: dict[str, Any]
    tells_stats: bool = True


MINIMAL = Dialect(
    "json_fallback",
    {
        "type": "protocol_info",
        "binary_supported": True,
        "binary_protocol_version": "1.0",
        "message": "Binary protocol available",
    },
)
OPTIMIZED = Dialect("json_optimized", MINIMAL.binary_ack)
PROXY = Dialect("json", {"type": "protocol_ack", "message": "Binary protocol supported"}, tells_stats=False)


class OldClients:
    """All older clients of this server, and what they asked for."""

    def __init__(self, avatars: Avatars, tallies: Tallies, stall_s: float) -> None:
        """stall_s: after which a client that takes nothing is dropped."""
        self._avatars, self._tallies, self._stall_s = avatars, tallies, stall_s
        self._connected: set[OldClient] = set()
        self.n_json, self.n_binary, self.n_failed, self._total_ms = 0, 0, 0, 0.0
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[str | bytes]]] = {
            "get_models": self._tell_models,
            "get_model_stats": self._tell_model_stats,
            "list_models": self._list_models,
            "get_metadata": self._tell_metadata,
            "get_video_frame": self._give_video_frame,
        }

    @property
    def n_requests(self) -> int:
        return self.n_json + self.n_binary

    async def serve(self, socket: WebSocket, dialect: Dialect) -> None:
        """Answer an accepted connection until it ends. Each message gets one answer, in their order."""
        client = OldClient(socket, dialect, self._stall_s)
        self._connected.add(client)
        try:
            while (message := await client.receive()) is not None:
                if isinstance(message, bytes):
                    await client.send(await self._answer_binary(message))
                else:
                    await client.send(await self._answer_json(message, dialect))
        except WebSocketDisconnect:
            return
        except TimeoutError:
            LOG.info("an older client that takes nothing was dropped")
            client.cut()
        finally:
            self._connected.discard(client)

    async def broadcast(self) -> None:
        """Tell everybody what was asked for so far, every 5 s, until canceled."""
        while True:
            await asyncio.sleep(BROADCAST_S)
            if self.n_requests:
                told = json.dumps(self.measure())
                for client in [one for one in self._connected if one.dialect.tells_stats and one.is_free]:
                    try:
                        await client.send(told)
                    except (WebSocketDisconnect, TimeoutError):
                        client.cut()

    def measure(self) -> dict[str, Any]:
        return {
            "type": "stats",
            "total_requests": self.n_requests,
            "binary_requests": self.n_binary,
            "json_requests": self.n_json,
            "binary_percentage": 100 * self.n_binary / max(self.n_requests, 1),
            "average_time_ms": self._total_ms / max(self.n_requests, 1),
            "connected_clients": len(self._connected),
        }

    async def _answer_binary(self, message: bytes) -> bytes:
        started = time.perf_counter()
        self.n_binary += 1
        try:
            request = parse_request(message)
            still = await self._make(request, LEGACY_RATE)
        except Exception as err:  # noqa: BLE001 - the edge
            return pack_error(ms_since(started), self._fail(err).message)
        took_ms = self._account(request.model_name, still, started)
        return pack_answer(request.frame_id, took_ms, align(still.jpeg), still.bounds)

    async def _answer_json(self, text: str, dialect: Dialect) -> str | bytes:
        started = time.perf_counter()
        self.n_json += 1
        about = {"request_id": self.n_requests, "protocol": dialect.name}
        asked: dict[str, Any] = {}
        try:
            asked = parse_json(text)
            kind = asked.get("type") or "inference"
            if kind in ("switch_to_binary", "test_binary"):
                return json.dumps(dialect.binary_ack)
            if kind == "get_stats":
                return json.dumps(self.measure())
            if kind == "inference":
                return await self._infer(asked, started, about)
            return await self._handler_of(kind)(asked)
        except Exception as err:  # noqa: BLE001 - the edge
            return self._tell_failure(asked, self._fail(err), about | {"processing_time_ms": ms_since(started)})

    def _handler_of(self, kind: object) -> Callable[[dict[str, Any]], Awaitable[str | bytes]]:
        if not isinstance(kind, str) or kind not in self._handlers:
            raise InvalidRequest(f"Unknown message type: {str(kind)[:40]}")
        return self._handlers[kind]

    def _tell_failure(self, asked: dict[str, Any], failure: Failure, about: dict[str, Any]) -> str:
        """As each of the older servers does: under the type that the answer would have had."""
        types = {
            "list_models": "model_list",
            "get_models": "models",
            "get_model_stats": "model_stats",
            "get_metadata": "metadata",
            "get_video_frame": "video_frame",
        }
        kind = asked.get("type") or "inference"
        answer = {"success": False, "error": failure.message, "code": failure.code} | about
        if kind != "inference":
            answer["type"] = types.get(kind, "error") if isinstance(kind, str) else "error"
        return json.dumps(answer | {key: asked[key] for key in ("model_name", "frame_id") if is_plain(asked.get(key))})

    async def _infer(self, asked: dict[str, Any], started: float, about: dict[str, Any]) -> str:
        request, rate = read_request(asked), asked.get("sample_rate", LEGACY_RATE)
        still = await self._make(request, rate)
        took_ms = self._account(request.model_name, still, started)
        times = {
            "prepare_time_ms": still.prepare_ms,
            "inference_time_ms": still.infer_ms,
            "composite_time_ms": still.compose_ms,
        }
        answer = {
            "success": True,
            "model_name": request.model_name,
            "frame_id": request.frame_id,
            "prediction_data": base64.b64encode(still.jpeg).decode(),
            "prediction_shape": "x".join(map(str, still.shape)),
            "bounds": still.bounds,
            "processing_time_ms": took_ms,
            "metadata": {"audio": still.heard} | times,
        }
        return json.dumps(answer | times | about)

    async def _make(self, request: FrameRequest, rate: int) -> Still:
        async with self._avatars.lease(request.model_name) as package:
            return await self._avatars.run_numbered(make_still, package, request.frame_id, request.audio, rate)

    async def _tell_models(self, _asked: dict[str, Any]) -> str:
        names = [one.name for one in await self._avatars.known()]
        return json.dumps({"type": "models", "models": {"loaded_models": names, "count": len(names)}})

    async def _list_models(self, _asked: dict[str, Any]) -> str:
        names = [one.name for one in await self._avatars.known()]
        return json.dumps({"type": "model_list", "models": names, "count": len(names)})

    async def _tell_model_stats(self, asked: dict[str, Any]) -> str:
        name = read_name(asked)
        async with self._avatars.lease(name) as package:
            n_frames = package.n_frames
        tally = self._tallies.read(name)
        stats = {
            "model_name": name,
            "total_requests": tally.n_requests,
            "avg_inference_time_ms": tally.mean_ms,
            "min_inference_time_ms": tally.min_ms,
            "max_inference_time_ms": tally.max_ms,
            "frame_count": n_frames,
        }
        return json.dumps({"type": "model_stats", "stats": stats})

    async def _tell_metadata(self, asked: dict[str, Any]) -> str:
        name = read_name(asked)
        async with self._avatars.lease(name) as package:
            box = package.box(0)
            answer = {
                "type": "metadata",
                "success": True,
                "model_name": name,
                "frame_count": package.n_frames,
                "available_videos": VIDEO_TYPES,
                "audio_path": "",  # packages hold features of sound, and no sound
                "bounds": [box.left, box.top, box.right, box.bottom],
            }
        return json.dumps(answer)

    async def _give_video_frame(self, asked: dict[str, Any]) -> bytes:
        name, frame_id = read_name(asked), read_frame_id(asked)
        video_type = asked.get("video_type") or "full_body"
        async with self._avatars.lease(name) as package:
            jpeg = await self._avatars.run_numbered(make_video_frame, package, frame_id, str(video_type))
        return pack_video_frame(frame_id, str(video_type), jpeg)

    def _account(self, name: str, still: Still, started: float) -> float:
        """What the request took, in ms."""
        took_ms = ms_since(started)
        self._total_ms += took_ms
        self._tallies.add(name, still.infer_ms)
        return took_ms

    def _fail(self, err: Exception) -> Failure:
        self.n_failed += 1
        failure = failure_of(err)
        if failure.code == "internal_error":
            LOG.error("unforeseen", exc_info=err)
        return failure


class OldClient:
    """One connection. Its answers, and what it is told unasked, go out one at a time."""

    def __init__(self, socket: WebSocket, dialect: Dialect, stall_s: float) -> None:
        self.dialect = dialect
        self._socket, self._stall_s = socket, stall_s
        self._line: Line | None = socket.scope.get("extensions", {}).get(LINE, {}).get(LINE)
        self._sending = asyncio.Lock()

    @property
    def is_free(self) -> bool:
        """Whether it takes a message at once."""
        return not self._sending.locked() and (self._line is None or self._line.writable.is_set())

    async def receive(self) -> str | bytes | None:
        """The next message; None where there will be none."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        content: bytes | None = message.get("bytes")
        return str(message["text"]) if content is None else content

    async def send(self, message: str | bytes) -> None:
        """Raises: TimeoutError where the client takes nothing, WebSocketDisconnect where it is gone."""
        async with self._sending:
            if self._line is None or not self._line.writable.is_set():
                async with asyncio.timeout(self._stall_s):
                    await self._send(message)
            else:  # it goes at once
                await self._send(message)

    async def _send(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._socket.send_bytes(message)
        else:
            await self._socket.send_text(message)

    def cut(self) -> None:
        if self._line is not None:
            self._line.cut()


def parse_json(text: str) -> dict[str, Any]:
    """Raises: InvalidRequest."""
    if len(text) > MAX_JSON:
        raise InvalidRequest(f"a message of {len(text)} characters; at most {MAX_JSON} expected")
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f"a text message that is no JSON: {text[:40]!r}") from err
    if not isinstance(asked, dict):
        raise InvalidRequest(f"{text[:40]!r}: expected an object")
    return asked


def read_request(asked: dict[str, Any]) -> FrameRequest:
    """Raises: InvalidRequest naming the key that is wrong."""
    rate = asked.get("sample_rate", LEGACY_RATE)
    if not isinstance(rate, int) or isinstance(rate, bool) or not 0 < rate <= MAX_RATE:
        raise InvalidRequest(f"sample_rate {str(rate)[:40]!r}: expected up to {MAX_RATE} samples a second")
    return FrameRequest(read_name(asked), read_frame_id(asked), read_audio(asked.get("audio_override")))


def read_name(asked: dict[str, Any]) -> str:
    name = asked.get("model_name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"model_name {str(name)[:40]!r}: expected the name of an avatar")
    return name


def read_frame_id(asked: dict[str, Any]) -> int:
    frame_id = asked.get("frame_id", 0)
    if not isinstance(frame_id, int) or isinstance(frame_id, bool) or not 0 <= frame_id <= MAX_FRAME_ID:
        raise InvalidRequest(f"frame_id {str(frame_id)[:40]!r}: expected a whole number from 0 on")
    return frame_id


def read_audio(given: object) -> bytes | None:
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise InvalidRequest(f"audio_override of type {type(given).__name__}: expected base64")
    if len(given) > MAX_AUDIO * 4 // 3 + 4:
        raise InvalidRequest(f"audio_override of {len(given)} characters: at most {MAX_AUDIO} bytes expected")
    try:
        return base64.b64decode(given, validate=True) or None
    except (ValueError, binascii.Error) as err:
        raise InvalidRequest(f"audio_override: no base64 ({err})") from err


def align(jpeg: bytes) -> bytes:
    """With zeros behind it, which no decoder minds: one browser client maps the bounds in place as float32."""
    return jpeg + bytes(-(len(jpeg) + 17) % 4)


def is_plain(value: object) -> bool:
    """Whether a caller's value may be told back to him: short, and of a kind that we take."""
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= 255)


def ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
