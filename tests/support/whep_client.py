"""A WHEP client by aiortc, the package that the server uses as well, and httpx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from support.waiting import PATIENCE_S

SDP = "application/sdp"


class WhepClient:
    """A connection to an avatar, and what it received: frames by kind of track, and events of the data channel."""

    def __init__(
        self,
        microphone: MediaStreamTrack | None = None,
        codec: str = "video/VP8",
        connection: RTCPeerConnection | None = None,
    ) -> None:
        self.connection = connection or RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("viseme")
        self.channel.on("message", lambda message: self.events.append(json.loads(message)))
        video = self.connection.addTransceiver("video", "recvonly")
        codecs = RTCRtpReceiver.getCapabilities("video").codecs
        video.setCodecPreferences([one for one in codecs if one.mimeType in (codec, "video/rtx")])
        if microphone is None:
            self.connection.addTransceiver("audio", "recvonly")
        else:
            self.connection.addTransceiver(microphone, "sendrecv")
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._receive(track))))
        self._tasks: list[asyncio.Task[None]] = []
        self.events: list[dict[str, Any]] = []
        self.frames: dict[str, list[Any]] = {"audio": [], "video": []}
        self.opened: httpx.Response | None = None

    async def _receive(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                self.frames[track.kind].append(await track.recv())
        except MediaStreamError:
            pass

    async def make_offer(self) -> str:
        """Return an offer whose only candidate is the loopback address, as the server's answer to it has."""
        with patch("aioice.ice.get_host_addresses", lambda **_families: ["127.0.0.1"]):
            await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def connect(self, address: str) -> None:
        offer = await self.make_offer()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            found = await http.post(address, content=offer, headers={"content-type": SDP})
        self.opened = found
        assert found.status_code == 201, found.text
        await self.connection.setRemoteDescription(RTCSessionDescription(found.text, "answer"))

    def send_command(self, kind: str, **about: Any) -> None:
        self.channel.send(json.dumps({"type": kind} | about))

    def event(self, kind: str) -> dict[str, Any] | None:
        """Return the last event of a kind, if there was one."""
        return next((one for one in reversed(self.events) if one["type"] == kind), None)

    async def until(self, is_so: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(0.01)

    async def until_event(self, kind: str) -> dict[str, Any]:
        await self.until(lambda: self.event(kind) is not None)
        found = self.event(kind)
        assert found is not None
        return found

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def whep_session(address: str, client: WhepClient | None = None, **options: Any) -> AsyncIterator[WhepClient]:
    """Open a session for the block. options: of a new client, if none is given."""
    client = client or WhepClient(**options)
    try:
        await client.connect(address)
        yield client
    finally:
        await client.close()
