"""Measurements, each a command: `python -m bench.speed CLIP` and so on; docs/benchmarks.md has their results."""
