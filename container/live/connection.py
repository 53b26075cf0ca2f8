"""One WebSocket connection and its session, until one of them ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from container.live.frame_messages import FrameMessage
from container.live.send_queue import SlowClient
from container.live.session import LiveSession
from container.live.transport import transport_of
from inference.error_responses import failure_of
from inference.errors import VisemeError

logger = logging.getLogger("viseme.live")
STALL_TIMEOUT_S = 10.0  # a client that reads nothing for this long is disconnected
FLUSH_TIMEOUT_S = 5.0  # for the last messages of a session
# WebSocket close codes: https://www.iana.org/assignments/websocket
NORMAL, GOING_AWAY, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1001, 1011, 1012


@dataclass(frozen=True)
class CloseReason:
    """Why a session ended. code: the WebSocket close code, or None if the client is already gone."""

    code: int | None
    reason: str = ""


class SessionConnection:
    """Passes messages between a client and its session until the client, the session or the server ends it."""

    def __init__(self, socket: WebSocket, session: LiveSession, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._socket, self._session, self._stall_timeout_s = socket, session, stall_timeout_s
        self._transport = transport_of(socket)
        self._close_request: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    def request_close(self, reason: CloseReason) -> None:
        """Make `run` return this reason. Later requests have no effect."""
        if not self._close_request.done():
            self._close_request.set_result(reason)

    async def run(self) -> CloseReason:
        """Serve the session until it ends. Raises: any error of the engine."""
        parts: tuple[Coroutine[Any, Any, CloseReason], ...] = (
            self._receive(),
            self._produce_frames(),
            self._send(),
            self._wait_for_close_request(),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await self._result_of(next(task for task in tasks if task in done))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _result_of(self, finished: asyncio.Task[CloseReason]) -> CloseReason:
        """Return why the session ended. Raises: any error that the client did not cause."""
        try:
            return finished.result()
        except (WebSocketDisconnect, asyncio.CancelledError):
            return CloseReason(None)
        except SlowClient as err:
            logger.info("a client that reads too slowly was disconnected", extra={"reason": str(err)})
            if self._transport is not None:
                self._transport.abort()
            return CloseReason(None)

    async def _wait_for_close_request(self) -> CloseReason:
        return await self._close_request

    async def _produce_frames(self) -> CloseReason:
        await self._session.produce_frames()
        return CloseReason(NORMAL)

    async def _receive(self) -> CloseReason:
        while not self._session.is_closed:
            await self._session.queue.wait_until_half_empty()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return CloseReason(None)
            content = message.get("bytes")
            try:
                await self._session.handle_message(message["text"] if content is None else content)
            except VisemeError as err:
                failure = failure_of(err)
                self._session.send_error(failure.code, failure.message)
        return CloseReason(NORMAL)

    async def _send(self) -> CloseReason:
        """Send queued messages until canceled. Raises: SlowClient."""
        while True:
            await self._session.queue.wait_until_not_empty()
            await self._send_next()

    async def _send_next(self) -> None:
        """Send one message. It is popped only once the client can read it, so that it is the newest frame."""
        if self._transport is not None and not self._transport.is_writable:
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    await self._transport.wait_until_writable()
            except TimeoutError as err:
                raise SlowClient(f"the client read nothing for {self._stall_timeout_s:g} s") from err
        message = self._session.queue.pop()
        if isinstance(message, FrameMessage):
            if (event := message.viseme_event) is not None:
                await self._socket.send_text(event)
            await self._socket.send_bytes(message.pack())
        elif message is not None:
            await self._socket.send_text(message)

    async def flush_remaining(self) -> None:
        """Send the messages that are still queued, if the client reads them in time."""
        try:
            async with asyncio.timeout(min(FLUSH_TIMEOUT_S, self._stall_timeout_s)):
                while self._session.queue.n_queued:
                    await self._send_next()
        except (TimeoutError, SlowClient, WebSocketDisconnect):
            logger.info("a client left before its last messages were sent")
