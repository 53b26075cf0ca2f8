"""Waiting for what another thread or process does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

PATIENCE_S = 120.0  # only a guard against hanging


def wait_until(is_so: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def read_all(one: socket.socket) -> bytes:
    """Read until the server closes or aborts the connection."""
    parts = []
    try:
        while part := one.recv(1 << 20):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
