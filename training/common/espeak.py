"""Speech synthesised by libespeak-ng, with the exact times of its phonemes; and the mouth shapes of these."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.rendering.mouth_shape import MouthShape
from inference.speaker.speech import TimedViseme, blend_visemes
from inference.speaker.visemes import NEAR_BACK, NEAR_FRONT, REST, VISEMES, Viseme, vowel
from training.common.arrays import Floats

LIBRARY = "espeak-ng"
SYNCHRONOUS = 2  # espeak_Initialize: audio arrives through the callback, in the thread of the caller
PHONEME_EVENTS = 1  # espeak_Initialize: report phonemes
PHONEME_EVENT, LAST_EVENT = 7, 0  # types of events
UTF8 = 1  # espeak_Synth: encoding of the text
IPA = 2  # espeak_TextToPhonemes: the alphabet
SPEED, PITCH, PITCH_RANGE = 1, 3, 4  # espeak_SetParameter
PAUSE = "_"  # first character of the names of pauses
IDLE_S = 60.0  # length of the rest shape before and after an utterance: longer than any clip

NEAR_BACK_VOWEL = vowel(0.09, **NEAR_BACK)
NEAR_FRONT_VOWEL = vowel(0.09, **NEAR_FRONT)
NEUTRAL = vowel(0.07, open=0.6, wide=0.1)  # schwa
# ARPAbet names of espeak-ng's English phonemes, without their marks of length and variant; or their shapes, if the
# lexicon of the synthetic speaker has no such phoneme.
PHONEME_VISEMES: dict[str, str | tuple[Viseme, ...]] = {
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
MARKS = ":-#2345/;^"  # of length and variant


@dataclass(frozen=True)
class TimedPhoneme:
    """A phoneme by espeak-ng's name, and its time, in seconds."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedSpeech:
    """A synthesised text.

    samples: (N,) float32, -1..1, `rate` a second. phonemes: in order, without gaps between them.
    """

    samples: Floats
    rate: int
    phonemes: tuple[TimedPhoneme, ...]


class EventId(ctypes.Union):
    """The member `id` of espeak_EVENT."""

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
    """Return whether libespeak-ng is installed."""
    return ctypes.util.find_library(LIBRARY) is not None


class Espeak:
    """libespeak-ng, loaded into this process. The library has global state, so use one instance at a time."""

    def __init__(self) -> None:
        """Load the library. Raises: FileNotFoundError if it is not installed."""
        path = ctypes.util.find_library(LIBRARY)
        if path is None:
            raise FileNotFoundError("libespeak-ng is not installed; install the system package espeak-ng")
        self._library = ctypes.CDLL(path)
        self._blocks: list[bytes] = []
        self._events: list[tuple[str, int]] = []
        self._callback = Callback(self._receive)  # an attribute, because the library holds no reference
        self.rate: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
        self._library.espeak_SetSynthCallback(self._callback)

    def synthesise(
        self, text: str, voice: str, speed: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> TimedSpeech:
        """Synthesise a text. speed: words a minute. Raises: ValueError if espeak-ng has no such voice."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"{voice}: espeak-ng has no such voice")
        for parameter, value in ((SPEED, speed), (PITCH, pitch), (PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks, self._events = [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.frombuffer(b"".join(self._blocks), np.int16).astype(np.float32) / np.float32(32768)
        ends = [start for _, start in self._events[1:]] + [len(samples)]
        phonemes = [
            TimedPhoneme(name, start / self.rate, end / self.rate)
            for (name, start), end in zip(self._events, ends, strict=True)
            if end > start
        ]
        return TimedSpeech(samples, self.rate, tuple(phonemes))

    def phonemise(self, text: str, voice: str) -> str:
        """Return the phonemes of a text in IPA. Raises: ValueError if espeak-ng has no such voice."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"{voice}: espeak-ng has no such voice")
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value is not None:  # it returns a clause, and moves the pointer behind it
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA) or b"")
        return " ".join(clause.decode().strip() for clause in clauses).strip()

    def _receive(self, samples: object, n_samples: int, events: object) -> int:
        """Collect a block of samples and its events, as t_espeak_callback; 0 lets the library continue."""
        if samples and n_samples:
            self._blocks.append(ctypes.string_at(samples, 2 * n_samples))  # type: ignore[arg-type]
        i = 0
        while (event := events[i]).type != LAST_EVENT:  # type: ignore[index]
            if event.type == PHONEME_EVENT:
                self._events.append((bytes(event.id.string).decode(), event.sample))
            i += 1
        return 0


def visemes_of(name: str) -> tuple[Viseme, ...]:
    """Return the shapes of one of espeak-ng's phonemes; rest in a pause. Raises: KeyError if it is not English."""
    if name.startswith(PAUSE) or not name:
        return (REST,)
    bare = name.rstrip(MARKS) or name[0]
    shapes = PHONEME_VISEMES.get(name) or PHONEME_VISEMES.get(bare) or PHONEME_VISEMES[bare[0]]
    return VISEMES[shapes] if isinstance(shapes, str) else shapes


def time_visemes(phonemes: Sequence[TimedPhoneme]) -> list[TimedViseme]:
    """Give each phoneme's shapes equal parts of its time."""
    visemes = []
    for phoneme in phonemes:
        shapes = visemes_of(phoneme.name)
        each = (phoneme.end_s - phoneme.start_s) / len(shapes)
        visemes += [
            TimedViseme(shape, phoneme.start_s + k * each, phoneme.start_s + (k + 1) * each)
            for k, shape in enumerate(shapes)
        ]
    return visemes


def mouth_shapes_at(phonemes: Sequence[TimedPhoneme], times_s: npt.NDArray[np.float64]) -> Floats:
    """Return the mouth at each time, as rows of MouthShape: (T, 7) float32. It rests before and after the speech."""
    visemes = time_visemes(phonemes)
    if not visemes:
        return np.tile(MouthShape().row(), (len(times_s), 1)).astype(np.float32)
    first, last = visemes[0].start_s, visemes[-1].end_s
    padded = [TimedViseme(REST, first - IDLE_S, first), *visemes, TimedViseme(REST, last, last + IDLE_S)]
    return blend_visemes(padded, times_s).astype(np.float32)
