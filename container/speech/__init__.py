"""Text to audio, by espeak-ng if it is installed."""
