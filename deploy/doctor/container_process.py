"""The process of a container on this machine: started, observed through /proc, and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import WrongRequest

PROC = Path("/proc")
LISTENING = "0A"  # state of a socket in /proc/net/tcp
POLL_S = 0.1
STOP_TIMEOUT_S = 5.0  # seconds to end by itself once the checks are over
N_LOG_LINES = 5
MAX_LOG_BYTES = 1 << 16


@dataclass(frozen=True)
class ListeningAddress:
    """Where a process accepts connections."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host.startswith("127.") or self.host == "::1"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ContainerProcess:
    """A running server. child: if it was started here; log: the file of its output then."""

    pid: int
    child: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    @classmethod
    def find(cls, pid: int) -> ContainerProcess:
        """Return a process of this machine. Raises: WrongRequest if it does not exist, or /proc is missing."""
        if not (PROC / str(pid) / "stat").exists():
            raise WrongRequest(f"--pid {pid}: no such process on this machine")
        return cls(pid)

    @property
    def is_running(self) -> bool:
        if self.child is not None:
            return self.child.poll() is None
        try:
            state = (PROC / str(self.pid) / "stat").read_text().rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state not in "ZX"

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or if it is no child."""
        return self.child.poll() if self.child is not None else None

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it ends in time."""
        give_up = time.monotonic() + timeout_s
        while self.is_running and time.monotonic() < give_up:
            time.sleep(POLL_S)
        return not self.is_running

    def addresses(self) -> set[ListeningAddress]:
        """Return where it and its children listen; empty if /proc does not say."""
        inodes = {inode for pid in family_of(self.pid) for inode in sockets_of(pid)}
        return {address for inode, address in listening_sockets() if inode in inodes}

    def last_lines(self) -> str:
        """Return the end of its output, on one line."""
        if self.log is None:
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - MAX_LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return " | ".join(lines[-N_LOG_LINES:])


@contextlib.contextmanager
def started_container(command: Sequence[str], port: int, log: Path) -> Iterator[ContainerProcess]:
    """Start a container's command as SageMaker does with a port of its choice; end all that is left of it afterwards.

    Raises: WrongRequest if the command cannot be started.
    """
    environment: Mapping[str, str] = os.environ | {"SAGEMAKER_BIND_TO_PORT": str(port)}
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        except OSError as err:
            raise WrongRequest(f"{command[0]}: cannot be started: {err}") from err
    try:
        yield ContainerProcess(child.pid, child, log)
    finally:
        if child.poll() is None:
            child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its session is its own: nothing else is in this group
        child.wait()


def choose_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def family_of(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(path.read_text().rpartition(") ")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:  # grows
        found += children.get(one, [])
    return found


def sockets_of(pid: int) -> Iterator[str]:
    """Yield the inodes of a process's sockets."""
    with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
        for path in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    yield target.removeprefix("socket:[").removesuffix("]")


def listening_sockets() -> Iterator[tuple[str, ListeningAddress]]:
    """Yield inode and address of each listening TCP socket of this network namespace."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = PROC / "net" / name
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == LISTENING:
                host, _, port = fields[1].partition(":")
                yield fields[9], ListeningAddress(socket.inet_ntop(family, as_address(host)), int(port, 16))


def as_address(text: str) -> bytes:
    """Return the bytes of an address in /proc/net/tcp: words of the machine's own order, in hexadecimal digits."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    return b"".join(int(word, 16).to_bytes(4, "little") for word in words)
