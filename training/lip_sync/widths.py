"""Widths of the narrow Wav2Lip that is trained here."""

from __future__ import annotations

from inference.dimensions.wav2lip import Wav2LipWidths

WIDTHS = Wav2LipWidths(
    face_encoder=(8, 16, 32, 48, 64, 128, 128),
    audio_encoder=(16, 32, 64, 128, 256),
    face_decoder=(128, 128, 128, 96, 64, 48, 24),
    output=16,
)
N_FEATURES = WIDTHS.audio_encoder[-1]  # outputs of the audio encoder
