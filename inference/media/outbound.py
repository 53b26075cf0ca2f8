"""Requests to URLs that callers name: bounded, and to public addresses only.

The address is checked after the name is resolved, and the connection is made to the address that was checked: a name
that resolves differently the second time, or a redirect, reaches nothing else.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from inference.errors import AccessDenied, InvalidRequest, MediaNotFound, MediaTooLarge, StorageError

SCHEMES = {"http": 80, "https": 443}
MAX_URL = 2048  # characters
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
CONNECT_TIMEOUT_S = 10.0  # for each address of a name
READ_TIMEOUT_S = 30.0  # seconds without a byte
FETCH_TIMEOUT_S = 900.0  # seconds for a whole file: a gigabyte at 10 Mbit/s
POST_TIMEOUT_S = 60.0  # seconds for a whole call, but for the look-up of its name
WRITE_BYTES = 16 << 10  # bytes written at a time, each time within what is left of the call
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv6 addresses that stand for IPv4 addresses
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # the IPv6 addresses that public hosts have (RFC 4291, IANA)
TIMEOUTS = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class UrlRules:
    """Which URLs may be requested. allowed_hosts: names, or name:port, that may have private addresses."""

    allowed_hosts: tuple[str, ...] = ()

    def check(self, url: str) -> SplitResult:
        """Return the parts of a URL. Raises: InvalidRequest if it cannot be requested, whatever its address."""
        if len(url) > MAX_URL:
            raise InvalidRequest(f"a URL has {len(url)} characters; at most {MAX_URL} expected")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as err:
            raise InvalidRequest(f"{url[:200]!r}: not a URL ({err})") from err
        if parts.scheme not in SCHEMES or not parts.hostname or port == 0:
            raise InvalidRequest(f"{url[:200]!r}: expected a URL with http or https and a host")
        if parts.username is not None or parts.password is not None:
            raise InvalidRequest("a URL with a user name or password; expected one without")
        if not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
            raise InvalidRequest(f"{url[:200]!r}: expected a URL in ASCII without spaces")
        return parts

    def check_literal(self, url: str) -> None:
        """Check a URL that is requested later, as far as that works without a look-up of its name.

        Raises: InvalidRequest; AccessDenied if its host is an address that is not public.
        """
        parts = self.check(url)
        host = parts.hostname or ""
        with contextlib.suppress(ValueError):
            address = str(ipaddress.ip_address(host))
            if not self.is_allowed(host, parts.port or SCHEMES[parts.scheme]):
                check_public(host, [address])

    def is_allowed(self, host: str, port: int) -> bool:
        """Return whether this host may have a private address."""
        return bool({host.lower(), f"{host.lower()}:{port}"} & set(self.allowed_hosts))


class DeadlineStream(httpcore.NetworkStream):
    """A connection that ends at a time: a host that sends a byte now and then would hold it for ever."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float, clock: Callable[[], float]) -> None:
        self._stream, self._deadline, self._clock = stream, deadline, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            piece = buffer[start : start + WRITE_BYTES]
            self._stream.write(piece, self._left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = self._left(timeout, httpcore.ConnectTimeout)
        encrypted = self._stream.start_tls(ssl_context, server_hostname, left_s)
        return DeadlineStream(encrypted, self._deadline, self._clock)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
        """Return the seconds that the next step may take. Raises: the error if none are left."""
        left_s = self._deadline - self._clock()
        if left_s <= 0:
            raise error("the call took too long as a whole")
        return left_s if timeout is None else min(timeout, left_s)


class PublicAddressBackend(httpcore.SyncBackend):
    """Connects to public addresses only, or to hosts that the rules allow. Its connections end at the deadline."""

    def __init__(self, rules: UrlRules, resolve: Resolve, deadline: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._rules, self._resolve = rules, resolve
        self._deadline, self._clock = deadline, clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers. Raises: AccessDenied if the host has a private one."""
        addresses = self._resolve(host, port)
        if not self._rules.is_allowed(host, port):
            check_public(host, addresses)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            if self._clock() > self._deadline:
                raise httpcore.ConnectTimeout(f"{host} was not reached in time")
            try:
                stream = super().connect_tcp(address, port, timeout, local_address, socket_options)
                return DeadlineStream(stream, self._deadline, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as err:
                error = err
        raise error


class OutboundClient:
    """Requests URLs that callers name. Safe to use from several threads."""

    def __init__(
        self,
        rules: UrlRules,
        *,
        resolve: Resolve | None = None,
        certificates: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """resolve: returns the addresses of a name. certificates: of the authorities; by default the system's."""
        self._rules, self._clock = rules, clock
        self._certificates = certificates or ssl.create_default_context()
        self._resolve = resolve or resolve_name

    def fetch(self, url: str, target: Path, max_bytes: int, on_chunk: Callable[[int], None] = lambda _n: None) -> str:
        """Download a file. Returns: its content type, in lower case without parameters; empty if it has none.

        on_chunk: called with the bytes so far; an exception that it raises ends the download.
        Raises: InvalidRequest, AccessDenied, MediaNotFound, MediaTooLarge; StorageError if the host cannot be reached,
        or breaks off. Nothing is left at the target then.
        """
        deadline = self._clock() + FETCH_TIMEOUT_S
        try:
            with self._follow(url, deadline) as response:
                headers = decoded(response.headers)
                check_status(url, response.status)
                if (declared := headers.get("content-length", "")).isdecimal():
                    check_size(url, int(declared), max_bytes)
                with target.open("xb") as file:
                    for chunk in response.iter_stream():
                        file.write(chunk)
                        check_size(url, file.tell(), max_bytes)
                        on_chunk(file.tell())
                        check_time(url, self._clock(), deadline)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return headers.get("content-type", "").partition(";")[0].strip().lower()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a body and return the status; redirects are not followed. It takes a minute at most.

        Raises: the errors of `fetch`.
        """
        self._rules.check(url)
        with self._request("POST", url, headers, self._clock() + POST_TIMEOUT_S, body) as response:
            return response.status

    @contextmanager
    def _follow(self, url: str, deadline: float) -> Iterator[httpcore.Response]:
        """Yield the response to GET, after redirects; every address on the way is checked."""
        for _ in range(MAX_REDIRECTS + 1):
            self._rules.check(url)
            with self._request("GET", url, {"accept-encoding": "identity"}, deadline) as response:
                location = decoded(response.headers).get("location")
                if response.status not in REDIRECTS or location is None:
                    yield response
                    return
            url = urljoin(url, location)
        raise InvalidRequest(f"{shown(url)}: over {MAX_REDIRECTS} redirects")

    @contextmanager
    def _request(
        self, method: str, url: str, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> Iterator[httpcore.Response]:
        host = {"host": urlsplit(url).netloc, "user-agent": "viseme", "accept": "*/*"}
        sent = [*host.items(), *headers.items()]
        target = url.partition("#")[0]
        backend = PublicAddressBackend(self._rules, self._resolve, deadline, self._clock)
        with (
            httpcore.ConnectionPool(network_backend=backend, ssl_context=self._certificates) as pool,
            network_errors(url),
            pool.stream(
                method,
                target,
                headers=sent,
                content=body,
                extensions={"timeout": TIMEOUTS},
            ) as response,
        ):
            yield response


def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of a name. Raises: httpcore.ConnectError if it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise httpcore.ConnectError(f"{host} cannot be resolved ({err})") from err
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_public(host: str, addresses: list[str]) -> None:
    """Raise AccessDenied if one of the addresses is private, of this machine, or otherwise not public."""
    for address in addresses:
        if not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise AccessDenied(f"{host}: has an address that is not public; VISEME_ALLOWED_URL_HOSTS may allow it")


def is_public(address: IpAddress) -> bool:
    """Return whether an address is public, and whether the IPv4 address that it may stand for is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.teredo is not None:
            return False
        if inner is not None:
            return is_public(inner)
        if address not in GLOBAL_UNICAST:  # such as ::127.0.0.1 and fec0::1, which the library takes for global
            return False
    return address.is_global and not address.is_multicast


def check_status(url: str, status: int) -> None:
    """Raise the error of a status that is not 200."""
    if status == 200:
        return
    text = f"{shown(url)}: answered with status {status}; expected 200"
    if status in (404, 410):
        raise MediaNotFound(text)
    if status in (401, 403):
        raise AccessDenied(text)
    raise StorageError(text) if status >= 500 or status in (408, 429) else InvalidRequest(text)


def check_size(url: str, n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise MediaTooLarge(f"{shown(url)}: over the limit of {max_bytes} bytes")


def check_time(url: str, now: float, deadline: float) -> None:
    if now > deadline:
        raise StorageError(f"{shown(url)}: not downloaded within {FETCH_TIMEOUT_S:g} s")


@contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Raise StorageError if a host cannot be reached, or breaks off: another try may succeed."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ssl.SSLError) as err:
        raise StorageError(f"{shown(url)}: {type(err).__name__} ({err})") from err


def decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def shown(url: str) -> str:
    """Return a URL without its query, which may contain a signature."""
    return url.partition("?")[0][:200]
