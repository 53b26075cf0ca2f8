"""The HTTP API of durable jobs."""
