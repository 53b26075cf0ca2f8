"""The synthesiser that the settings name."""

from __future__ import annotations

from container.speech.kokoro import KokoroSynthesizer, read_installed_model
from container.speech.synthesizer import SpeechSynthesizer, Synthesizer
from inference.settings import Settings


def load_synthesizer(settings: Settings) -> Synthesizer:
    """Return what speaks texts; whether it can is in its `is_available`."""
    espeak = SpeechSynthesizer()
    if settings.tts == "espeak":
        return espeak
    return KokoroSynthesizer(settings.kokoro_voices, settings.wanted_threads or 0, espeak, read_installed_model)
