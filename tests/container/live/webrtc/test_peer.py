from __future__ import annotations

import asyncio

from aioice import Connection

from container.live.webrtc.peer import MAX_FRAGMENT_BYTES, MAX_WAITING_PACKETS, limit_fragments, limit_packets


class Association:
    """Keeps chunks of incomplete messages as aiortc 1.16's RTCSctpTransport does: below a window of 0, too."""

    def __init__(self) -> None:
        self._advertised_rwnd = 1 << 20
        self.n_kept = 0

    async def _receive_data_chunk(self, chunk: bytes) -> None:
        self._advertised_rwnd -= len(chunk)
        self.n_kept += len(chunk)


def test_a_peer_that_never_completes_a_message_is_stopped():
    association, reasons = Association(), []
    limit_fragments(association, reasons.append)  # type: ignore[arg-type]

    async def go() -> None:
        for _ in range(4000):
            await association._receive_data_chunk(bytes(1172))

    asyncio.run(go())
    assert association.n_kept < (1 << 20) + MAX_FRAGMENT_BYTES + 2 * 1172
    assert reasons


def test_packets_that_nothing_reads_are_dropped():
    async def go() -> int:
        agent = Connection(ice_controlling=False)
        limit_packets(agent)
        for _ in range(2 * MAX_WAITING_PACKETS):
            agent.data_received(b"x", 1)
        return agent._queue.qsize()

    assert asyncio.run(go()) == MAX_WAITING_PACKETS
