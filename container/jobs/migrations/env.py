"""Run the migrations over the connection that `container.jobs.database.migrate` passes."""

from __future__ import annotations

from alembic import context

from container.jobs.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="viseme_schema_version",
    render_as_batch=True,  # SQLite changes a column by copying the table
)
with context.begin_transaction():
    context.run_migrations()
