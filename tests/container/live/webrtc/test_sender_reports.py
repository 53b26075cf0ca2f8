from __future__ import annotations

from dataclasses import dataclass

import pytest
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket

from container.live.webrtc.sender_reports import NTP_FRACTION, TIMESTAMPS, SenderReports, SessionClock

ORIGIN = TIMESTAMPS - 5000  # so that timestamps start again within two frames


@dataclass
class Track:
    last_pts: int | None = None
    is_sent: bool = True


def report(pts: int) -> RtcpSrPacket:
    """Return a report as aiortc makes it, of a packet that was sent at some time."""
    return RtcpSrPacket(1, RtcpSenderInfo(17, (ORIGIN + pts) % TIMESTAMPS, 1, 1))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SessionClock:
    monkeypatch.setattr("aiortc.clock.current_ntp_time", lambda: 100 * NTP_FRACTION)
    clock = SessionClock()
    clock.start(2.0)  # so time 0 is at 98 s
    clock.start(3.0)
    return clock


def test_a_report_has_the_time_of_its_frame(clock: SessionClock):
    track = Track()
    reports = SenderReports(track, clock, 90_000)
    assert not reports.set_time(report(0))  # nothing was sent
    for is_sent, last_pts, pts in ((True, 3600, 3600), (True, 7200, 7200), (False, 10800, 7200), (False, 10800, 10800)):
        track.is_sent, track.last_pts = is_sent, last_pts
        packet = report(pts)
        assert reports.set_time(packet)
        assert packet.sender_info.ntp_timestamp / NTP_FRACTION == pytest.approx(98 + pts / 90_000)


def test_a_report_is_uncertain_while_the_first_frame_is_encoded(clock: SessionClock):
    reports = SenderReports(Track(last_pts=3600, is_sent=False), clock, 90_000)
    assert not reports.set_time(report(3600))
    early = SenderReports(Track(last_pts=3600), SessionClock(), 90_000)
    assert not early.set_time(report(3600))
