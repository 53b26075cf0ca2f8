"""Training recipes: how the bundled weights were made, and how to train them further."""
