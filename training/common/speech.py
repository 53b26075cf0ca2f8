"""Synthetic speech to train on: random texts in many voices of espeak-ng, degraded as by microphones and rooms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.audio.avatar_features import AVATAR_FPS
from inference.audio.mel import FULL_SCALE, SAMPLE_RATE
from inference.lip_reading.grammar_decoder import GRID
from training.common.arrays import Floats
from training.common.espeak import Espeak, TimedPhoneme

LANGUAGES = ("en", "en", "en-US", "en-US", "en-GB-x-rp", "en-GB-x-gbclan", "en-GB-x-gbcwmd", "en-029", "en-US-nyc")
PEOPLE = (
    "m1 m2 m3 m5 m6 m7 f1 f2 f4 f5 Alex Alicia Annie David Denis Diogo Gene Hugo Jacky Lee Linda Marco Michael Pablo "
    "Steph Tweaky adam anika antonio belinda benjamin boris caleb ed edward gustave john kaukovalta max miguel mike "
    "paul pedro quincy rob robert sandro shelby steph2 steph3 travis victor zac"
)
# Voices that are never trained on.
HELD_OUT_LANGUAGES = ("en", "en-GB-scotland", "en-US")
HELD_OUT_PEOPLE = "m4 m8 f3 Andrea andy grandma grandpa Henrique"
WORDS = (
    "the of and a to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part over new sound "
    "take only little work know place year live me back give most very after thing our just name good sentence man "
    "think say great where help through much before line right too mean old any same tell boy follow came want show "
    "also around form three small set put end does another well large must big even such because turn here why ask "
    "went men read need land different home us move try kind hand picture again change off play spell air away animal "
    "house point page letter mother answer found study still learn should world high every near add food between own "
    "below country plant last school father keep tree never start city earth eye light thought head under story saw "
    "left few while along might close something seem next hard open example begin life always those both paper "
    "together group often run important until children side feet car mile night walk white sea began grow river carry "
    "state once book hear stop without second late miss idea enough eat face watch far really almost let above girl "
    "mountain cut young talk soon list song being leave family body music colour bubble baby maybe purple above moving "
    "voice choice joy fire hour beautiful measure vision church judge thumb path bath yellow view blue moon soup"
)
BILABIAL_WORDS = (
    "baby bubble mama papa maybe people member number remember problem simple sample apple purple rubber pepper paper "
    "bumper temple double table able cable summer winter hammer member camera memory moment mammal bamboo pumpkin "
    "puppy happy copper super open ribbon rabbit robin cabin habit album humble tumble stumble crumb lamb thumb climb "
    "lamp stamp camp jump bump pump map cap tap lip ship sheep deep keep cup soap pipe tribe club web job rob cab bib "
    "bomb palm prime blame plum bloom brim prom clamp swamp probably possible impossible example important empty "
    "business best boat bring brown big bad before behind better mother move music make my me more most must much"
)
# GRID's words in lower case; its letters stay capitals, so that "a" is not read as the article.
GRID_WORDS = tuple([word if len(word) == 1 else word.lower() for word in words] for words in GRID)


def draw_text(rng: np.random.Generator, bilabial_share: float = 0.0) -> str:
    """Draw common words, some with a number, or a GRID sentence. Commas make pauses.

    bilabial_share: chance of each common word to be exchanged for one with b, m or p.
    """
    kind, words_known = rng.random(), WORDS.split()
    if kind < 0.15:
        return " ".join(str(rng.choice(words)) for words in GRID_WORDS)
    words = [str(rng.choice(words_known)) for _ in range(int(rng.integers(4, 13)))]
    if bilabial_share:
        words = [str(rng.choice(BILABIAL_WORDS.split())) if rng.random() < bilabial_share else word for word in words]
    if kind < 0.35:
        words[int(rng.integers(len(words)))] = str(rng.integers(10000))
    for i in np.flatnonzero(rng.random(len(words)) < 0.12):
        words[i] += ","
    return " ".join(words)


def draw_voice(rng: np.random.Generator, *, held_out: bool) -> str:
    languages, people = (HELD_OUT_LANGUAGES, HELD_OUT_PEOPLE) if held_out else (LANGUAGES, PEOPLE)
    return f"gmw/{rng.choice(languages)}+{rng.choice(people.split())}"


def synthesise_utterance(
    espeak: Espeak, rng: np.random.Generator, *, held_out: bool = False
) -> tuple[Floats, tuple[TimedPhoneme, ...]]:
    """Synthesise a random text in a random voice, with silence around it.

    It is played up to 12 % faster or slower, which sounds like vocal tracts of other lengths. held_out: draw a voice
    that is never trained on. Returns: (N,) float32 at 16 kHz, -1..1, and its phonemes.
    """
    voice = draw_voice(rng, held_out=held_out)
    speed, pitch, pitch_range = (int(rng.integers(low, high)) for low, high in ((120, 230), (10, 90), (20, 90)))
    speech = espeak.synthesise(draw_text(rng), voice, speed, pitch, pitch_range)
    faster = float(rng.uniform(0.88, 1.12))
    samples = resample(speech.samples, round(len(speech.samples) / speech.rate / faster * SAMPLE_RATE))
    before, after = rng.uniform(0.1, 0.9, 2)
    samples = np.pad(samples, [round(silence_s * SAMPLE_RATE) for silence_s in (before, after)])
    phonemes = (TimedPhoneme(p.name, p.start_s / faster + before, p.end_s / faster + before) for p in speech.phonemes)
    return samples, tuple(phonemes)


def count_frames(samples: Floats) -> int:
    """Return the number of whole video frames (25 fps) that audio at 16 kHz covers."""
    return len(samples) * AVATAR_FPS // SAMPLE_RATE


def resample(samples: Floats, n_samples: int) -> Floats:
    """Resample to another number of samples, band-limited."""
    if n_samples == len(samples):
        return samples
    spectrum = np.fft.rfft(samples)
    return np.asarray(np.fft.irfft(spectrum, n_samples) * (n_samples / len(samples)), np.float32)


def to_int16(samples: Floats) -> npt.NDArray[np.int16]:
    """Convert samples of -1..1 to 16 bits."""
    return np.round(np.clip(samples, -1, 1) * (FULL_SCALE - 1)).astype(np.int16)


def degrade(samples: Floats, rng: np.random.Generator) -> Floats:
    """Degrade audio as a microphone in a room does: spectrum, reverberation, level and noise, each with a chance."""
    level = 10 ** (rng.uniform(-24, -0.5) / 20)
    peak = float(np.abs(samples).max(initial=0))
    if rng.random() < 0.7:
        samples = tilt_spectrum(samples, rng)
    if rng.random() < 0.5:
        samples = add_reverberation(samples, rng)
    new_peak = float(np.abs(samples).max(initial=0))
    if peak and new_peak:
        samples = samples * np.float32(level / new_peak)
    if rng.random() < 0.7:
        samples = samples + draw_noise(len(samples), rng) * np.float32(level * 10 ** (rng.uniform(-60, -18) / 20))
    return np.asarray(np.clip(samples, -1, 1), np.float32)


def tilt_spectrum(samples: Floats, rng: np.random.Generator) -> Floats:
    """Apply a smooth gain of up to 9 dB over the frequencies, and at times the band of a telephone."""
    spectrum = np.fft.rfft(samples)
    hz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    gains_db = np.interp(hz, [0, 200, 600, 1500, 3000, 5000, 8000], rng.uniform(-9, 9, 7))
    if rng.random() < 0.1:
        gains_db[(hz < 250) | (hz > 3600)] -= 40
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gains_db / 20), len(samples)), np.float32)


def add_reverberation(samples: Floats, rng: np.random.Generator) -> Floats:
    """Convolve with the impulse response of a room: the direct path, and noise that decays within 0.08 to 0.5 s."""
    decay_s = rng.uniform(0.08, 0.5)
    n_response = round(decay_s * SAMPLE_RATE)
    response = rng.standard_normal(n_response) * np.exp(-6.9 * np.arange(n_response) / n_response)
    response *= rng.uniform(0.1, 0.6) / np.sqrt((response**2).sum())
    response[0] += 1
    n_total = len(samples) + n_response
    mixed = np.fft.irfft(np.fft.rfft(samples, n_total) * np.fft.rfft(response, n_total), n_total)
    return np.asarray(mixed[: len(samples)], np.float32)


def companding(samples: Floats) -> Floats:
    """Quantise samples to 8 bits on the mu-law of G.711, as telephones do."""
    mu = np.float32(255)
    compressed = np.sign(samples) * np.log1p(mu * np.abs(np.clip(samples, -1, 1))) / np.log1p(mu)
    levels = np.round(compressed * 127) / 127
    return np.asarray(np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(mu)) / mu, np.float32)


def draw_noise(n_samples: int, rng: np.random.Generator) -> Floats:
    """Draw white to brown noise of standard deviation about 1, at times with mains hum."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    slope = np.maximum(np.arange(len(spectrum)), 1.0) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum * slope, n_samples)
    noise /= noise.std() + 1e-9
    if rng.random() < 0.2:
        noise += rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(49, 121) * np.arange(n_samples) / SAMPLE_RATE)
    return np.asarray(noise, np.float32)
