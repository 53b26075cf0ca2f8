"""Add the receivers of webhooks, by which those to a slow one leave the others their places."""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = "webhook_deliveries"
MAX_RECEIVER = 255


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("receiver", sa.String(length=MAX_RECEIVER), server_default="", nullable=False))
    deliveries = sa.table(
        TABLE, sa.column("url", sa.Text), sa.column("receiver", sa.String), sa.column("state", sa.String)
    )
    pending = sa.select(deliveries.c.url).where(deliveries.c.state == "pending").distinct()
    for url in list(op.get_bind().scalars(pending)):
        values = {"receiver": urlsplit(url).netloc.lower()[:MAX_RECEIVER]}
        op.execute(deliveries.update().where(deliveries.c.url == url).values(values))
    op.drop_index("ix_webhook_deliveries_pending", TABLE)
    create_index("ix_webhook_deliveries_due", ["next_try_at", "receiver"])


def downgrade() -> None:
    op.drop_index("ix_webhook_deliveries_due", TABLE)
    create_index("ix_webhook_deliveries_pending", ["next_try_at"])
    op.drop_column(TABLE, "receiver")


def create_index(name: str, columns: list[str]) -> None:
    is_pending = sa.text("state = 'pending'")
    op.create_index(name, TABLE, columns, unique=False, sqlite_where=is_pending, postgresql_where=is_pending)
