from __future__ import annotations

import pytest
from aiortc.sdp import SessionDescription

from container.live.webrtc.offer import read_fragment, read_offer
from inference.errors import InvalidRequest

# The lines of an offer of Chromium 141 that matter here, without its codecs but one of each kind.
TRANSPORT = """\
c=IN IP4 0.0.0.0
a=ice-ufrag:tm0m
a=ice-pwd:qOhJUWuYCZlQUFGgCBPAVS9h
a=fingerprint:sha-256 2E:6A:5F:E3:96:06:2C:12:C5:C4:2D:49:F6:0C:33:BA:5C:23:D5:06:8B:F7:F4:3C:7E:F0:8C:8D:94:C8:44:E4
a=setup:actpass
"""
CANDIDATES = {
    "local": "a=candidate:1 1 udp 2113937151 127.0.0.1 40001 typ host",
    "other": "a=candidate:2 1 udp 2113937151 192.0.2.7 40002 typ host",
    "name": "a=candidate:3 1 udp 2113937151 c3b7.local 40003 typ host",
    "tcp": "a=candidate:4 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active",
    "multicast": "a=candidate:5 1 udp 2113937151 224.0.0.251 5353 typ host",
}


def section(kind: str, mid: str, direction: str, codec: str) -> str:
    return f"m={kind} 9 UDP/TLS/RTP/SAVPF 96\n{TRANSPORT}a=mid:{mid}\na={direction}\na=rtcp-mux\na=rtpmap:96 {codec}\n"


def offer(*sections: str) -> bytes:
    head = "v=0\no=- 4 2 IN IP4 127.0.0.1\ns=-\nt=0 0\n"
    return (head + "".join(sections)).replace("\n", "\r\n").encode()


VIDEO = section("video", "0", "recvonly", "VP8/90000")
AUDIO = section("audio", "1", "sendrecv", "opus/48000/2")
ALL = "".join(f"{line}\n" for line in CANDIDATES.values()) + "a=end-of-candidates\n"


@pytest.mark.parametrize(("is_local", "kept"), [(True, {"127.0.0.1", "192.0.2.7"}), (False, {"192.0.2.7"})])
def test_only_addresses_that_the_server_may_call_are_kept(is_local: bool, kept: set[str]):
    found = read_offer(offer(VIDEO + ALL, AUDIO), is_local=is_local)
    (video, audio) = SessionDescription.parse(found.sdp).media
    assert {one.ip for one in video.ice_candidates} == kept
    assert not video.ice_candidates_complete
    assert (found.ufrag, found.mid, found.n_candidates) == ("tm0m", "0", len(CANDIDATES))
    assert audio.direction == "sendrecv"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ((AUDIO,), "no video"),
        ((section("video", "0", "sendonly", "VP8/90000"),), "video sendonly"),
        ((VIDEO, VIDEO), "at most one section"),
        ((VIDEO, AUDIO.replace("m=audio", "m=text")), "text"),
        ((VIDEO, AUDIO.replace("a=mid:1", "a=mid:0")), "a=mid"),
        ((VIDEO.replace("a=fingerprint", "a=x-fingerprint"),), "fingerprint"),
        ((VIDEO.replace("a=ice-pwd", "a=x-pwd"),), "ice-pwd"),
        ((VIDEO.replace("opus/48000", "x/y"), AUDIO.replace("opus/48000/2", "opus/fast")), "cannot be used"),
    ],
)
def test_an_unusable_offer_is_named(sections: tuple[str, ...], message: str):
    with pytest.raises(InvalidRequest, match=message):
        read_offer(offer(*sections), is_local=True)


def test_bytes_that_are_no_text():
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_offer(b"v=0\xff", is_local=True)


def test_later_candidates_belong_to_the_first_section_and_are_counted():
    opened = read_offer(offer(VIDEO, AUDIO), is_local=False)
    lines = f"a=ice-ufrag:tm0m\r\nm=audio 9 RTP/AVP 0\r\na=mid:1\r\n{ALL}".encode()
    (candidate,), n_found = read_fragment(lines, opened, 0, is_local=False)
    assert (candidate.ip, candidate.sdpMid, n_found) == ("192.0.2.7", "0", len(CANDIDATES))
    with pytest.raises(InvalidRequest, match="at most 64"):
        read_fragment(lines, opened, 60, is_local=False)
