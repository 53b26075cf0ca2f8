from __future__ import annotations

import asyncio

import pytest
from starlette.requests import HTTPConnection

from container.http.clients import ClientCounter, FairQueue, client_at, client_of, client_of_peer, is_loopback
from inference.errors import Overloaded


def client(peer: str, *forwarded: str, n_proxies: int = 0) -> str:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return client_of(HTTPConnection({"type": "http", "client": (peer, 5000), "headers": headers}), n_proxies)


def test_a_forwarded_address_is_not_trusted_by_default():
    assert client("192.0.2.1", "198.51.100.7") == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "n_proxies", "found"),
    [
        (("198.51.100.7",), 1, "198.51.100.7"),
        (("1.2.3.4, 198.51.100.7",), 1, "198.51.100.7"),  # the first one was sent by the client
        (("1.2.3.4", "198.51.100.7, 10.0.0.1"), 2, "198.51.100.7"),
        (("198.51.100.7",), 2, "127.0.0.1"),  # it did not come through both proxies
        (("rubbish",), 1, "127.0.0.1"),
        ((), 1, "127.0.0.1"),
    ],
)
def test_trusted_proxies_append_the_clients_address(forwarded: tuple[str, ...], n_proxies: int, found: str):
    assert client("127.0.0.1", *forwarded, n_proxies=n_proxies) == found


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("", "unknown"),
    ],
)
def test_clients_at_addresses(address: str, found: str):
    assert client_at(address) == found


def test_clients_of_grpc_peers():
    assert client_of_peer("ipv4:192.0.2.1:50000") == "192.0.2.1"
    assert client_of_peer("ipv6:%5B::1%5D:50000") == "::1"
    assert client_of_peer("unix:") == "unknown"


def test_loopback_clients():
    assert is_loopback("127.0.0.2")
    assert is_loopback("::1")
    assert not is_loopback("192.0.2.1")
    assert not is_loopback("2001:db8::/64")
    assert not is_loopback("unknown")


def test_a_client_cannot_exceed_its_limit():
    counter = ClientCounter()
    with counter.opened("a", 2, "sessions"), counter.opened("a", 2, "sessions"):
        with pytest.raises(Overloaded, match="2 sessions of your address are open"), counter.opened("a", 2, "sessions"):
            pass
        with counter.opened("b", 2, "sessions"), counter.opened("a", None, "sessions"):
            assert counter.total == 4
    assert counter.total == 0


def test_clients_take_turns():
    """Ten calls of one client are waiting when another one calls: that call is the next but the one that runs."""

    async def go() -> list[str]:
        queue, order = FairQueue(1, 10), list[str]()

        async def call(client: str) -> None:
            async with queue.turn(client):
                order.append(client)
                await asyncio.sleep(0)

        many = [asyncio.create_task(call("a")) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.gather(call("b"), *many)
        assert queue._clients == {}
        return order

    order = asyncio.run(go())
    assert len(order) == 11
    assert order.index("b") <= 2


def test_a_client_with_too_many_waiting_calls_is_rejected():
    async def go() -> None:
        queue, done = FairQueue(1, 2), asyncio.Event()

        async def call() -> None:
            async with queue.turn("a"):
                await done.wait()

        waiting = [asyncio.create_task(call()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests of your address are waiting"):
            async with queue.turn("a"):
                pass
        waiting[1].cancel()
        await asyncio.sleep(0)
        done.set()
        async with queue.turn("a"):
            pass
        await waiting[0]

    asyncio.run(go())
