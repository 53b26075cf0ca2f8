"""Speech with its phonemes to the sample, said by the library of espeak-ng; and the mouth that says them."""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.rendering.mouth_shape import MouthShape
from inference.speaker.speech import TimedViseme, blend_visemes
from inference.speaker.visemes import NEAR_BACK, NEAR_FRONT, REST, VISEMES, Viseme, vowel

Floats = npt.NDArray[np.float32]

LIBRARY = "espeak-ng"
SYNCHRONOUS = 2  # of espeak_Initialize: sound comes through the callback, in the caller's thread
PHONEME_EVENTS = 1
PHONEME_EVENT, LAST_EVENT = 7, 0
UTF8 = 1
SPEED, PITCH, PITCH_RANGE = 1, 3, 4  # espeak_SetParameter
PAUSE = "_"

NEAR_BACK_VOWEL = vowel(0.09, **NEAR_BACK)
NEAR_FRONT_VOWEL = vowel(0.09, **NEAR_FRONT)
NEUTRAL = vowel(0.07, open=0.6, wide=0.1)  # schwa
# espeak-ng's names of English phonemes, without their marks of length and variant, in ARPAbet; or the shapes themselves
# where our lexicon has no such sound.
SOUNDS: dict[str, str | tuple[Viseme, ...]] = {
    "p": "P", "b": "B", "m": "M", "f": "F", "v": "V", "T": "TH", "D": "DH", "t": "T", "d": "D", "n": "N", "s": "S",
    "z": "Z", "S": "CH", "Z": "JH", "tS": "CH", "dZ": "JH", "k": "K", "g": "G", "N": "K", "x": "K", "h": "HH",
    "l": "L", "L": "L", "r": "R", "R": "R", "*": "T", "w": "W", "j": "Y", ";": "Y", "?": "K",
    "I": "IH", "i": "IY", "E": "EH", "e": "EH", "a": "AE", "A": "AA", "0": "AO", "O": "AO", "o": "AO", "V": "AH",
    "u": "UW", "U": (NEAR_BACK_VOWEL,), "@": (NEUTRAL,), "3": (NEUTRAL,), "a#": (NEUTRAL,),
    "@L": (NEUTRAL, *VISEMES["L"]),
    "oU": "OW", "aU": "AW", "aI": "AY", "eI": "EY", "OI": (VISEMES["AO"][0], NEAR_FRONT_VOWEL),
    "i@": (VISEMES["IH"][0], NEUTRAL), "I@": (VISEMES["IH"][0], NEUTRAL), "e@": (VISEMES["EH"][0], NEUTRAL),
    "U@": (NEAR_BACK_VOWEL, NEUTRAL), "u@": (NEAR_BACK_VOWEL, NEUTRAL), "O@": (VISEMES["AO"][0],),
    "o@": (VISEMES["AO"][0],), "A@": (VISEMES["AA"][0],), "aI@": (*VISEMES["AY"], NEUTRAL),
    "aU@": (*VISEMES["AW"], NEUTRAL),
}  # fmt: skip
MARKS = ":-#2345/;^"


@dataclass(frozen=True)
class Sounded:
    """A phoneme by espeak-ng's name, and when it sounds, in seconds."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Said:
    """samples: (N,) float32, -1..1, at `rate`. sounds: one after another, without gaps between them."""

    samples: Floats
    rate: int
    sounds: tuple[Sounded, ...]


class EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def has_library() -> bool:
    """Whether espeak-ng can speak in this process."""
    return ctypes.util.find_library(LIBRARY) is not None


class Espeak:
    """espeak-ng in this process; one at a time."""

    def __init__(self) -> None:
        """Raises: FileNotFoundError where it is not installed."""
        path = ctypes.util.find_library(LIBRARY)
        if path is None:
            raise FileNotFoundError("libespeak-ng is not installed; expected the system's package espeak-ng")
        self._library = ctypes.CDLL(path)
        self._pieces: list[bytes] = []
        self._events: list[tuple[str, int]] = []
        self._callback = Callback(self._take)  # kept: the library holds no reference
        self.rate: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, speed: int = 175, pitch: int = 50, pitch_range: int = 50) -> Said:
        """A text. speed: words a minute. Raises: ValueError for a voice that there is not."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"{voice}: espeak-ng knows no such voice")
        for parameter, value in ((SPEED, speed), (PITCH, pitch), (PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._events = [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.frombuffer(b"".join(self._pieces), np.int16).astype(np.float32) / np.float32(32768)
        ends = [start for _, start in self._events[1:]] + [len(samples)]
        sounds = [
            Sounded(name, start / self.rate, end / self.rate)
            for (name, start), end in zip(self._events, ends, strict=True)
            if end > start
        ]
        return Said(samples, self.rate, tuple(sounds))

    def _take(self, samples: object, n_samples: int, events: object) -> int:
        if samples and n_samples:
            self._pieces.append(ctypes.string_at(samples, 2 * n_samples))  # type: ignore[arg-type]
        i = 0
        while (event := events[i]).type != LAST_EVENT:  # type: ignore[index]
            if event.type == PHONEME_EVENT:
                self._events.append((bytes(event.id.string).decode(), event.sample))
            i += 1
        return 0


def visemes_of(name: str) -> tuple[Viseme, ...]:
    """The shapes of one of espeak-ng's phonemes; rest in a pause. Raises: KeyError for one that English has not."""
    if name.startswith(PAUSE) or not name:
        return (REST,)
    bare = name.rstrip(MARKS) or name[0]
    sound = SOUNDS.get(name) or SOUNDS.get(bare) or SOUNDS[bare[0]]
    return VISEMES[sound] if isinstance(sound, str) else sound


def hold(sounds: tuple[Sounded, ...]) -> list[TimedViseme]:
    """Each sound's shapes, in equal parts of its time."""
    held = []
    for sound in sounds:
        shapes = visemes_of(sound.name)
        each = (sound.end_s - sound.start_s) / len(shapes)
        held += [TimedViseme(v, sound.start_s + k * each, sound.start_s + (k + 1) * each) for k, v in enumerate(shapes)]
    return held


def mouths_of(sounds: tuple[Sounded, ...], times_s: npt.NDArray[np.float64]) -> Floats:
    """(T, 7) float32: the mouth at each time, as `MouthShape.row` has it; at rest before and behind all sounds."""
    held = hold(sounds)
    if not held:
        return np.tile(MouthShape().row(), (len(times_s), 1)).astype(np.float32)
    first, last = held[0].start_s, held[-1].end_s
    around = [TimedViseme(REST, first - 60, first), *held, TimedViseme(REST, last, last + 60)]
    return blend_visemes(around, times_s).astype(np.float32)
