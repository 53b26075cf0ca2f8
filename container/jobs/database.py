"""The connection to the jobs database: SQLite in a file by default, PostgreSQL by its URL."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from inference.errors import InvalidRequest, StorageError

SQLITE, POSTGRESQL = "sqlite", "postgresql"
POSTGRESQL_DRIVER = "postgresql+psycopg"
LOCK_TIMEOUT_S = 30.0  # seconds that a statement waits for another process's transaction
MIGRATION_LOCK = 0x5649_5345  # key of the advisory lock that PostgreSQL's migrations take
WRITES = "writes"  # execution option: the transaction writes


def open_database(url: str | None, data_dir: Path) -> Engine:
    """Connect to the database at `url`, by default SQLite in `data_dir`, and bring its tables up to date.

    Raises: InvalidRequest if the URL is wrong or its driver is not installed; StorageError if it cannot be opened.
    """
    engine = make_engine(url or default_url(data_dir))
    try:
        migrate(engine)
    except (DBAPIError, OSError) as err:
        engine.dispose()
        raise StorageError(f"the jobs database {shown_url(engine)} cannot be opened ({reason_of(err)})") from err
    return engine


def default_url(data_dir: Path) -> str:
    return f"sqlite:///{data_dir.absolute() / 'jobs' / 'jobs.sqlite3'}"


def make_engine(url: str) -> Engine:
    """Return an engine that connects on first use. Raises: InvalidRequest."""
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind == SQLITE:
            return make_sqlite_engine(url)
        if kind in (POSTGRESQL, "postgres"):
            parsed = parsed.set(drivername=POSTGRESQL_DRIVER)
            return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ArgumentError as err:
        raise InvalidRequest("VISEME_DATABASE_URL: not a database URL; expected postgresql://USER@HOST/NAME") from err
    except (ModuleNotFoundError, NoSuchModuleError) as err:
        raise InvalidRequest(
            "VISEME_DATABASE_URL: PostgreSQL needs psycopg, which is not installed; install viseme[postgresql]"
        ) from err
    raise InvalidRequest(f"VISEME_DATABASE_URL: found {kind}; expected postgresql or sqlite")


def make_sqlite_engine(url: str) -> Engine:
    """Return an engine whose commits are on the disk when they return, and whose readers never wait for a writer."""
    path = make_url(url).database
    if not path or path == ":memory:":
        raise InvalidRequest("VISEME_DATABASE_URL: SQLite in memory loses every job; expected sqlite:///FILE")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions late, and by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes then fails at once if another one has written between.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def migrate(engine: Engine) -> None:
    """Bring the tables up to date; one process at a time. Raises: DBAPIError."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with migration_lock(engine), engine.connect().execution_options(**{WRITES: True}) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


@contextmanager
def migration_lock(engine: Engine) -> Iterator[None]:
    """Hold the lock of migrations: an advisory one in PostgreSQL, a file beside SQLite's."""
    if engine.dialect.name == POSTGRESQL:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        return
    with Path(f"{engine.url.database}.lock").open("a") as file:
        with contextlib.suppress(OSError):  # a file system without locks: SQLite itself still has its own
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shown_url(engine: Engine) -> str:
    """Return the URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def reason_of(err: Exception) -> str:
    """Return the first line of the driver's message: SQLAlchemy adds the statement and its values."""
    cause = err.orig if isinstance(err, DBAPIError) and err.orig is not None else err
    return str(cause).strip().partition("\n")[0]
