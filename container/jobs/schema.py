"""The tables of the jobs database, for SQLite and PostgreSQL. Times: seconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
)

# Names for constraints, so that migrations can refer to them on every database.
CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER column

jobs = Table(
    "jobs",
    metadata,
    Column("number", ROW_ID, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(128), nullable=False),
    Column("client", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", String(64), nullable=False, server_default=""),
    Column("progress", Integer, nullable=False, server_default="0"),
    Column("turn", BigInteger, nullable=False),  # order of claims, see `container.jobs.repository`
    # The request.
    Column("route", String(64), nullable=False),
    Column("headers", JSON, nullable=False),
    Column("task", String(32), nullable=False),
    Column("accept", Text),
    Column("request_sha256", String(64), nullable=False),
    Column("input_bytes", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("idempotency_key", String(128)),
    Column("webhook_url", Text),
    Column("webhook_events", JSON, nullable=False),
    Column("extra", JSON, nullable=False),
    # The attempt that runs, or ran last. The lease is that of a running job.
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("n_released", Integer, nullable=False, server_default="0"),  # attempts that do not count as lost
    Column("lease_owner", String(128)),
    Column("lease_host", String(128)),
    Column("lease_process", String(64)),
    Column("lease_expires_at", Double),
    Column("retry_at", Double),  # a queued job is not claimed earlier
    # Times and the end.
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("expires_at", Double),
    Column("swept_at", Double),  # since then no files of lost attempts are left
    Column("input_deleted_at", Double),  # before the job itself, as space was short
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    # NULL keys are distinct from each other, so this applies only to jobs that have one.
    Index("uq_jobs_owner_idempotency_key", "owner", "idempotency_key", unique=True),
    Index("ix_jobs_owner_number", "owner", "number"),
)
# Conditions with literal values: a database uses a partial index only if it can see that the condition holds.
IS_QUEUED = jobs.c.state == literal_column("'queued'")
IS_RUNNING = jobs.c.state.in_((literal_column("'starting'"), literal_column("'processing'")))
IS_UNSWEPT = jobs.c.finished_at.is_not(None) & jobs.c.swept_at.is_(None)
HAS_SPARE_INPUT = jobs.c.finished_at.is_not(None) & jobs.c.input_deleted_at.is_(None)
# Partial indexes: as long as the queue, or as what runs, however many jobs are finished.
Index("ix_jobs_queue", jobs.c.turn, jobs.c.number, sqlite_where=IS_QUEUED, postgresql_where=IS_QUEUED)
Index("ix_jobs_leases", jobs.c.lease_expires_at, sqlite_where=IS_RUNNING, postgresql_where=IS_RUNNING)
Index("ix_jobs_unswept", jobs.c.number, sqlite_where=IS_UNSWEPT, postgresql_where=IS_UNSWEPT)
Index("ix_jobs_inputs", jobs.c.finished_at, sqlite_where=HAS_SPARE_INPUT, postgresql_where=HAS_SPARE_INPUT)
Index("ix_jobs_expiry", jobs.c.expires_at)

outputs = Table(
    "job_outputs",
    metadata,
    Column("job_number", ROW_ID, ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("key", Text),
    Column("content_type", String(128)),
    Column("n_bytes", BigInteger),
    Column("sha256", String(64)),
    Column("s3_bucket", String(63)),
    Column("s3_key", Text),
    Column("url", Text),
    Column("details", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
)

attempts = Table(
    "job_attempts",
    metadata,
    Column("job_number", ROW_ID, ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("worker", String(128), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(16)),
    Column("error", JSON(none_as_null=True)),
    Column("ram_peak_mib", Double),
    Column("vram_peak_mib", Double),
)

events = Table(
    "job_events",
    metadata,
    Column("job_number", ROW_ID, ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
)

# Webhooks to be sent. They are written in the transaction of what they report, so that none is lost or made up.
deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("number", ROW_ID, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),  # header webhook-id, the same at each try
    Column("job_number", ROW_ID, ForeignKey("jobs.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("event", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("receiver", String(255), nullable=False, server_default=""),  # host and port of the URL
    Column("payload", Text, nullable=False),
    Column("state", String(16), nullable=False),  # pending, delivered, failed
    Column("n_tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", Double, nullable=False),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("created_at", Double, nullable=False),
)
PENDING: ColumnElement[str] = literal_column("'pending'")
IS_PENDING = deliveries.c.state == PENDING
Index(
    "ix_webhook_deliveries_due",
    deliveries.c.next_try_at,
    deliveries.c.receiver,  # so that those to a busy one are passed over in the index
    sqlite_where=IS_PENDING,
    postgresql_where=IS_PENDING,
)

# The bytes of the inputs in storage, in the only row. They change in the transactions that add and delete the records.
input_usage = Table(
    "job_input_usage",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("n_bytes", BigInteger, nullable=False),
)

# The identity of the database, in its only row: its files lie under that name, apart from those of other databases.
identities = Table(
    "job_identity",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("id", String(32), nullable=False),
)

# The key that signs URLs of outputs, in its only row: every server and worker of the database has it.
url_keys = Table(
    "job_url_keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("secret", String(64), nullable=False),
)

# The turn of the job that was claimed last, in the row of the client ""; the turn of each client's last job.
turns = Table(
    "job_turns",
    metadata,
    Column("client", String(128), primary_key=True),
    Column("turn", BigInteger, nullable=False),
)
