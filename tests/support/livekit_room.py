"""Two ends of a LiveKit room without a server.

What they do is taken from livekit 1.1.21: `rtc.Room` and `rtc.LocalParticipant` (RPC handlers by method, byte streams
to handlers by topic, participants by identity), `rtc.AudioSource` (a queue that is played in real time).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from livekit import rtc


class StandInRoom(rtc.EventEmitter):
    """One participant's end."""

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.name = "stage"
        self.remote_participants: dict[str, Any] = {}
        self.stream_handlers: dict[str, Any] = {}
        self.local_participant = StandInParticipant(self, identity)
        self.is_open = True

    def isconnected(self) -> bool:
        return self.is_open

    def register_byte_stream_handler(self, topic: str, handler: Any) -> None:
        self.stream_handlers[topic] = handler

    def disconnect_all(self) -> None:
        self.is_open = False
        self.emit("disconnected", 0)


class StandInParticipant:
    """The local participant of a room."""

    kind = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
    state = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE

    def __init__(self, room: StandInRoom, identity: str) -> None:
        self._room, self.identity = room, identity
        self._rpc_handlers: dict[str, Any] = {}
        self.peers: dict[str, StandInRoom] = {}
        self.calls: list[tuple[str, str]] = []  # method and payload of the RPCs it performed
        self.track_publications: dict[str, Any] = {}

    def register_rpc_method(self, method: str, handler: Any) -> None:
        self._rpc_handlers[method] = handler

    async def perform_rpc(self, *, destination_identity: str, method: str, payload: str) -> str:
        self.calls.append((method, payload))
        await asyncio.sleep(0.003)  # on its way
        data = rtc.RpcInvocationData("1", self.identity, payload, 10.0, method=method)
        handler = self.peers[destination_identity].local_participant._rpc_handlers[method]
        return handler(data)

    async def stream_bytes(
        self, name: str, *, topic: str, destination_identities: list[str], attributes: dict[str, str]
    ) -> StandInStream:
        stream = StandInStream(attributes)
        self.peers[destination_identities[0]].stream_handlers[topic](stream, self.identity)
        return stream

    async def publish_track(self, track: Any, options: Any) -> Any:
        publication = SimpleNamespace(
            track=track,
            name=track.name,
            kind=track.kind,
            options=options,
            sid=track.name,
            wait_for_subscription=no_wait,
        )
        self.track_publications[track.name] = publication
        for room in self.peers.values():
            room.remote_participants[self.identity].track_publications[track.name] = publication
            room.emit("track_published", publication, room.remote_participants[self.identity])
        return publication


async def no_wait() -> None:
    """A listener subscribes at once."""


class StandInStream:
    """Both ends of a byte stream: `ByteStreamWriter` and `ByteStreamReader`."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.info = SimpleNamespace(attributes=attributes, stream_id="1")
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0.001)  # on its way
        self._chunks.put_nowait(data)

    async def aclose(self) -> None:
        self._chunks.put_nowait(None)

    async def __anext__(self) -> bytes:
        chunk = await self._chunks.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


def linked_rooms(*identities: str) -> list[StandInRoom]:
    """Return the ends of participants in one room, all of which are agents."""
    rooms = {identity: StandInRoom(identity) for identity in identities}
    for one in rooms.values():
        for identity, other in rooms.items():
            if other is not one:
                one.local_participant.peers[identity] = other
                one.remote_participants[identity] = SimpleNamespace(
                    identity=identity,
                    kind=StandInParticipant.kind,
                    state=StandInParticipant.state,
                    track_publications={},
                )
    return list(rooms.values())


CALLBACK_S = 0.004  # until the library reports that it has a frame


@dataclass(frozen=True)
class PlayedPiece:
    """A frame of audio, or what was played of it. number: the value of its samples."""

    start_s: float
    duration_s: float
    number: int


class TimedAudioSource(rtc.AudioSource):
    """A track's audio, played by the clock of the event loop: it takes a frame when its queue has space for it."""

    played: list[PlayedPiece]  # or queued

    def __init__(self, sample_rate: int, num_channels: int, queue_size_ms: int = 1000) -> None:
        super().__init__(sample_rate, num_channels, queue_size_ms)
        self._queue_s = queue_size_ms / 1000
        self._end_s = 0.0  # when all that is queued will have been played
        self.played = []
        instances.append(self)

    @property
    def queued_duration(self) -> float:
        return max(self._end_s - self._loop.time(), 0.0)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        wait_s = self.queued_duration + frame.duration - self._queue_s
        await asyncio.sleep(max(wait_s, 0.0))
        start_s = max(self._end_s, self._loop.time())
        self.played.append(PlayedPiece(start_s, frame.duration, frame.data[0]))
        self._end_s = start_s + frame.duration
        await asyncio.sleep(CALLBACK_S)

    def clear_queue(self) -> None:
        now_s = self._loop.time()
        if self._end_s > now_s:
            kept = [one for one in self.played if one.start_s < now_s]
            self.played = [replace(one, duration_s=min(one.duration_s, now_s - one.start_s)) for one in kept]
        self._end_s = now_s


instances: list[TimedAudioSource] = []
