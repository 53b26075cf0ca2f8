"""Weights: the sets known by name, where they come from, and how their files are checked and loaded."""
