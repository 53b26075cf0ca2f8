"""A synthetic speaker: clips with known words, for demos, tests and training."""

from inference.speaker.clip import SyntheticClip, SyntheticClipOptions
from inference.speaker.speech import TimedWord

__all__ = ["SyntheticClip", "SyntheticClipOptions", "TimedWord"]
