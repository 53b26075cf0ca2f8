"""PostgreSQL and Redis servers of the benches' and the tests' own, from the packages of Debian."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

INSTALLED = Path("/usr/lib/postgresql")  # in it, Debian's packages have a folder for each version
ACCOUNT = "postgres"  # of Debian's packages: the server does not run as root
START_TIMEOUT_S = 60.0


class ServerMissing(Exception):
    """A server is not installed. The message names its package."""


class PostgresqlServer:
    """A PostgreSQL server with one empty database. url: of it."""

    def __init__(self, folder: Path) -> None:
        """Create the database in an empty folder, and start the server. Raises: ServerMissing."""
        programs = find_programs()
        if programs is None:
            raise ServerMissing("PostgreSQL is not installed (Debian's package postgresql)")
        self._programs, self._folder, self._port = programs, folder, free_port()
        self._account = ACCOUNT if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._data = str(folder / "data")
        self.url = f"postgresql://viseme@127.0.0.1:{self._port}/viseme"
        if os.geteuid() == 0:
            shutil.chown(folder, self._account)
        options = ("--auth", "trust", "--username", "viseme", "--no-sync", "--encoding", "UTF8")
        self._run("initdb", "--pgdata", self._data, *options)
        self.start()
        address = ("--host", "127.0.0.1", "--port", str(self._port), "--username", "viseme")
        self._run("createdb", *address, "viseme")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "--pgdata", self._data, "--options", options, "--log", log)

    def stop(self) -> None:
        """Stop the server as a crash does: every connection is cut."""
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", self._data)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            user=self._account,
            cwd=self._folder,
            env={"LC_ALL": "C"},
            capture_output=True,
        )


class RedisServer:
    """A Redis server that keeps nothing on the disk. url: of it."""

    def __init__(
        self, folder: Path, options: Sequence[str] = ("--port", "{port}"), url: str = "redis://127.0.0.1:{port}/0"
    ) -> None:
        """Start the server on a free port. Raises: ServerMissing."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerMissing("Redis is not installed (Debian's package redis-server)")
        port = free_port()
        common = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder))
        self._command = [program, *common, *(option.format(port=port) for option in options)]
        self.url = url.format(port=port)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        with Redis.from_url(self.url) as client:
            while not answers(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("redis-server did not start")
                time.sleep(0.05)

    def stop(self) -> None:
        """Kill the server: every connection is cut, and what it had is lost."""
        self._process.kill()
        self._process.wait()

    def flush(self) -> None:
        with Redis.from_url(self.url) as client:
            client.flushall()


@contextmanager
def postgresql_server(parent: Path | None = None) -> Iterator[PostgresqlServer]:
    """Yield a server that is stopped, and deleted, after the block. Raises: ServerMissing.

    parent: folder for its files, which its own user must be able to reach; by default the one for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="viseme-postgresql-", dir=parent) as folder:
        server = PostgresqlServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Yield a server that is killed after the block. Raises: ServerMissing."""
    with tempfile.TemporaryDirectory(prefix="viseme-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def find_programs() -> Path | None:
    """Return the folder of the newest version's initdb and pg_ctl, or None if it is not installed."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
