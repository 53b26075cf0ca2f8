"""Times in RTCP sender reports: those of the session's frames, by which clients play video and audio in step.

aiortc reports when the last packet was sent. On a busy machine that is late by the time that encoding took, which
differs between the tracks.
"""

from __future__ import annotations

from typing import Any, Protocol

from aiortc import RTCRtpSender, clock
from aiortc.rtp import RtcpSrPacket

TIMESTAMPS = 1 << 32  # after which RTP timestamps start again
NTP_FRACTION = 1 << 32  # units of an NTP time in a second


class SessionClock:
    """The NTP times of a session's frames, for both of its tracks."""

    def __init__(self) -> None:
        self._zero: int | None = None  # of the session's time 0

    def start(self, pts_s: float) -> None:
        """Set the time: a frame of this session time is due now. Later calls have no effect."""
        if self._zero is None:
            self._zero = clock.current_ntp_time() - round(pts_s * NTP_FRACTION)

    def ntp_time(self, pts_s: float) -> int | None:
        """Return the time of a frame, or None before `start`."""
        return None if self._zero is None else self._zero + round(pts_s * NTP_FRACTION)


class SentTrack(Protocol):
    """A track with the time of its last frame. is_sent: whether its sender requests the next one already."""

    last_pts: int | None
    is_sent: bool


class SenderReports:
    """Sets the times in the reports of one track."""

    def __init__(self, track: SentTrack, session_clock: SessionClock, rate: int) -> None:
        """rate: of the track's timestamps, Hz."""
        self._track, self._clock, self._rate = track, session_clock, rate
        self._origin: int | None = None  # aiortc adds a random number to the timestamps of a track

    def attach(self, sender: RTCRtpSender) -> None:
        """Set the times in the reports of a sender. A report whose time is not certain yet is not sent."""
        send = sender._send_rtcp

        async def send_timed(packets: list[Any]) -> None:
            if all(self.set_time(one) for one in packets if isinstance(one, RtcpSrPacket)):
                await send(packets)

        vars(sender)["_send_rtcp"] = send_timed

    def set_time(self, packet: RtcpSrPacket) -> bool:
        """Set the time of a report to that of the frame whose timestamp it has; return whether it is certain."""
        info, last_pts = packet.sender_info, self._track.last_pts
        if last_pts is None:
            return False
        if self._track.is_sent:
            self._origin = (info.rtp_timestamp - last_pts) % TIMESTAMPS
        if self._origin is None:
            return False
        behind = (last_pts + self._origin - info.rtp_timestamp) % TIMESTAMPS  # of the frame that is being encoded
        ntp_time = self._clock.ntp_time((last_pts - behind) / self._rate)
        if ntp_time is None:
            return False
        info.ntp_timestamp = ntp_time
        return True
