"""The speaker's voice: espeak-ng word by word if it is installed, else formant synthesis."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import cv2
import numpy as np
import numpy.typing as npt

from inference.errors import VisemeError
from inference.speaker.lexicon import spelling_of
from inference.speaker.speech import Phone, SynthesisedSpeech, TimedWord

Waveform = npt.NDArray[np.float32]  # (N,) mono, -1..1, at SYNTHESIS_RATE

SYNTHESIS_RATE = 16000  # Hz
PEAK = 0.5  # of full scale, after normalisation
FADE_S = 0.004  # at both ends of a word
STEP_SAMPLES = SYNTHESIS_RATE // 200  # between two spectral shapes: 5 ms
ESPEAK = "espeak-ng"
ESPEAK_TIMEOUT_S = 20
SPEED_RANGE = (80, 450)  # words per minute that espeak-ng supports
DEFAULT_SPEED = 175  # words per minute
SILENCE_LEVEL = 0.01  # of full scale; quieter samples are trimmed from both ends of a word

# Formants in Hz of a man's vowels and sonorants. Source: Peterson and Barney (1952), rounded.
FORMANTS = {
    "IY": (270, 2290, 3010), "IH": (390, 1990, 2550), "EH": (530, 1840, 2480), "AE": (660, 1720, 2410),
    "AA": (730, 1090, 2440), "AH": (640, 1190, 2390), "AO": (570, 840, 2410), "UW": (300, 870, 2240),
    "UH": (440, 1020, 2240), "L": (360, 1300, 2700), "R": (310, 1060, 1380), "W": (300, 610, 2200),
    "Y": (280, 2200, 3000), "M": (250, 1000, 2200), "N": (250, 1500, 2500),
}  # fmt: skip
GLIDES = {"EY": ("EH", "IY"), "AY": ("AA", "IH"), "AW": ("AA", "UH"), "OW": ("AO", "UW")}
# Noise band of a consonant: lowest and highest frequency in Hz, strength. Voiced ones also have VOICING.
NOISES = {
    "S": (4500, 7800, 0.5), "Z": (4500, 7800, 0.3), "F": (2500, 7800, 0.16), "V": (2500, 7800, 0.1),
    "TH": (2000, 7800, 0.13), "DH": (2000, 7800, 0.08), "CH": (2200, 6500, 0.5), "JH": (2200, 6500, 0.35),
    "P": (500, 2500, 0.25), "B": (400, 2000, 0.15), "T": (3000, 7000, 0.35), "D": (2500, 6000, 0.2),
    "K": (1500, 3500, 0.3), "G": (1200, 3000, 0.2), "HH": (800, 4000, 0.12),
}  # fmt: skip
STOPS = frozenset(("P", "B", "T", "D", "K", "G", "CH", "JH"))
BURST = 0.55  # silent part of a stop, before its burst
VOICING = {"Z": 0.25, "V": 0.3, "DH": 0.3, "B": 0.2, "D": 0.2, "G": 0.2, "JH": 0.15, "M": 0.5, "N": 0.5}
BANDWIDTHS = (90.0, 130.0, 200.0)  # Hz, per formant


def synthesise(speech: SynthesisedSpeech, seed: int) -> Waveform:
    """Synthesise the speech, as long as the clip: (N,) float32 at 16 kHz."""
    return synthesise_with_espeak(speech, seed) if has_espeak() else synthesise_with_formants(speech, seed)


def has_espeak() -> bool:
    return shutil.which(ESPEAK) is not None


def synthesise_with_espeak(speech: SynthesisedSpeech, seed: int) -> Waveform:
    """Synthesise each word with espeak-ng, fitted to its time, so that lips and audio agree."""
    pitch = int(np.random.default_rng((seed, 2)).integers(25, 75))
    waveform = np.zeros(round(speech.length_s * SYNTHESIS_RATE), np.float32)
    cached: dict[tuple[str, int], Waveform] = {}
    for word in speech.timed_words():
        n_samples = round((word.end_s - word.start_s) * SYNTHESIS_RATE)
        key = (word.word, n_samples)
        if key not in cached:
            cached[key] = fit_length(espeak_word(word, pitch), n_samples)
        start = round(word.start_s * SYNTHESIS_RATE)
        waveform[start : start + n_samples] += cached[key][: len(waveform) - start]
    return normalise_peak(waveform)


def espeak_word(word: TimedWord, pitch: int) -> Waveform:
    """Synthesise a word at the speed that comes closest to its duration."""
    seconds = word.end_s - word.start_s
    default = run_espeak(word.word, DEFAULT_SPEED, pitch)
    speed = DEFAULT_SPEED * len(default) / SYNTHESIS_RATE / seconds
    return run_espeak(word.word, int(np.clip(speed, *SPEED_RANGE)), pitch)


def run_espeak(word: str, speed: int, pitch: int) -> Waveform:
    """Return a word without the silence around it. Raises: VisemeError if espeak-ng fails."""
    command = [ESPEAK, "-v", "en-gb", "-s", str(speed), "-p", str(pitch), "--stdout", spelling_of(word)]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=ESPEAK_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as err:
        raise VisemeError(f"{ESPEAK} failed on {word}: {err}") from err
    with wave.open(io.BytesIO(answer.stdout)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / np.float32(32768)
    loud = np.flatnonzero(np.abs(samples) > SILENCE_LEVEL)
    if not len(loud):
        raise VisemeError(f"{ESPEAK} returned only silence for {word}")
    return fit_length(samples[loud[0] : loud[-1] + 1], round((loud[-1] + 1 - loud[0]) * SYNTHESIS_RATE / rate))


def fit_length(samples: Waveform, n_samples: int) -> Waveform:
    """Resample to `n_samples` with faded ends. This shifts the pitch by the remaining difference in length."""
    fitted = np.array(cv2.resize(samples[None], (n_samples, 1), interpolation=cv2.INTER_LINEAR)[0], np.float32)
    n_fade = min(round(FADE_S * SYNTHESIS_RATE), n_samples // 2)
    fade = np.linspace(0, 1, n_fade, dtype=np.float32)
    fitted[:n_fade] *= fade
    fitted[n_samples - n_fade :] *= fade[::-1]
    return fitted


def synthesise_with_formants(speech: SynthesisedSpeech, seed: int) -> Waveform:
    """Synthesise harmonics under the formants of each phoneme, and noise bands for unvoiced ones."""
    rng = np.random.default_rng((seed, 2))
    n_samples = round(speech.length_s * SYNTHESIS_RATE)
    formant_track = np.zeros((n_samples // STEP_SAMPLES + 2, 4), np.float32)  # strength, then three formants in Hz
    formant_track[:, 1:] = FORMANTS["AH"]
    noise = np.zeros(n_samples, np.float32)
    for phone in speech.phones:
        set_formants(formant_track, phone)
        add_noise(noise, phone, rng)
    hum = synthesise_harmonics(smooth_formants(formant_track), n_samples, rng.uniform(95, 190))
    return normalise_peak(hum + noise)


def set_formants(formant_track: npt.NDArray[np.float32], phone: Phone) -> None:
    """Set the strength of the voice and its formants for the duration of a phoneme, in place."""
    first, last = (
        round(phone.start_s * SYNTHESIS_RATE / STEP_SAMPLES),
        round(phone.end_s * SYNTHESIS_RATE / STEP_SAMPLES),
    )
    targets = GLIDES.get(phone.phoneme, (phone.phoneme, phone.phoneme))
    if targets[0] in FORMANTS:
        share = np.linspace(0, 1, last - first, dtype=np.float32)[:, None]
        start, end = (np.array(FORMANTS[target], np.float32) for target in targets)
        formant_track[first:last, 1:] = start * (1 - share) + end * share
    formant_track[first:last, 0] = VOICING.get(phone.phoneme, 1.0 if targets[0] in FORMANTS else 0.0)


def add_noise(waveform: Waveform, phone: Phone, rng: np.random.Generator) -> None:
    """Add the hiss or burst of a phoneme, in place."""
    if phone.phoneme not in NOISES:
        return
    low, high, strength = NOISES[phone.phoneme]
    start, end = round(phone.start_s * SYNTHESIS_RATE), round(phone.end_s * SYNTHESIS_RATE)
    if phone.phoneme in STOPS:
        start += round((end - start) * BURST)
    spectrum = np.fft.rfft(rng.normal(0, 1, end - start))
    frequencies = np.fft.rfftfreq(end - start, 1 / SYNTHESIS_RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    hiss = np.fft.irfft(spectrum, end - start) * np.hanning(end - start)
    waveform[start:end] += (strength * hiss).astype(np.float32)


def smooth_formants(formant_track: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Smooth formants and strength over about 20 ms."""
    return np.asarray(cv2.blur(formant_track, (1, 5)), np.float32)


def synthesise_harmonics(formant_track: npt.NDArray[np.float32], n_samples: int, pitch_hz: float) -> Waveform:
    """Synthesise the voiced part: multiples of a falling pitch, each as loud as the nearby formants make it."""
    at = np.arange(n_samples) / STEP_SAMPLES
    pitch = (
        pitch_hz
        * np.linspace(1.08, 0.9, n_samples)
        * (1 + 0.01 * np.sin(2 * np.pi * 5 * np.arange(n_samples) / SYNTHESIS_RATE))
    )
    phase = 2 * np.pi * np.cumsum(pitch) / SYNTHESIS_RATE
    waveform = np.zeros(n_samples, np.float32)
    steps = np.arange(len(formant_track))
    for k in range(1, int(4000 / pitch_hz)):
        loudness = formant_track[:, 0] * formant_gain(formant_track[:, 1:], k * pitch_hz) / np.sqrt(k)
        waveform += (np.interp(at, steps, loudness) * np.sin(k * phase)).astype(np.float32)
    return waveform


def formant_gain(formant_track: npt.NDArray[np.float32], frequency: float) -> npt.NDArray[np.float32]:
    """Return the gain (S,) of a frequency under formants (S, 3) in Hz."""
    gains = (1.0, 0.6, 0.3)
    parts = [
        gain / (1 + ((frequency - formant_track[:, i]) / width) ** 2)
        for i, (gain, width) in enumerate(zip(gains, BANDWIDTHS, strict=True))
    ]
    return np.asarray(np.sum(parts, axis=0), np.float32)


def normalise_peak(waveform: Waveform) -> Waveform:
    """Scale the waveform so that its loudest sample is at PEAK."""
    peak = float(np.abs(waveform).max(initial=0))
    return (waveform * (PEAK / peak)).astype(np.float32) if peak else waveform
