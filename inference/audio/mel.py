"""The mel spectrogram that Wav2Lip was trained with.

Source: Rudrabha/Wav2Lip audio.py and hparams.py, with librosa 0.7's call defaults (reflect padding,
Slaney's mel scale and normalisation); librosa from 0.10 on, which the avatars' upstream used, pads with zeros.
Deliberately different: any range of columns can be computed by itself, so that an hour of audio is never in memory as
floats.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from inference.matrix_product import multiply

Padding = Literal["reflect", "zeros"]  # before and after the audio
Samples = npt.NDArray[np.int16]  # (N,) at SAMPLE_RATE, mono
Mel = npt.NDArray[np.float32]  # (N_MELS, T), MEL_RATE columns a second, -4..4

SAMPLE_RATE = 16_000
N_FFT = 800  # samples, 50 ms; the window is as long
HOP = 200  # samples, 12.5 ms
MEL_RATE = SAMPLE_RATE // HOP  # 80 columns a second
N_MELS = 80
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
PRE_EMPHASIS = 0.97
PRE_EMPHASIS_REACH = 1  # previous samples used
FLOOR = 1e-5  # smallest magnitude: -100 dB
REFERENCE_DB, LOWEST_DB = 20.0, -100.0
MAX_MEL = 4.0  # level of 0 dB; -MAX_MEL is silence
SILENCE = -MAX_MEL
FULL_SCALE = 32768  # 16-bit samples

BLOCK = 2048  # columns computed at a time
# Slaney's scale: linear below 1 kHz, logarithmic above.
HZ_PER_MEL = 200 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / HZ_PER_MEL  # 15
LOG_STEP = np.log(6.4) / 27


def compute_mel(samples: Samples, padding: Padding = "reflect") -> Mel:
    """Compute the whole spectrogram: (80, 1 + N // 200) float32, -4..4.

    samples: (N,) int16, 16 kHz mono. Raises: ValueError if there are no samples.
    """
    n_columns = count_mel_columns(len(samples))
    blocks = [mel_columns(samples, at, min(at + BLOCK, n_columns), padding) for at in range(0, n_columns, BLOCK)]
    return np.concatenate(blocks, axis=1)


def mel_columns(samples: Samples, start: int, end: int, padding: Padding = "reflect") -> Mel:
    """Compute columns start..end-1 of the spectrogram: (80, end - start) float32; silence outside the audio.

    Raises: ValueError if there are no samples.
    """
    n_columns = count_mel_columns(len(samples))
    columns = np.full((N_MELS, end - start), SILENCE, np.float32)
    first, last = max(start, 0), min(end, n_columns)
    if first < last:
        columns[:, first - start : last - start] = scale(
            multiply(mel_basis(), magnitudes(samples, first, last, padding))
        )
    return columns


def count_mel_columns(n_samples: int) -> int:
    """Return the number of columns. Raises: ValueError if there are no samples."""
    if n_samples < 1:
        raise ValueError("audio without samples has no spectrogram")
    return 1 + n_samples // HOP


def magnitudes(samples: Samples, first: int, last: int, padding: Padding = "reflect") -> npt.NDArray[np.float32]:
    """Return the magnitudes of the centred Fourier transforms first..last-1: (401, last - first)."""
    at = np.arange(first * HOP - N_FFT // 2, (last - 1) * HOP + N_FFT // 2)
    inside = reflect(at, len(samples))
    emphasised = emphasise(samples, inside)
    if padding == "zeros":
        emphasised = np.where(inside == at, emphasised, 0)
    return magnitudes_of(emphasised)


def magnitudes_of(emphasised: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the magnitudes of the transforms that fit into the samples: (401, 1 + (len - 800) // 200)."""
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, N_FFT)[::HOP]
    return np.abs(np.fft.rfft(frames * hann(), axis=1)).T.astype(np.float32)


def compute_unpadded_mel(samples: Samples) -> Mel:
    """Compute the columns that are entirely inside the samples: (80, 1 + (N - 801) // 200) float32.

    samples: (N,) int16; the first only serves to pre-emphasise the second.
    """
    emphasised = (samples[1:] - PRE_EMPHASIS * samples[:-1]) / FULL_SCALE
    return scale(multiply(mel_basis(), magnitudes_of(emphasised)))


def emphasise(samples: Samples, at: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return y[n] = x[n] - 0.97 x[n - 1] at these indices; x[-1] is 0."""
    before = np.where(at > 0, samples[np.maximum(at - 1, 0)], 0)
    return (samples[at] - PRE_EMPHASIS * before) / FULL_SCALE


def reflect(at: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Mirror indices outside 0..length-1 back into it; the ends are not repeated."""
    if length == 1:
        return np.zeros_like(at)
    period = 2 * (length - 1)
    around = np.abs(at) % period
    return np.where(around < length, around, period - around)


def scale(mel: npt.NDArray[np.float32]) -> Mel:
    """Scale magnitudes to -4..4: -100 dB and below is -4, 0 dB is 4."""
    decibels = 20 * np.log10(np.maximum(mel, FLOOR)) - REFERENCE_DB
    scaled = 2 * MAX_MEL * (decibels - LOWEST_DB) / -LOWEST_DB - MAX_MEL
    return np.clip(scaled, -MAX_MEL, MAX_MEL).astype(np.float32)


@cache
def hann() -> npt.NDArray[np.float64]:
    """Return the periodic Hann window: (800,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


@cache
def mel_basis() -> npt.NDArray[np.float32]:
    """Return triangular filters of equal area over the frequencies of a transform: (80, 401)."""
    centres = to_hz(np.linspace(to_mel(LOWEST_HZ), to_mel(HIGHEST_HZ), N_MELS + 2))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    ramps = centres[:, None] - frequencies
    widths = np.diff(centres)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (centres[2:] - centres[:-2]))[:, None]).astype(np.float32)


def to_mel(hz: float) -> float:
    return hz / HZ_PER_MEL if hz < BREAK_HZ else float(BREAK_MEL + np.log(hz / BREAK_HZ) / LOG_STEP)


def to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < BREAK_MEL, mel * HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mel - BREAK_MEL)))
