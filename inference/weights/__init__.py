"""Weights: the sets known by name, where they come from, and how they are checked and loaded."""
