"""A WebSocket and a session, until one of them ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from container.live.frame_messages import FrameMessage
from container.live.send_queue import TooSlow
from container.live.session import LiveSession
from container.live.transport import LINE, Line
from container.statuses import failure_of
from inference.errors import VisemeError

LOG = logging.getLogger("viseme.live")
STALL_S = 10.0  # without a byte taken, a client is dropped
BYE_S = 5.0  # for the last messages
# Of WebSocket: https://www.rfc-editor.org/rfc/rfc6455#section-7.4
NORMAL, GOING_AWAY, INTERNAL_ERROR, RESTARTING = 1000, 1001, 1011, 1012


@dataclass(frozen=True)
class Ending:
    """Why a session is over, and what the client is told. code: None where nobody is there to be told."""

    code: int | None
    reason: str = ""


class Talk:
    """Passes messages on until the client, the session or the server ends it."""

    def __init__(self, socket: WebSocket, live: LiveSession, stall_s: float = STALL_S) -> None:
        self._socket, self._live, self._stall_s = socket, live, stall_s
        self._line: Line | None = socket.scope.get("extensions", {}).get(LINE, {}).get(LINE)
        self._asked = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        """Have it end from outside."""
        if not self._asked.done():
            self._asked.set_result(ending)

    async def run(self) -> Ending:
        """Until it is over. Raises: whatever the engine raised."""
        parts: tuple[Coroutine[Any, Any, Ending], ...] = (self._listen(), self._play(), self._send(), self._wait())
        tasks = [asyncio.create_task(one) for one in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await self._conclude(next(one for one in tasks if one in done))
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _conclude(self, first: asyncio.Task[Ending]) -> Ending:
        """Raises: what was not the client's doing."""
        try:
            return first.result()
        except (WebSocketDisconnect, asyncio.CancelledError):
            return Ending(None)
        except TooSlow as err:
            LOG.info("a client that takes nothing was dropped", extra={"reason": str(err)})
            if self._line is not None:
                self._line.cut()
            return Ending(None)

    async def _wait(self) -> Ending:
        ending: Ending = await self._asked
        return ending

    async def _play(self) -> Ending:
        await self._live.play()
        return Ending(NORMAL)

    async def _listen(self) -> Ending:
        while not self._live.is_closed:
            await self._live.outbox.wait_for_room()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return Ending(None)
            content = message.get("bytes")
            try:
                await self._live.take(message["text"] if content is None else content)
            except VisemeError as err:
                failure = failure_of(err)
                self._live.tell_error(failure.code, failure.message)
        return Ending(NORMAL)

    async def _send(self) -> Ending:
        """Raises: TooSlow."""
        while True:
            await self._live.outbox.wait()
            await self._send_next()

    async def _send_next(self) -> None:
        """The newest frame is chosen when the client can take it, not before."""
        if self._line is not None and not self._line.writable.is_set():
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._line.wait()
            except TimeoutError as err:
                raise TooSlow(f"not a byte was taken in {self._stall_s:g} s") from err
        message = self._live.outbox.take()
        if isinstance(message, FrameMessage):
            await self._socket.send_bytes(message.pack())
        elif message is not None:
            await self._socket.send_text(message)

    async def say_goodbye(self) -> None:
        """Send what still waits, where the client takes it."""
        try:
            async with asyncio.timeout(min(BYE_S, self._stall_s)):
                while self._live.outbox.n_waiting:
                    await self._send_next()
        except (TimeoutError, TooSlow, WebSocketDisconnect):
            LOG.info("a client was gone before its last messages")
