"""Which of several faces speaks: the one whose mouth moves with the audio.

A network is not needed: the opening of the mouth and its speed are correlated with the level of the audio from 500 to
4000 Hz, the range of vowels. Slow changes are removed from all three, so that two people who speak at the same time
differ: without that, both correlate with the start and the end of speech. `bench.active_speaker` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference.media.audio_spool import BLOCK_SAMPLES, AudioSpool

Curve = npt.NDArray[np.float64]  # one value per frame

SPEECH_BAND_HZ = (500.0, 4000.0)
LEVEL_FLOOR = 16.0  # power per sample, of 16 bits: under the noise of a quiet room
SILENT_BELOW = 33  # levels of 16 bits, -60 dB: peak of audio that counts as silent
TREND_S = 1.0  # slower changes are removed
MIN_OPENING_DEVIATION = 0.012  # of the distance between the eyes: less is the noise of the landmarks
MIN_SPEED_DEVIATION = 0.008
MIN_LEVEL_DEVIATION = 1.0  # dB
SWITCH_COST = 8.0  # in units of a frame's correlation: a turn of a second is followed, a syllable is not
MAX_LAG_S = 0.12  # by which audio and video may be apart in the file
LAG_GAIN = 1.5  # by which another lag must fit better than none


def audio_levels(spool: AudioSpool, fps: float, n_frames: int) -> Curve | None:
    """Return the level of the audio in the band of speech during each frame, in dB; None if it is silent.

    Reads a frame at a time.
    """
    if is_silent(spool):
        return None
    levels = np.full(n_frames, 10 * np.log10(LEVEL_FLOOR))
    for k in range(n_frames):
        start, end = (round(at / fps * spool.rate) for at in (k, k + 1))
        if start > len(spool) - 2:
            break
        block = spool.read(start, min(end, len(spool)))
        levels[k] = band_level(block.astype(np.float64).mean(axis=1), spool.rate)
    return levels


def is_silent(spool: AudioSpool) -> bool:
    """Return whether no sample of the audio is above -60 dB."""
    blocks = (spool.read(start, start + BLOCK_SAMPLES) for start in range(0, len(spool), BLOCK_SAMPLES))
    return all(int(block.max()) <= SILENT_BELOW and int(block.min()) >= -SILENT_BELOW for block in blocks)


def band_level(samples: Curve, rate: int) -> float:
    """Return the level of some samples in the band of speech, in dB."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    first, last = (round(hz * len(samples) / rate) for hz in SPEECH_BAND_HZ)
    return float(10 * np.log10(spectrum[first:last].sum() / len(samples) + LEVEL_FLOOR))


def without_trend(curve: Curve, window: int) -> Curve:
    """Subtract the moving average over a window of frames; fewer at the ends."""
    if len(curve) == 0:
        return curve
    kernel = np.ones(min(window, 2 * len(curve) - 1) | 1)
    counts = np.convolve(np.ones(len(curve)), kernel)[len(kernel) // 2 :][: len(curve)]
    return curve - np.convolve(curve, kernel)[len(kernel) // 2 :][: len(curve)] / counts


def scaled(curve: Curve, window: int, least: float) -> Curve:
    """Remove the trend of a curve and divide it by its deviation, or by `least` if that is more."""
    detailed = without_trend(curve, window)
    return np.asarray(detailed / max(float(detailed.std()) if len(detailed) else 0.0, least))


def mouth_evidence(opening: Curve, levels: Curve, fps: float) -> Curve:
    """Return for each frame how much the mouth moves with the audio; the mean is near 0 if it does not.

    opening: of the mouth, in eye distances. levels: `scaled` levels of the same frames.
    """
    window = round(TREND_S * fps)
    speed = np.abs(np.gradient(opening)) if len(opening) > 1 else np.zeros(len(opening))
    moves = scaled(opening, window, MIN_OPENING_DEVIATION) + scaled(speed, window, MIN_SPEED_DEVIATION)
    return np.asarray(moves * levels / 2)


def choose_path(evidence: Sequence[Curve], cost: float = SWITCH_COST) -> npt.NDArray[np.int64]:
    """Return the face to choose in each frame: the path of most evidence, if each change of the face costs.

    evidence: a curve for each face, all of the same length. Source: the Viterbi algorithm.
    """
    scores = np.array(evidence)
    n_faces, n_frames = scores.shape
    best = np.zeros((n_frames, n_faces), np.int64)
    total = scores[:, 0]
    for t in range(1, n_frames):
        leader = int(total.argmax())
        stays = total >= total[leader] - cost
        best[t] = np.where(stays, np.arange(n_faces), leader)
        total = np.where(stays, total, total[leader] - cost) + scores[:, t]
    path = np.zeros(n_frames, np.int64)
    path[-1] = int(total.argmax())
    for t in range(n_frames - 1, 0, -1):
        path[t - 1] = best[t, path[t]]
    return path
