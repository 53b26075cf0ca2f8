"""Durable jobs: their records in a database, their files in storage, and the workers that run them."""
