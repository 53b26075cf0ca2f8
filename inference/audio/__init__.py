"""Audio features for lip networks: the mel spectrogram, its windows, and streaming resampling."""

from inference.audio.mel import MEL_RATE, N_MELS, SAMPLE_RATE, compute_mel, count_mel_columns, mel_columns
from inference.audio.resample import Resampler
from inference.audio.sample_buffer import Tape
from inference.audio.wav2lip_windows import WINDOW, count_frames, cut_window, upstream_starts, window_start

__all__ = [
    "MEL_RATE",
    "N_MELS",
    "SAMPLE_RATE",
    "WINDOW",
    "Resampler",
    "Tape",
    "compute_mel",
    "count_frames",
    "count_mel_columns",
    "cut_window",
    "mel_columns",
    "upstream_starts",
    "window_start",
]
