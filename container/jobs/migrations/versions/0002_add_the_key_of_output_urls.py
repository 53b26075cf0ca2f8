"""Add the key that signs the URLs of outputs."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SECRET_BYTES = 32


def upgrade() -> None:
    op.create_table(
        "job_url_keys",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_job_url_keys")),
    )
    keys = sa.table("job_url_keys", sa.column("number", sa.Integer), sa.column("secret", sa.String))
    op.execute(keys.insert().values(number=1, secret=secrets.token_hex(SECRET_BYTES)))


def downgrade() -> None:
    op.drop_table("job_url_keys")
