"""A PostgreSQL server of the tests' own, from the system's packages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from bench import backing_servers
from container.jobs.schema import metadata

# Not the folder that a test sets for its temporary files: the first test that needs the server would move it there,
# where the server's own user may not go.
FOLDER = Path(tempfile.gettempdir())


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Yield the URL of an empty database, named viseme. Skips the test if PostgreSQL is not installed."""
    try:
        with backing_servers.postgresql_server(FOLDER) as server:
            yield server.url
    except backing_servers.ServerMissing as err:
        pytest.skip(str(err))


def empty_tables(connection: Connection) -> None:
    """Delete every job, but keep the identity of the database and its key."""
    tables = ", ".join(name for name in metadata.tables if name not in ("job_identity", "job_url_keys"))
    connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
