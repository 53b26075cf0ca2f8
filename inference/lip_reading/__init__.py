"""Lip reading: transcribe a silent video of a face."""

from inference.lip_reading.options import Alternative, ModelInfo, ReadOptions, Transcript, Word
from inference.lip_reading.pipeline import LipReader

__all__ = ["Alternative", "LipReader", "ModelInfo", "ReadOptions", "Transcript", "Word"]
