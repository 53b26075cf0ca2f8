"""How fast an avatar is interrupted, over each protocol, as its client sees it: part of `bench.live`.

From the client's message until the last frame, or audio, of the old speech has arrived, and until the first frame of
the avatar at rest has. Frames of WebSocket sessions name their generation. Those of WebRTC do not: an old one has an
open mouth (it differs from the avatar's resting ones more than halfway as much as most of the speech before), and old
audio is loud; their packets' arrivals count, as players buffer them for different times. gRPC has no sessions: its
client, which requests each frame when it is due, cancels its stream, and requests a resting frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from unittest.mock import patch

import cv2
import grpc
import httpx
import numpy as np
import numpy.typing as npt
import websockets
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from container.live.frame_messages import unpack_frame
from container.protos import optimized_lipsyncsrv_pb2 as pb2
from container.protos import optimized_lipsyncsrv_pb2_grpc as pb2_grpc
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise

MAX_OLD_MS, MAX_SHUT_MS = 120.0, 200.0
FRAME_S = 0.04
SPEECH_S = 6.0
SPOKEN_BEFORE_S, WATCHED_S = 1.0, 1.0  # of speech before the message, and of frames after it
REST_S = 0.4  # at the end of what is watched, in which the mouth is shut
LOUD = 1500  # peak of a packet of speech, of 32768; Opus leaves less in silence
MIN_CONTRAST = 1.15  # of an open mouth, to one at rest that the codec has changed
SETTLED_FRAMES = 10  # of a session before it speaks
SIDE = 24  # pixels of a mouth that is compared
SENTENCE, SEED = "LAY BLUE BY FOUR ZERO AGAIN", 5

Mouth = npt.NDArray[np.float32]  # (SIDE, SIDE) grey


@dataclass(frozen=True)
class Interrupt:
    """Milliseconds after the message."""

    old_ms: float
    shut_ms: float


def summarize(found: list[Interrupt]) -> dict[str, dict[str, float]]:
    """Return the median and the maximum of both times."""
    return {
        name: {"median": round(float(np.median(values)), 1), "max": round(max(values), 1)}
        for name, values in (
            ("last_old_frame_ms", [one.old_ms for one in found]),
            ("shut_mouth_ms", [one.shut_ms for one in found]),
        )
    }


def exceeds_limits(found: dict[str, dict[str, dict[str, float]]]) -> bool:
    return any(
        one["last_old_frame_ms"]["max"] > MAX_OLD_MS or one["shut_mouth_ms"]["max"] > MAX_SHUT_MS
        for one in found.values()
    )


def measure_interrupts(name: str, port: int, grpc_port: int, n_rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Interrupt speech so often over each protocol. name: of the avatar."""
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = pb2_grpc.OptimizedLipSyncServiceStub(channel)
        mouths = RestingMouths.fetch(name, port, stub)
        by_stream = [interrupt_stream(stub, name, i) for i in range(n_rounds)]
    by_socket = [asyncio.run(interrupt_socket(name, port, i)) for i in range(n_rounds)]
    by_track = asyncio.run(interrupt_tracks(name, port, mouths, n_rounds))
    return {name: summarize(one) for name, one in (("websocket", by_socket), ("webrtc", by_track), ("grpc", by_stream))}


def make_speech() -> bytes:
    """Return synthetic speech, 16 kHz, as little-endian int16."""
    samples = synthesise(SyntheticClip(SENTENCE, SEED).speech, SEED)[SYNTHESIS_RATE // 2 : -SYNTHESIS_RATE // 2]
    repeated = np.resize(samples, round(SPEECH_S * SYNTHESIS_RATE))
    pcm: bytes = np.rint(repeated * 32_767).astype("<i2").tobytes()
    return pcm


def offset_s(i: int) -> float:
    """Return by how much later round i interrupts, so that the rounds fall on different parts of a frame."""
    return (i * 0.618) % 1 * FRAME_S


async def interrupt_socket(name: str, port: int, i: int) -> Interrupt:
    """Interrupt a WebSocket session."""
    url = f"ws://127.0.0.1:{port}/v1/avatars/{name}/session"
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        await socket.send(make_speech())
        n_spoken, sent_s, old_s, shut_s = 0, 0.0, 0.0, 0.0
        while not shut_s:
            message = await socket.recv()
            if isinstance(message, str):
                continue
            frame, now_s = unpack_frame(message), time.perf_counter()
            if frame.generation and not frame.is_speaking:
                shut_s = now_s
            elif sent_s and frame.is_speaking:
                old_s = now_s
            n_spoken += frame.is_speaking
            if n_spoken * FRAME_S >= SPOKEN_BEFORE_S and not sent_s:
                await asyncio.sleep(offset_s(i))
                sent_s = time.perf_counter()
                await socket.send('{"type":"interrupt"}')
    return Interrupt(max(old_s - sent_s, 0) * 1000, (shut_s - sent_s) * 1000)


def interrupt_stream(stub: Any, name: str, i: int) -> Interrupt:
    """Cancel a gRPC stream of frames, and request a resting frame."""
    arrivals: list[float] = []
    done = threading.Event()

    def requests() -> Iterator[Any]:
        started = time.perf_counter()
        for n in range(round(SPEECH_S / FRAME_S)):
            if done.wait(max(started + n * FRAME_S - time.perf_counter(), 0)):
                return
            yield pb2.OptimizedInferenceRequest(model_name=name, frame_id=n)

    responses = stub.StreamInference(requests())

    def receive() -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in responses:
                arrivals.append(time.perf_counter())  # noqa: PERF401 - each is the time of an arrival

    reader = threading.Thread(target=receive)
    reader.start()
    time.sleep(SPOKEN_BEFORE_S + offset_s(i))
    sent_s = time.perf_counter()
    responses.cancel()
    stub.GetVideoFrame(pb2.GetVideoFrameRequest(model_name=name, frame_id=0, video_type="full_body"))
    shut_s = time.perf_counter()
    done.set()
    reader.join()
    return Interrupt(max(arrivals[-1] - sent_s, 0) * 1000, (shut_s - sent_s) * 1000)


class RestingMouths:
    """The mouths of an avatar's resting frames."""

    def __init__(self, mouths: list[Mouth], box: tuple[int, int, int, int]) -> None:
        """box: left, top, right and bottom of the face in the frame, in pixels."""
        self._mouths, self.box = np.stack(mouths), box

    @classmethod
    def fetch(cls, name: str, port: int, stub: Any) -> Self:
        """Read the frames of the avatar's video, in which it rests."""
        bounds = stub.GetModelMetadata(pb2.GetModelMetadataRequest(model_name=name)).bounds
        left, top, right, bottom = (round(value) for value in bounds)
        box = (left, top, right, bottom)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            (info,) = [one for one in http.get("/v1/avatars").json() if one["name"] == name]
            mouths = []
            for i in range(info["frames"]):
                jpeg = http.get(f"/v1/avatars/{name}/background/{i}").raise_for_status().content
                grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
                mouths.append(cut_mouth(np.asarray(grey), box))
        return cls(mouths, box)

    def distance(self, mouth: Mouth) -> float:
        """Return the mean difference to the nearest resting mouth, in grey levels."""
        return float(np.abs(self._mouths - mouth).mean((1, 2)).min())


@dataclass(frozen=True)
class SeenMouth:
    """A frame of video. distance: of its mouth to the nearest resting one."""

    at_s: float
    distance: float


def find_open(mouths: list[SeenMouth], sent_s: float) -> list[bool]:
    """Return which mouths around a message are open. Raises: ValueError if those before it were not."""
    spoken = [one.distance for one in mouths if one.at_s < sent_s]
    rest = float(np.median([one.distance for one in mouths if one.at_s > mouths[-1].at_s - REST_S]))
    wide = float(np.percentile(spoken, 75))
    if wide < MIN_CONTRAST * rest:
        raise ValueError(f"the mouth did not open: {wide:.2f} grey levels from rest in speech, {rest:.2f} after it")
    return [one.distance > (rest + wide) / 2 for one in mouths]


def time_interrupt(mouths: list[SeenMouth], loud_s: list[float], sent_s: float) -> Interrupt:
    """Return when an interrupt had an effect. loud_s: the times of loud audio."""
    opened = [one.at_s for one, is_open in zip(mouths, find_open(mouths, sent_s), strict=True) if is_open]
    old_s = max([at_s for at_s in (*opened, *loud_s) if at_s > sent_s], default=sent_s)
    shut_s = min(one.at_s for one in mouths if one.at_s > max([sent_s, *opened]))
    return Interrupt((old_s - sent_s) * 1000, (shut_s - sent_s) * 1000)


def cut_mouth(grey: npt.NDArray[Any], box: tuple[int, int, int, int]) -> Mouth:
    """Return the lower middle of a face's box, scaled to one size."""
    left, top, width, height = mouth_region(box)
    region = grey[top : top + height, left : left + width]
    return cv2.resize(region, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def mouth_region(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of what is compared. box: left, top, right and bottom of the face."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return left + width // 4, top + height // 2, width // 2, height // 2


class PacketTimes:
    """When the last packet of each frame arrived at a receiver, before the receiver's jitter buffer."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._origin: int | None = None  # timestamp of the first packet, from which aiortc counts
        self._times: dict[int, float] = {}
        handle = receiver._handle_rtp_packet

        async def record(packet: Any, arrival_time_ms: int) -> None:
            self._origin = packet.timestamp if self._origin is None else self._origin
            self._times[(packet.timestamp - self._origin) % (1 << 32)] = time.perf_counter()
            await handle(packet, arrival_time_ms)

        vars(receiver)["_handle_rtp_packet"] = record

    def arrival_s(self, frame: Any) -> float:
        return self._times[frame.pts]


class MeasuringClient:
    """A WHEP client by aiortc that measures what arrives."""

    def __init__(self, mouths: RestingMouths) -> None:
        self._mouths = mouths
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self._connection.createDataChannel("viseme")
        self.channel.on("message", lambda text: self.events.append(json.loads(text)))
        self._connection.addTransceiver("video", "recvonly")
        self._connection.addTransceiver("audio", "recvonly")
        self._connection.on("track", self._follow)
        self._packets = {one.receiver: PacketTimes(one.receiver) for one in self._connection.getTransceivers()}
        self._tasks: list[asyncio.Task[None]] = []
        self.events: list[dict[str, Any]] = []
        self.seen: list[SeenMouth] = []
        self.loud_s: list[float] = []

    def _follow(self, track: MediaStreamTrack) -> None:
        (packets,) = [times for receiver, times in self._packets.items() if receiver.track is track]
        self._tasks.append(asyncio.create_task(self._receive(track, packets)))

    async def _receive(self, track: MediaStreamTrack, packets: PacketTimes) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                if track.kind == "video":
                    mouth = cut_mouth(frame.to_ndarray(format="gray"), self._mouths.box)
                    self.seen.append(SeenMouth(packets.arrival_s(frame), self._mouths.distance(mouth)))
                elif np.abs(frame.to_ndarray().astype(int)).max() > LOUD:
                    self.loud_s.append(packets.arrival_s(frame))

    async def connect(self, address: str) -> None:
        with patch("aioice.ice.get_host_addresses", lambda **_families: ["127.0.0.1"]):
            await self._connection.setLocalDescription(await self._connection.createOffer())
        async with httpx.AsyncClient(trust_env=False) as http:
            offer, headers = self._connection.localDescription.sdp, {"content-type": "application/sdp"}
            answer = (await http.post(address, content=offer, headers=headers)).raise_for_status().text
        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        while len(self.seen) < SETTLED_FRAMES or self.channel.readyState != "open":
            await asyncio.sleep(FRAME_S)

    async def speak_and_interrupt(self, i: int) -> Interrupt:
        """Interrupt speech. Raises: ValueError if no old frame is recognized."""
        self.events.clear()
        speech, limit = make_speech(), 32 << 10
        for start in range(0, len(speech), limit):
            self.channel.send(speech[start : start + limit])
        while not any(event["type"] == "speech_started" for event in self.events):
            await asyncio.sleep(FRAME_S / 4)
        await asyncio.sleep(SPOKEN_BEFORE_S + offset_s(i))
        sent_s = time.perf_counter()
        self.channel.send('{"type":"interrupt"}')
        while self.seen[-1].at_s < sent_s + WATCHED_S:  # frames are decoded later than they arrive
            await asyncio.sleep(FRAME_S)
        around = [one for one in self.seen if one.at_s > sent_s - SPOKEN_BEFORE_S]
        return time_interrupt(around, self.loud_s, sent_s)

    async def close(self) -> None:
        await self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def measuring_client(address: str, mouths: RestingMouths) -> AsyncIterator[MeasuringClient]:
    client = MeasuringClient(mouths)
    try:
        await client.connect(address)
        yield client
    finally:
        await client.close()


async def interrupt_tracks(name: str, port: int, mouths: RestingMouths, n_rounds: int) -> list[Interrupt]:
    """Interrupt a WebRTC session so often."""
    async with measuring_client(f"http://127.0.0.1:{port}/v1/avatars/{name}/whep", mouths) as client:
        return [await client.speak_and_interrupt(i) for i in range(n_rounds)]
