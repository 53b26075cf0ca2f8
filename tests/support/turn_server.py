"""A STUN and TURN server of the tests' own: coturn, from the system's packages."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.waiting import wait_until

USERNAME, PASSWORD = "viseme", "pass:word"


@dataclass(frozen=True)
class TurnServer:
    """A running server. address: on which it serves and relays. log: of what it does."""

    address: str
    port: int
    log: Path

    @property
    def n_allocations(self) -> int:
        """How many relayed addresses it has given so far."""
        return self.log.read_text().count("new, realm")


@contextmanager
def turn_server(address: str) -> Iterator[TurnServer]:
    """Run a server on an address of this machine inside of the block. Skips the test if coturn is not installed."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        options = {
            "listening-ip": address,
            "relay-ip": address,
            "listening-port": str(port),
            "user": f"{USERNAME}:{PASSWORD}",
            "realm": "viseme.test",
            "userdb": f"{folder}/users",
            "pidfile": f"{folder}/pid",
            "log-file": str(log),
        }
        flags = ("-n", "--lt-cred-mech", "--no-cli", "--no-tls", "--no-dtls", "--simple-log", "--verbose")
        arguments = [f"--{name}={value}" for name, value in options.items()]
        peers = ["--allow-loopback-peers"] if address.startswith("127.") else []
        process = subprocess.Popen(
            [program, *flags, *arguments, *peers], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: process.poll() is not None or answers(address, port))
            assert process.poll() is None, log.read_text() if log.exists() else "coturn ended"
            yield TurnServer(address, port, log)
        finally:
            process.terminate()
            process.wait()


def answers(address: str, port: int) -> bool:
    """Return whether a STUN binding request is answered. Source of the message: RFC 8489, section 5."""
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"viseme-tests"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.sendto(request, (address, port))
        try:
            return client.recv(2048)[:2] == b"\x01\x01"
        except (TimeoutError, ConnectionRefusedError):
            return False
