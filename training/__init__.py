"""Training recipes: how the shipped weights were made, and how to carry them on."""
