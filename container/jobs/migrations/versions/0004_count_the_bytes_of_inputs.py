"""Count the bytes of the inputs in storage, and allow them to be deleted before their jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE, INDEX = "job_input_usage", "ix_jobs_inputs"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("input_deleted_at", sa.Double(), nullable=True))
    condition = sa.text("finished_at IS NOT NULL AND input_deleted_at IS NULL")
    op.create_index(INDEX, "jobs", ["finished_at"], unique=False, sqlite_where=condition, postgresql_where=condition)
    op.create_table(
        TABLE,
        sa.Column("key", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_job_input_usage")),
    )
    op.execute("INSERT INTO job_input_usage (key, n_bytes) SELECT 1, coalesce(sum(input_bytes), 0) FROM jobs")


def downgrade() -> None:
    op.drop_table(TABLE)
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "input_deleted_at")
