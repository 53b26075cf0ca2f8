from __future__ import annotations

import asyncio

import pytest
from aioice import Connection
from aiortc.rtcsctptransport import DataChunk, InboundStream

from container.live.webrtc.peer_limits import (
    MAX_FRAGMENTS,
    MAX_SOURCES,
    MAX_STREAMS,
    MAX_WAITING_PACKETS,
    limit_fragments,
    limit_packets,
    limit_sources,
)


class Association:
    """Keeps chunks of incomplete messages as aiortc 1.16's RTCSctpTransport does: below a window of 0, too."""

    def __init__(self) -> None:
        self._advertised_rwnd = 1 << 20
        self._inbound_streams: dict[int, InboundStream] = {}
        self.n_bytes = 0  # kept

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        self._inbound_streams.setdefault(chunk.stream_id, InboundStream()).add_chunk(chunk)
        self._advertised_rwnd -= len(chunk.user_data)
        self.n_bytes += len(chunk.user_data)


def fragment(i: int, n_bytes: int, n_streams: int) -> DataChunk:
    """Return fragment i of messages that begin and never end."""
    chunk = DataChunk()
    chunk.tsn, chunk.stream_id, chunk.user_data = i, i % n_streams, bytes(n_bytes)
    return chunk


@pytest.mark.parametrize(
    ("n_bytes", "n_streams", "n_kept"), [(1172, 1, 1790), (1, 1, MAX_FRAGMENTS), (1, 1 << 15, MAX_STREAMS)]
)
def test_a_peer_that_never_completes_a_message_is_stopped(n_bytes: int, n_streams: int, n_kept: int):
    """By hand: 1790 * 1172 bytes are the first number of fragments over 2 MiB."""
    association, reasons = Association(), []
    limit_fragments(association, reasons.append)  # type: ignore[arg-type]

    async def go() -> None:
        for i in range(MAX_FRAGMENTS + 10):
            await association._receive_data_chunk(fragment(i, n_bytes, n_streams))

    asyncio.run(go())
    assert association.n_bytes == n_kept * n_bytes
    assert reasons


class Transport:
    """Keeps the source of each packet, as aiortc 1.16's RtpRouter and RTCRtpReceiver do."""

    def __init__(self) -> None:
        self.sources: set[bytes] = set()

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        self.sources.add(data[8:12])

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self.sources.add(data[4:8])


def test_a_peer_whose_packets_name_many_sources_is_stopped():
    transport, reasons = Transport(), []
    limit_sources(transport, reasons.append)  # type: ignore[arg-type]

    async def go() -> None:
        for i in range(2 * MAX_SOURCES):
            source = i.to_bytes(4, "big")
            await transport._handle_rtp_data(bytes(8) + source + bytes(20), arrival_time_ms=0)
            await transport._handle_rtcp_data(bytes(4) + source + bytes(20))
            assert bool(reasons) == (i >= MAX_SOURCES)

    asyncio.run(go())
    assert len(transport.sources) == MAX_SOURCES


def test_empty_packets_and_those_that_nothing_reads_are_dropped():
    async def go() -> int:
        agent = Connection(ice_controlling=False)
        limit_packets(agent)
        agent.data_received(b"", 1)
        assert not agent._queue.qsize()
        for _ in range(2 * MAX_WAITING_PACKETS):
            agent.data_received(b"x", 1)
        return agent._queue.qsize()

    assert asyncio.run(go()) == MAX_WAITING_PACKETS
