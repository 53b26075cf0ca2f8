"""SDP offers of WebRTC clients, and fragments with their further candidates: checked and bounded."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from inference.errors import InvalidRequest

MAX_CANDIDATES = 64  # of a session, in its offer and afterwards
KINDS = ("video", "audio", "application")  # an offer has at most one media section of each
CANDIDATE, END_OF_CANDIDATES, FRAGMENT_UFRAG = "a=candidate:", "a=end-of-candidates", "a=ice-ufrag:"
LINE_END = re.compile(r"\r\n|\r|\n")
# What aiortc's parser raises on text that is no SDP, beside its own errors.
PARSER_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Offer:
    """A checked offer.

    mid: of its first media section, which carries the others, too. kinds: of all sections. n_candidates: that it had.
    """

    sdp: str
    ufrag: str
    mid: str
    kinds: frozenset[str]
    n_candidates: int


@contextlib.contextmanager
def offer_errors() -> Iterator[None]:
    """Raise InvalidRequest in place of what aiortc raises because of an offer."""
    try:
        yield
    except (*PARSER_ERRORS, InvalidAccessError, InvalidStateError, OperationError) as err:
        raise InvalidRequest(f"the SDP cannot be used: {str(err)[:200] or type(err).__name__}") from err


def decode(body: bytes) -> str:
    """Return the text of a body. Raises: InvalidRequest if it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError as err:
        raise InvalidRequest("the SDP is not UTF-8") from err


def read_offer(body: bytes, *, is_local: bool) -> Offer:
    """Check an offer. is_local: whether the client is on this machine; see `is_usable`.

    Of its candidates only usable ones are kept, and they never end: browsers hide their addresses behind mDNS
    names, and their own connectivity checks reveal them.
    Raises: InvalidRequest.
    """
    lines = LINE_END.split(decode(body))
    candidates = [line for line in lines if line.startswith(CANDIDATE)]
    check_number(len(candidates))
    dropped = {line for line in candidates if not keeps(line, is_local)} | {END_OF_CANDIDATES}
    text = "\r\n".join(line for line in lines if line not in dropped)
    with offer_errors():
        description = SessionDescription.parse(text)
    media = description.media
    check_media(media)
    assert media[0].ice is not None
    kinds = frozenset(one.kind for one in media)
    return Offer(text, str(media[0].ice.usernameFragment), media[0].rtp.muxId, kinds, len(candidates))


def check_media(media: Sequence[MediaDescription]) -> None:
    """Check the media sections of an offer. Raises: InvalidRequest."""
    kinds = [one.kind for one in media]
    unexpected = next((kind for kind in kinds if kind not in KINDS or kinds.count(kind) > 1), None)
    if unexpected is not None:
        raise InvalidRequest(f"the offer has {kinds[:8]}; expected at most one section each of {', '.join(KINDS)}")
    video = next((one for one in media if one.kind == "video"), None)
    if video is None or video.direction not in ("recvonly", "sendrecv"):
        found = "no video" if video is None else f"video {video.direction}"
        raise InvalidRequest(f"the offer has {found}; expected video that is received, as of WHEP clients")
    for one in media:
        if one.dtls is None or not one.dtls.fingerprints:
            raise InvalidRequest(f"the {one.kind} section has no a=fingerprint; expected that of a certificate")
        if one.ice is None or not one.ice.usernameFragment or not one.ice.password:
            raise InvalidRequest(f"the {one.kind} section has no a=ice-ufrag or no a=ice-pwd")
    if len({one.rtp.muxId for one in media}) < len(media) or not all(one.rtp.muxId for one in media):
        raise InvalidRequest("the sections have no a=mid each, or the same one; expected different ones")


def read_fragment(body: bytes, offer: Offer, n_before: int, *, is_local: bool) -> tuple[list[RTCIceCandidate], int]:
    """Return the usable candidates of a trickle fragment (RFC 8840), and how many it has in all.

    n_before: candidates of the session so far. Raises: InvalidRequest; also for an ICE restart, which is not supported.
    """
    lines = LINE_END.split(decode(body))
    for line in lines:
        ufrag = line.removeprefix(FRAGMENT_UFRAG)
        if ufrag not in (line, offer.ufrag):
            raise InvalidRequest("the fragment has another a=ice-ufrag than the offer: ICE restarts are not supported")
    found = [line for line in lines if line.startswith(CANDIDATE)]
    check_number(n_before + len(found))
    candidates = [parse_candidate(line) for line in found if keeps(line, is_local)]
    for candidate in candidates:
        candidate.sdpMid = offer.mid  # which all sections share
    return candidates, len(found)


def check_number(n_candidates: int) -> None:
    if n_candidates > MAX_CANDIDATES:
        raise InvalidRequest(f"{n_candidates} candidates; expected at most {MAX_CANDIDATES}")


def keeps(line: str, is_local: bool) -> bool:
    return is_usable(parse_candidate(line), is_local=is_local)


def parse_candidate(line: str) -> RTCIceCandidate:
    """Parse a line a=candidate. Raises: InvalidRequest."""
    try:
        return candidate_from_sdp(line.removeprefix(CANDIDATE))
    except PARSER_ERRORS as err:
        raise InvalidRequest(f"{line[:80]!r}: expected an ICE candidate") from err


def is_usable(candidate: RTCIceCandidate, *, is_local: bool) -> bool:
    """Return whether the server may send connectivity checks to a candidate.

    Names are not resolved, and only a client on this machine may name its loopback addresses.
    """
    try:
        ip = ipaddress.ip_address(candidate.ip)
    except ValueError:
        return False
    if candidate.protocol.lower() != "udp" or candidate.component != 1 or not 0 < candidate.port < 1 << 16:
        return False
    return not (ip.is_multicast or ip.is_unspecified or (ip.is_loopback and not is_local))
