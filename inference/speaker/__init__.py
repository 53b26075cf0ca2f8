"""A synthetic speaker: clips with known words, for demos, tests and training."""
