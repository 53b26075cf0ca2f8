"""Migrations of the jobs database, run by Alembic at the start."""
