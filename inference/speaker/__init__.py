"""A synthetic speaker: clips with known words, for demos, tests and training."""

from inference.speaker.clip import Film, FilmOptions
from inference.speaker.speech import TimedWord

__all__ = ["Film", "FilmOptions", "TimedWord"]
