"""One WebRTC connection and its live session, until the client, the session or the server ends it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Any, Literal

from aioice import Candidate, Connection
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import VIDEO_CLOCK_RATE, MediaStreamError, MediaStreamTrack

from container.live.frame_clock import FrameClock
from container.live.send_queue import SlowClient
from container.live.session import MAX_INLINE_BYTES
from container.live.webrtc.ice_servers import IceServer
from container.live.webrtc.media_session import MediaFrame, MediaSession
from container.live.webrtc.offer import Offer, offer_errors
from container.live.webrtc.peer_limits import limit_fragments, limit_packets, limit_sources
from container.live.webrtc.sender_reports import SenderReports, SessionClock
from container.live.webrtc.tracks import AvatarAudioTrack, AvatarVideoTrack
from container.live.webrtc.video_encoder import use_avatar_encoder
from inference.error_responses import failure_of
from inference.errors import InvalidRequest, VisemeError
from inference.media.live_frames import OPUS_RATE, RateConverter

logger = logging.getLogger("viseme.live")
LOOPBACK = "127.0.0.1"
MAX_MESSAGE_BYTES = MAX_INLINE_BYTES  # of a message of the data channel: 64 KiB, which every browser sends in one piece
MAX_WAITING_MESSAGES = 256  # received and not handled yet
MAX_UNSENT_BYTES = 1 << 20  # of events that the client has not acknowledged
MAX_EARLY_EVENTS = 16  # before the data channel is open
CLOSE_TIMEOUT_S = 5.0
MAX_MESSAGE_SIZE = re.compile("a=max-message-size:[0-9]+")  # in an answer
OPUS, VP8 = "audio/opus", "video/VP8"
FAILED_STATES = ("failed", "closed")


class WebRtcPeer:
    """Passes audio, messages and frames between a peer connection and its session. Use it in one event loop only."""

    def __init__(self, session: MediaSession, clock: FrameClock, servers: tuple[IceServer, ...]) -> None:
        """Create a connection that is not negotiated yet. clock: the session's. servers: for its own candidates."""
        self.session, self._clock = session, clock
        self.video, self.audio = AvatarVideoTrack(clock, session.count_drop), AvatarAudioTrack(clock)
        self._session_clock = SessionClock()
        session.player = self
        configured = [RTCIceServer(one.url, one.username, one.credential) for one in servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=configured))
        self._channel: RTCDataChannel | None = None
        self._microphone: MediaStreamTrack | None = None
        self._speech_source: Literal["track", "messages"] | None = None  # that sent audio first
        self._messages: asyncio.Queue[bytes | str] = asyncio.Queue(MAX_WAITING_MESSAGES)
        self._early_events: list[str] = []
        loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = loop.create_future()
        self._close_reason: asyncio.Future[str] = loop.create_future()

    def request_close(self, reason: str) -> None:
        """Make `run` return this reason. Later requests have no effect."""
        if not self._close_reason.done():
            self._close_reason.set_result(reason)

    async def negotiate(self, offer: Offer, *, is_local: bool) -> str:
        """Return the answer to an offer, with all candidates of the server.

        is_local: whether the client is on this machine; then the loopback address is the only candidate.
        Raises: InvalidRequest if the offer cannot be used.
        """
        connection = self._connection
        connection.on("track", self._accept_track)
        connection.on("datachannel", self._accept_channel)
        connection.on("connectionstatechange", self._follow_state)
        with offer_errors():
            self._add_tracks(offer.kinds)
            await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
            for transport in self._transports():
                limit_sources(transport, self.request_close)
                agent = transport.transport.iceGatherer._connection
                limit_packets(agent)
                if is_local:
                    use_loopback_only(agent)
            await connection.setLocalDescription(await connection.createAnswer())
            for transceiver in connection.getTransceivers():
                if transceiver._codecs and transceiver._codecs[0].mimeType == VP8:
                    use_avatar_encoder(transceiver.sender)
        if connection.sctp is not None:
            limit_fragments(connection.sctp, self.request_close)
        return MAX_MESSAGE_SIZE.sub(f"a=max-message-size:{MAX_MESSAGE_BYTES}", str(connection.localDescription.sdp))

    def _add_tracks(self, kinds: frozenset[str]) -> None:
        """Prepare the answer to each section. Nothing uses video of the client, and its audio is Opus alone."""
        video = self._connection.addTransceiver(self.video, "sendonly")
        SenderReports(self.video, self._session_clock, VIDEO_CLOCK_RATE).attach(video.sender)
        if "audio" in kinds:
            audio = self._connection.addTransceiver(self.audio, "sendrecv")
            codecs = RTCRtpSender.getCapabilities("audio").codecs
            audio.setCodecPreferences([one for one in codecs if one.mimeType == OPUS])
            SenderReports(self.audio, self._session_clock, OPUS_RATE).attach(audio.sender)

    def _transports(self) -> set[RTCDtlsTransport]:
        """Return the transports: one for all sections, unless the client cannot bundle them."""
        transports = {one.sender.transport for one in self._connection.getTransceivers()}
        if self._connection.sctp is not None:
            transports.add(self._connection.sctp.transport)
        return transports

    async def add_candidates(self, candidates: list[Any]) -> None:
        """Add candidates that came after the offer."""
        for candidate in candidates:
            await self._connection.addIceCandidate(candidate)

    async def run(self, setup_timeout_s: float) -> str:
        """Serve the session until it ends; return why. Raises: any error of the engine.

        setup_timeout_s: from the answer until the client is connected.
        """
        tasks: list[asyncio.Task[str]] = []
        try:
            either: list[asyncio.Future[Any]] = [self._connected, self._close_reason]
            await asyncio.wait(either, timeout=setup_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._close_reason.done():
                return self._close_reason.result()
            if not self._connected.done():
                return f"not connected within {setup_timeout_s:g} s"
            self._clock.restart()
            parts: list[Coroutine[Any, Any, str]] = [
                self._produce_frames(),
                self._send_events(),
                self._receive_messages(),
                self._receive_audio(),
                self._wait_for_close_request(),
            ]
            tasks += [asyncio.create_task(part) for part in parts]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        except SlowClient as err:
            return str(err)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.session.close()
            await self._close()

    async def close(self) -> None:
        """Close a connection that is not run."""
        self.session.close()
        await self._close()

    async def _close(self) -> None:
        self.video.stop()
        self.audio.stop()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
        except TimeoutError:
            logger.warning("a WebRTC connection was not closed in time")

    def _follow_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected" and not self._connected.done():
            self._connected.set_result(None)
        elif state in FAILED_STATES:
            self.request_close(f"the connection is {state}")

    def _accept_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._microphone = track

    def _accept_channel(self, channel: RTCDataChannel) -> None:
        if self._channel is not None:
            self.request_close("a second data channel was opened; expected one")
            return
        self._channel = channel
        channel.on("message", self._queue_message)
        for event in self._early_events:
            channel.send(event)
        self._early_events.clear()

    def _queue_message(self, message: bytes | str) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            self.session.send_error(
                "invalid_request", f"a message of {len(message)} bytes; expected at most {MAX_MESSAGE_BYTES}"
            )
            return
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self.request_close(f"{MAX_WAITING_MESSAGES} messages wait to be handled, which is the limit")

    async def _wait_for_close_request(self) -> str:
        return await self._close_reason

    async def _produce_frames(self) -> str:
        await self.session.produce_frames()
        return "the session ended"

    async def _receive_messages(self) -> str:
        while not self.session.is_closed:
            await self.session.queue.wait_until_half_empty()
            message = await self._messages.get()
            if isinstance(message, bytes) and not self._is_speech_from("messages"):
                self._report(InvalidRequest("audio by message; expected it by the track, as before"))
            else:
                await self._handle(message)
        return "the client closed the session"

    async def _receive_audio(self) -> str:
        """Push the audio of the client's track, if there is one."""
        if self._microphone is not None:
            converter: RateConverter | None = None
            rejected = ""  # the last error, which is reported once
            while (frame := await next_frame(self._microphone)) is not None:
                if not self._is_speech_from("track"):
                    continue
                converter = converter or RateConverter(self.session.sample_rate)
                rejected = await self._handle(converter.push(frame).astype("<i2").tobytes(), rejected)
        return await asyncio.Future()  # the rest of the session goes on without it

    def _is_speech_from(self, source: Literal["track", "messages"]) -> bool:
        """Return whether the session speaks the audio of this source: that of the first one alone."""
        self._speech_source = self._speech_source or source
        return self._speech_source == source

    async def _handle(self, message: bytes | str, last_error: str = "") -> str:
        """Handle a message, and report its error unless that is the last one. Return its error's code, or ""."""
        try:
            await self.session.handle_message(message)
        except VisemeError as err:
            code = failure_of(err).code
            if code != last_error:
                self._report(err)
            return code
        return ""

    def _report(self, err: VisemeError) -> None:
        failure = failure_of(err)
        self.session.send_error(failure.code, failure.message)

    def play_audio(self, frame: MediaFrame) -> None:
        """Pass the audio of a frame to its track."""
        self._session_clock.start(frame.pts_ms / 1000)
        self.audio.push(frame)

    def play_image(self, frame: MediaFrame) -> None:
        """Pass the image of a frame to its track."""
        self.video.push(frame)

    def drop_waiting(self) -> int:
        """Drop the frames whose image was not taken; return the number of the first one.

        Audio is taken a little earlier: of that frame, some was. After a stall of the video it may have been more.
        """
        frame = max(self.video.next_frame, self.audio.next_frame - 1)
        self.video.drop_from(frame)
        self.audio.drop_from(frame)
        return frame

    async def _send_events(self) -> str:
        """Send events until canceled. Raises: SlowClient."""
        queue = self.session.queue
        while True:
            await queue.wait_until_not_empty()
            message = queue.pop()
            if isinstance(message, str):
                self._send_event(message)

    def _send_event(self, event: str) -> None:
        """Send an event. Without a data channel it is dropped, but for the first ones, until the channel is open."""
        channel = self._channel
        if channel is None:
            if self._connection.sctp is not None and len(self._early_events) < MAX_EARLY_EVENTS:
                self._early_events.append(event)
            return
        if channel.bufferedAmount > MAX_UNSENT_BYTES:
            raise SlowClient(
                f"{channel.bufferedAmount} bytes of events are unsent; at most {MAX_UNSENT_BYTES} expected"
            )
        if channel.readyState == "open":
            channel.send(event)


def use_loopback_only(agent: Connection) -> None:
    """Gather the candidate of 127.0.0.1 alone; aioice would gather those of every other interface."""
    gather = agent.get_component_candidates

    async def gather_loopback(component: int, addresses: list[str]) -> list[Candidate]:  # noqa: ARG001
        return await gather(component, [LOOPBACK])

    agent.stun_server = agent.turn_server = None
    vars(agent)["get_component_candidates"] = gather_loopback


async def next_frame(track: MediaStreamTrack) -> Any:
    """Return the next frame of a client's track, or None at its end."""
    try:
        return await track.recv()
    except MediaStreamError:
        return None
