"""What an avatar hears while it learns, and the mouth that belongs to it: utterances of many voices, made rough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.audio.features import FIRST_WINDOW, FPS, LAST_WINDOW, window_start
from inference.audio.mel import HOP, SAMPLE_RATE, mel_columns
from inference.audio.windows import WINDOW
from inference.rendering.mouth_shape import MouthShape
from training.avatar.espeak import Espeak, Sounded, mouths_of

Floats = npt.NDArray[np.float32]

PADDING_S = 0.5  # of silence around the sound, of which windows beyond it hear some

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
COMMANDS = (
    "bin lay place set",
    "blue green red white",
    "at by in with",
    "A B C D E F G H I J K L M N O P Q R S T U V X Y Z",
    "zero one two three four five six seven eight nine",
    "again now please soon",
)


@dataclass(frozen=True)
class Heard:
    """One utterance. Of T frames, with the windows that they hear between them.

    mels: (T + 15, 80, 16) float16; frame i hears rows i .. i + 15. mouths: (T, 7) float32, rows of MouthShape; of a
    filmed voice, of which only the gap between the lips was measured, None. gaps: (T,) float32, that gap.
    """

    mels: npt.NDArray[np.float16]
    mouths: Floats | None
    gaps: Floats

    @property
    def n_frames(self) -> int:
        return len(self.gaps)


def gap_of(mouths: Floats) -> Floats:
    """How far the renderer parts the lips of shapes (..., 7)."""
    is_open, _, _, press, _, teeth, tongue = np.moveaxis(np.maximum(mouths, 0), -1, 0)
    gap = (is_open**4 + (0.34 * teeth) ** 4 + (0.5 * tongue) ** 4) ** 0.25
    return np.asarray(gap * (1 - np.minimum(press, 1)), np.float32)


def cut_windows(samples: Floats, n_frames: int) -> npt.NDArray[np.float16]:
    """Each window that the frames of a sound hear: (n_frames + ROWS - 1, 80, 16), from (N,) at 16 kHz, -1..1."""
    padding = round(PADDING_S * SAMPLE_RATE)
    whole = np.round(np.clip(np.pad(samples, padding), -1, 1) * 32767).astype(np.int16)
    starts = [window_start(k) for k in range(FIRST_WINDOW, n_frames + LAST_WINDOW)]
    shift = padding // HOP
    mel = mel_columns(whole, shift + starts[0], shift + starts[-1] + WINDOW)
    return np.stack([mel[:, at - starts[0] : at - starts[0] + WINDOW] for at in starts]).astype(np.float16)


def count_frames(samples: Floats) -> int:
    return len(samples) * FPS // SAMPLE_RATE


def heard_of(samples: Floats, sounds: tuple[Sounded, ...]) -> Heard:
    """(N,) at 16 kHz and when its phonemes sound."""
    n_frames = count_frames(samples)
    mouths = mouths_of(sounds, np.arange(n_frames) / FPS)
    return Heard(cut_windows(samples, n_frames), mouths, gap_of(mouths))


def draw_text(rng: np.random.Generator) -> str:
    """Common words at random, numbers, or a command of GRID; pauses where commas are."""
    kind, words_known = rng.random(), WORDS.split()
    if kind < 0.15:
        return " ".join(str(rng.choice(slot.split())) for slot in COMMANDS)
    words = [str(rng.choice(words_known)) for _ in range(int(rng.integers(4, 13)))]
    if kind < 0.35:
        words[int(rng.integers(len(words)))] = str(rng.integers(10000))
    for i in np.flatnonzero(rng.random(len(words)) < 0.12):
        words[i] += ","
    return " ".join(words)


def draw_voice(rng: np.random.Generator, *, held_out: bool) -> str:
    languages, people = (HELD_OUT_LANGUAGES, HELD_OUT_PEOPLE) if held_out else (LANGUAGES, PEOPLE)
    return f"gmw/{rng.choice(languages)}+{rng.choice(people.split())}"


def speak(espeak: Espeak, rng: np.random.Generator, *, held_out: bool = False) -> tuple[Floats, tuple[Sounded, ...]]:
    """Somebody says something, with silence around it: (N,) at 16 kHz, and its phonemes.

    The whole is played up to 12 % faster or slower, which makes throats of other lengths.
    """
    voice = draw_voice(rng, held_out=held_out)
    speed, pitch, spread = (int(rng.integers(low, high)) for low, high in ((120, 230), (10, 90), (20, 90)))
    said = espeak.say(draw_text(rng), voice, speed, pitch, spread)
    faster = float(rng.uniform(0.88, 1.12))
    samples = resample(said.samples, round(len(said.samples) / said.rate / faster * SAMPLE_RATE))
    before, behind = rng.uniform(0.1, 0.9, 2)
    samples = np.pad(samples, [round(part * SAMPLE_RATE) for part in (before, behind)])
    sounds = (Sounded(s.name, s.start_s / faster + before, s.end_s / faster + before) for s in said.sounds)
    return samples, tuple(sounds)


def resample(samples: Floats, n_samples: int) -> Floats:
    """The same sound in another number of samples, band-limited."""
    if n_samples == len(samples):
        return samples
    spectrum = np.fft.rfft(samples)
    return np.asarray(np.fft.irfft(spectrum, n_samples) * (n_samples / len(samples)), np.float32)


def roughen(samples: Floats, rng: np.random.Generator) -> Floats:
    """As a microphone in some room gives it: tilted, echoing, at another level, with noise; sometimes as it was."""
    level = 10 ** (rng.uniform(-24, -0.5) / 20)
    loudest = float(np.abs(samples).max(initial=0))
    if rng.random() < 0.7:
        samples = tilt(samples, rng)
    if rng.random() < 0.5:
        samples = echo(samples, rng)
    after = float(np.abs(samples).max(initial=0))
    if loudest and after:
        samples = samples * np.float32(level / after)
    if rng.random() < 0.7:
        samples = samples + noise(len(samples), rng) * np.float32(level * 10 ** (rng.uniform(-60, -18) / 20))
    return np.asarray(np.clip(samples, -1, 1), np.float32)


def tilt(samples: Floats, rng: np.random.Generator) -> Floats:
    """A smooth curve of up to 9 dB over the frequencies, and at times a telephone's band."""
    spectrum = np.fft.rfft(samples)
    hz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    gains_db = np.interp(hz, [0, 200, 600, 1500, 3000, 5000, 8000], rng.uniform(-9, 9, 7))
    if rng.random() < 0.1:
        gains_db[(hz < 250) | (hz > 3600)] -= 40
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gains_db / 20), len(samples)), np.float32)


def echo(samples: Floats, rng: np.random.Generator) -> Floats:
    """A room: noise that dies away within 0.08 to 0.5 s, beside the sound itself."""
    dies_s = rng.uniform(0.08, 0.5)
    n_room = round(dies_s * SAMPLE_RATE)
    room = rng.standard_normal(n_room) * np.exp(-6.9 * np.arange(n_room) / n_room)
    room *= rng.uniform(0.1, 0.6) / np.sqrt((room**2).sum())
    room[0] += 1
    n_both = len(samples) + n_room
    mixed = np.fft.irfft(np.fft.rfft(samples, n_both) * np.fft.rfft(room, n_both), n_both)
    return np.asarray(mixed[: len(samples)], np.float32)


def noise(n_samples: int, rng: np.random.Generator) -> Floats:
    """White to brown, of deviation about 1, with hum at times."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    falls = np.maximum(np.arange(len(spectrum)), 1.0) ** -rng.uniform(0, 1)
    made = np.fft.irfft(spectrum * falls, n_samples)
    made /= made.std() + 1e-9
    if rng.random() < 0.2:
        made += rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(49, 121) * np.arange(n_samples) / SAMPLE_RATE)
    return np.asarray(made, np.float32)


def hear_nobody(rng: np.random.Generator) -> Heard:
    """Silence, as it is or with a room's noise in it: the mouth is at rest."""
    n_samples = 3 * SAMPLE_RATE
    samples = np.zeros(n_samples, np.float32)
    if rng.random() < 0.7:
        samples += noise(n_samples, rng) * np.float32(10 ** (rng.uniform(-80, -35) / 20))
    mouths = np.tile(MouthShape().row(), (count_frames(samples), 1)).astype(np.float32)
    return Heard(cut_windows(samples, len(mouths)), mouths, gap_of(mouths))


def draw_utterances(n_utterances: int, seed: int, *, held_out: bool = False) -> list[Heard]:
    """The same texts and voices for the same seed (espeak-ng lets one touch the next); one in twenty is silence."""
    espeak = Espeak()
    utterances = []
    for i in range(n_utterances):
        rng = np.random.default_rng((seed, int(held_out), i))
        if i % 20 == 19:
            utterances.append(hear_nobody(rng))
            continue
        samples, sounds = speak(espeak, rng, held_out=held_out)
        utterances.append(heard_of(roughen(samples, rng), sounds))
    return utterances
