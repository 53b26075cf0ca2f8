"""Limits on what a peer may send: what aiortc and aioice would keep of it without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aioice import Connection
from aiortc import RTCDtlsTransport
from aiortc.rtcsctptransport import RTCSctpTransport

MAX_WAITING_PACKETS = 1024  # received and not read yet
MAX_SOURCES = 16  # of a client's packets (SSRC): browsers send audio by one
MAX_FRAGMENT_BYTES = 1 << 20  # of messages that are incomplete, beyond the window that the server offers
MAX_FRAGMENTS = 4096  # of incomplete messages: twice as many as these bytes are at the size that fits into a packet
MAX_STREAMS = 16  # of messages: a data channel has one


def limit_packets(agent: Connection) -> None:
    """Drop packets if many wait: until the connection is secured, nothing reads them, and any machine may send them.

    Empty ones are dropped, too: aiortc reads the first byte of each, and an error would end the connection. Between two
    packets all else gets its turn: aiortc would handle all that wait at once, such as the 160 of six seconds of speech,
    and send no frame for 200 ms.
    """
    receive, read = agent.data_received, agent.recvfrom

    async def read_in_turns() -> tuple[bytes, int]:
        await asyncio.sleep(0)
        return await read()

    vars(agent)["recvfrom"] = read_in_turns

    def receive_bounded(data: bytes, component: int) -> None:
        if data and agent._queue.qsize() < MAX_WAITING_PACKETS:
            receive(data, component)

    vars(agent)["data_received"] = receive_bounded


def limit_sources(transport: RTCDtlsTransport, request_close: Callable[[str], None]) -> None:
    """End the connection of a client whose packets name many sources, as aiortc and libsrtp keep all of them."""
    handle_rtp, handle_rtcp = transport._handle_rtp_data, transport._handle_rtcp_data
    sources: set[bytes] = set()

    def is_allowed(source: bytes) -> bool:
        if source not in sources and len(sources) >= MAX_SOURCES:
            request_close(f"the packets of the client name more than {MAX_SOURCES} sources")
            return False
        sources.add(source)
        return True

    async def handle_rtp_bounded(data: bytes, arrival_time_ms: int) -> None:
        if is_allowed(data[8:12]):  # RFC 3550, section 5.1
            await handle_rtp(data, arrival_time_ms=arrival_time_ms)

    async def handle_rtcp_bounded(data: bytes) -> None:
        if is_allowed(data[4:8]):  # section 6.4.1
            await handle_rtcp(data)

    vars(transport)["_handle_rtp_data"] = handle_rtp_bounded
    vars(transport)["_handle_rtcp_data"] = handle_rtcp_bounded


def limit_fragments(sctp: RTCSctpTransport, request_close: Callable[[str], None]) -> None:
    """End the connection of a peer that sends much more of incomplete messages than browsers do.

    aiortc subtracts what it keeps from the window that it offers, and goes on below 0; and for each fragment it looks
    at all that the stream has.
    """
    receive = sctp._receive_data_chunk

    async def receive_bounded(chunk: Any) -> None:
        streams = sctp._inbound_streams
        n_fragments = sum(len(one.reassembly) for one in streams.values())
        if sctp._advertised_rwnd < -MAX_FRAGMENT_BYTES or n_fragments >= MAX_FRAGMENTS:
            request_close("the incomplete messages of the client are over the limit")
        elif chunk.stream_id not in streams and len(streams) >= MAX_STREAMS:
            request_close(f"messages by more than {MAX_STREAMS} streams; expected one data channel")
        else:
            await receive(chunk)

    vars(sctp)["_receive_data_chunk"] = receive_bounded
