"""An avatar in a Pipecat pipeline with its SmallWebRTC transport, to an aiortc client on this machine."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from support.pipecat_pipeline import NumberSynthesiser, running_worker

from container.voice_agents.pipecat import AvatarVideoService
from inference.avatar import AvatarPackage

GUARD_S = 60.0  # against hanging


def tone(frequency: int, n_samples: int) -> np.ndarray:
    return (12_000 * np.sin(2 * np.pi * frequency * np.arange(n_samples) / 24_000)).astype(np.int16)


class Viewer:
    """A client that receives audio and video. images: shapes; loud: samples of audio that are not silent."""

    def __init__(self) -> None:
        self._peer = RTCPeerConnection()
        self._peer.addTransceiver("audio", direction="recvonly")
        self._peer.addTransceiver("video", direction="recvonly")
        self._peer.on("track", lambda track: self._tasks.append(asyncio.create_task(self._receive(track))))
        self._tasks: list[asyncio.Task[None]] = []
        self.images: list[tuple[int, ...]] = []
        self.n_loud = 0

    async def call(self) -> SmallWebRTCConnection:
        """Offer, and take the answer of the transport's connection."""
        await self._peer.setLocalDescription(await self._peer.createOffer())
        connection = SmallWebRTCConnection()
        await connection.initialize(sdp=self._peer.localDescription.sdp, type=self._peer.localDescription.type)
        answer = connection.get_answer()
        await self._peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        return connection

    async def _receive(self, track) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if track.kind == "video":
                self.images.append((frame.width, frame.height))
            else:
                self.n_loud += int(np.count_nonzero(np.abs(frame.to_ndarray()) > 1000)) // 2  # of two channels

    async def close(self) -> None:
        await self._peer.close()
        await asyncio.gather(*self._tasks)


def test_the_avatar_is_seen_over_webrtc(avatar_package: AvatarPackage):
    async def run() -> Viewer:
        viewer = Viewer()
        connection = await viewer.call()
        size = {"video_out_width": avatar_package.width, "video_out_height": avatar_package.height}
        params = TransportParams(
            audio_out_enabled=True, video_out_enabled=True, video_out_framerate=25, audio_out_end_silence_secs=0, **size
        )
        transport = SmallWebRTCTransport(connection, params)
        avatar = AvatarVideoService(avatar_package)
        processors = [transport.input(), NumberSynthesiser(24_000, tone), avatar, transport.output()]
        async with running_worker(processors) as worker:
            while not viewer.images:
                await asyncio.sleep(0.02)
            await worker.queue_frame(TTSSpeakFrame("400 1"))
            while viewer.n_loud < 40_000:  # of a second at 48 kHz: the codec fades in and out
                await asyncio.sleep(0.02)
        await viewer.close()
        return viewer

    async def guarded() -> Viewer:
        async with asyncio.timeout(GUARD_S):
            return await run()

    with patch("aioice.ice.get_host_addresses", lambda **_families: ["127.0.0.1"]):
        viewer = asyncio.run(guarded())
    assert set(viewer.images) == {(320, 240)}
    assert len(viewer.images) >= 10
