"""Clients by address, and shares of the server that one client cannot exceed."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import HTTPConnection

from inference.errors import Overloaded

FORWARDED_FOR = "x-forwarded-for"
UNKNOWN = "unknown"  # such as a client at a Unix socket
IPV6_PREFIX = 64  # bits of an IPv6 address that identify a client: the rest is the client's own choice


def client_of(connection: HTTPConnection, n_proxies: int = 0) -> str:
    """Return the client that a request comes from: an IPv4 address, or the network of an IPv6 address.

    n_proxies: trusted reverse proxies before the server. Each appends the address that it was called from to
    X-Forwarded-For, so the client is that many entries from the end; what is before it, anyone can write.
    """
    peer = connection.client.host if connection.client is not None else ""
    if n_proxies:
        lines = connection.headers.getlist(FORWARDED_FOR)
        entries = [entry.strip() for line in lines for entry in line.split(",")]
        if len(entries) >= n_proxies and (forwarded := client_at(entries[-n_proxies])) != UNKNOWN:
            return forwarded
    return client_at(peer)


def client_of_peer(peer: str) -> str:
    """Return the client of a gRPC call. peer: such as ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    return client_at(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))


def client_at(address: str) -> str:
    """Return the client at an IP address, or UNKNOWN if it is not one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip) if ip.is_loopback else str(ipaddress.IPv6Network((int(ip), IPV6_PREFIX), strict=False))


def is_loopback(client: str) -> bool:
    """Return whether a client is on this machine: a user of it, or a reverse proxy with any number of users."""
    try:
        return ipaddress.ip_network(client).is_loopback
    except ValueError:
        return False


class ClientCounter:
    """Counts what each client has open."""

    def __init__(self) -> None:
        self._n_open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._n_open.total()

    @contextlib.contextmanager
    def opened(self, client: str, limit: int | None, what: str) -> Iterator[None]:
        """Count one more inside of the block. limit: for this client; None for none. what: counted, for the message.

        Raises: Overloaded if the client has that many open.
        """
        if limit is not None and self._n_open[client] >= limit:
            raise Overloaded(f"{limit} {what} of your address are open, which is the limit; close one of them")
        self._n_open[client] += 1
        try:
            yield
        finally:
            self._n_open[client] -= 1
            if not self._n_open[client]:
                del self._n_open[client]


@dataclass
class ClientPlaces:
    """The places of one client in a queue, and how many calls use or wait for them."""

    running: asyncio.Semaphore
    n_calls: int = field(default=0)


class FairQueue:
    """Lets calls run, at most so many at a time, and clients take turns, however many calls each of them makes."""

    def __init__(self, n_running: int, max_calls: int) -> None:
        """Create a queue. max_calls: of one client, running or waiting."""
        self._n_running, self._max_calls = n_running, max_calls
        self._running = asyncio.Semaphore(n_running)
        self._clients: dict[str, ClientPlaces] = {}

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn, and keep it inside of the block. Raises: Overloaded if the client has too many calls."""
        places = self._clients.get(client)
        if places is None:
            places = self._clients[client] = ClientPlaces(asyncio.Semaphore(self._n_running))
        if places.n_calls >= self._max_calls:
            raise Overloaded(f"{places.n_calls} requests of your address are waiting, which is the limit; retry later")
        places.n_calls += 1
        try:
            # A client competes with no more calls than can run, so another one waits for that many of them at most.
            async with places.running, self._running:
                yield
        finally:
            places.n_calls -= 1
            if not places.n_calls:
                del self._clients[client]
