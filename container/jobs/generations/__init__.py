"""Lip sync in the form of sync.so's API, over durable jobs."""
