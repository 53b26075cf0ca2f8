"""The jobs database: its tables, migrations and connections."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, QueuePool, create_engine, inspect, text
from support.waiting import wait_until

from container.jobs.database import default_url, make_engine, open_database
from container.jobs.repository import JobRepository
from container.jobs.schema import metadata
from inference.errors import InvalidRequest, StorageError


def test_the_migrations_make_the_tables_of_the_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "viseme_schema_version"})
        differences = compare_metadata(context, metadata)
    assert differences == []


def test_opening_it_again_keeps_what_is_in_it(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO job_turns VALUES ('a', 3)"))
    url = engine.url.render_as_string(hide_password=False)
    again = open_database(url, tmp_path)
    with again.connect() as connection:
        assert connection.scalar(text("SELECT turn FROM job_turns WHERE client = 'a'")) == 3
    again.dispose()


def open_and_close(url: str, folder: Path) -> None:
    open_database(url, folder).dispose()


def test_processes_that_start_at_once_migrate_once(postgresql_url: str, tmp_path: Path) -> None:
    for url in (default_url(tmp_path), postgresql_url):
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=open_and_close, args=(url, tmp_path)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_password_may_be_outside_of_the_url(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """infra/compose.yaml does so: in a URL, "@" and "/" of a password would have to be escaped."""
    password = "p@ss/w:rd#%25 ?$"
    owner = create_engine(make_engine(postgresql_url).url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        folder = Path(str(connection.scalar(text("SHOW data_directory"))))
        connection.execute(text(f"CREATE ROLE guest LOGIN PASSWORD '{password}'"))
        connection.execute(text("CREATE DATABASE guests OWNER guest"))
        rules = folder / "pg_hba.conf"
        rules.write_text("host guests guest 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        connection.execute(text("SELECT pg_reload_conf()"))
    url = owner.url.set(username="guest", database="guests").render_as_string()
    owner.dispose()

    def is_rejected() -> bool:
        try:
            open_database(url, tmp_path).dispose()
        except StorageError as err:
            return "password authentication failed" in str(err)
        return False  # the rule is not in force yet

    monkeypatch.setenv("PGPASSWORD", "another")
    wait_until(is_rejected)
    monkeypatch.setenv("PGPASSWORD", password)
    open_database(url, tmp_path).dispose()


def test_sqlite_keeps_commits_through_a_power_failure(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://a/b", "found mysql; expected postgresql or sqlite"),
        ("nonsense", "not a database URL"),
        ("sqlite://", "SQLite in memory loses every job"),
    ],
)
def test_a_wrong_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_engine(url)


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"postgresql.*127\.0\.0\.1:9/viseme cannot be opened") as raised:
        open_database("postgresql://viseme:secret@127.0.0.1:9/viseme", tmp_path)
    assert "secret" not in str(raised.value)


def test_connections_that_are_all_in_use_are_a_storage_error(tmp_path: Path) -> None:
    """Then those who call try again, as with a database that is away."""
    open_database(None, tmp_path).dispose()
    engine = create_engine(default_url(tmp_path), poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(StorageError, match="the jobs database failed"):
        JobRepository(engine).identity()
    engine.dispose()


def test_the_claims_use_the_index_of_the_queue(engine: Engine) -> None:
    names = {index["name"] for index in inspect(engine).get_indexes("jobs")}
    assert {"ix_jobs_queue", "ix_jobs_leases", "ix_jobs_unswept", "uq_jobs_owner_idempotency_key"} <= names
