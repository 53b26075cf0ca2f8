"""Audio features for lip networks: the mel spectrogram, its windows, and streaming resampling."""

from inference.audio.mel import MEL_RATE, N_MELS, SAMPLE_RATE, compute_mel, count_mel_columns, mel_columns
from inference.audio.resample import Resampler
from inference.audio.sample_buffer import SampleBuffer
from inference.audio.wav2lip_windows import MEL_WINDOW, count_frames, cut_window, upstream_window_starts, window_start

__all__ = [
    "MEL_RATE",
    "MEL_WINDOW",
    "N_MELS",
    "SAMPLE_RATE",
    "Resampler",
    "SampleBuffer",
    "compute_mel",
    "count_frames",
    "count_mel_columns",
    "cut_window",
    "mel_columns",
    "upstream_window_starts",
    "window_start",
]
