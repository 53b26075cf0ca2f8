"""A PostgreSQL server of the tests' own, from the system's packages."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALLED = Path("/usr/lib/postgresql")  # where Debian's packages put the server's programs
ACCOUNT = "postgres"  # of Debian's packages: the server does not run as root


def find_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl of the newest version; None if there is none."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Yield the URL of an empty database, named viseme. Skips the test if PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    account = ACCOUNT if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="viseme-test-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, account)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments],
            check=True,
            user=account,
            cwd=folder,
            env={"LC_ALL": "C"},
            capture_output=True,
        )

    try:
        data, port = str(folder / "data"), free_port()
        run("initdb", "--pgdata", data, "--auth", "trust", "--username", "viseme", "--no-sync", "--encoding", "UTF8")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        run("pg_ctl", "start", "--wait", "--pgdata", data, "--options", options, "--log", str(folder / "log"))
        try:
            run("createdb", "--host", "127.0.0.1", "--port", str(port), "--username", "viseme", "viseme")
            yield f"postgresql://viseme@127.0.0.1:{port}/viseme"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", data)
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
