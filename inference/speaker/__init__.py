"""A synthetic speaker: clips with known words, for demos, tests and training."""

from inference.speaker.film import Film, FilmOptions, Shot
from inference.speaker.sitter import Sitter
from inference.speaker.speech import TimedWord

__all__ = ["Film", "FilmOptions", "Shot", "Sitter", "TimedWord"]
