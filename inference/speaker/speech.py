"""A text laid out in time: phonemes, words, and the mouth shapes between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidRequest
from inference.rendering.mouth_shape import MouthShape
from inference.speaker.lexicon import phonemes_of, words_of
from inference.speaker.visemes import REST, VISEMES, Viseme

DEFAULT_LENGTH_S = 3.0  # length of a GRID clip; longer if the text needs it
MIN_MARGIN_S = 0.2  # silence before and after
PAUSE_EVERY = 6  # words, a GRID sentence
PAUSE_S = 0.45
SPEAKING_RATES = (0.96, 1.12)  # range drawn from, per seed; at the slowest the longest GRID sentence takes 2.6 s
DURATION_JITTER = 0.1  # largest relative change of a phoneme's duration
# Coarticulation: a shape has full weight until PLATEAU_MARGIN_S before its end, then falls off as a Gaussian.
PLATEAU_MARGIN_S = 0.035
GAUSSIAN_S = 0.04
NEIGHBOURS = 4  # shapes on either side that still have weight
MAX_LENGTH_S = 600.0


@dataclass(frozen=True)
class Phone:
    """One phoneme and its time, in seconds; `word` is the word's index."""

    phoneme: str
    word: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedWord:
    """A word and its time, in seconds."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedViseme:
    """A viseme and its time, in seconds."""

    viseme: Viseme
    start_s: float
    end_s: float


class SynthesisedSpeech:
    """A text with the times of its words, phonemes and mouth shapes.

    Durations follow from the phonemes, one speaking rate per seed, and a jitter drawn by position in the sequence. None
    of it depends on the words themselves, so only the shapes can identify a word.
    """

    def __init__(self, text: str, seed: int, length_s: float | None = None) -> None:
        """Lay the text out in time.

        Raises: InvalidRequest if a word is not in the lexicon, or the length is too short.
        """
        self.words = words_of(text)
        rng = np.random.default_rng((seed, 1))
        rate = rng.uniform(*SPEAKING_RATES)
        phones, visemes, spoken_s = schedule(self.words, rng, rate)
        self.length_s = choose_length(spoken_s, length_s)
        start_s = MIN_MARGIN_S + rng.uniform(0.3, 0.7) * (self.length_s - spoken_s - 2 * MIN_MARGIN_S)
        self.phones = [Phone(p.phoneme, p.word, p.start_s + start_s, p.end_s + start_s) for p in phones]
        self._visemes = [TimedViseme(h.viseme, h.start_s + start_s, h.end_s + start_s) for h in visemes]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def timed_words(self) -> list[TimedWord]:
        """Return every word with its time."""
        times = [[phone for phone in self.phones if phone.word == i] for i in range(len(self.words))]
        return [TimedWord(word, own[0].start_s, own[-1].end_s) for word, own in zip(self.words, times, strict=True)]

    def mouth_shapes(self, times_s: npt.NDArray[np.float64]) -> list[MouthShape]:
        """Return the mouth shape at each of these times."""
        visemes = [
            TimedViseme(REST, -1.0, self._visemes[0].start_s),
            *self._visemes,
            TimedViseme(REST, self._visemes[-1].end_s, self.length_s + 1),
        ]
        return [MouthShape.from_row(row) for row in blend_visemes(visemes, times_s)]


def schedule(
    words: tuple[str, ...], rng: np.random.Generator, rate: float
) -> tuple[list[Phone], list[TimedViseme], float]:
    """Return phonemes and visemes of words that start at 0 s, and their total duration."""
    phones: list[Phone] = []
    visemes: list[TimedViseme] = []
    at = 0.0
    for i, word in enumerate(words):
        if i and i % PAUSE_EVERY == 0:
            visemes.append(TimedViseme(REST, at, at + PAUSE_S))
            at += PAUSE_S
        for phoneme in phonemes_of(word):
            start = at
            for viseme in VISEMES[phoneme]:
                duration = viseme.duration_s / rate * rng.uniform(1 - DURATION_JITTER, 1 + DURATION_JITTER)
                visemes.append(TimedViseme(viseme, at, at + duration))
                at += duration
            phones.append(Phone(phoneme, i, start, at))
    return phones, visemes, at


def choose_length(spoken_s: float, requested_s: float | None) -> float:
    """Return the length of the clip. Raises: InvalidRequest if the words do not fit, or it is too long."""
    least = spoken_s + 2 * MIN_MARGIN_S
    if requested_s is None:
        return max(DEFAULT_LENGTH_S, least)
    if not requested_s >= least:
        raise InvalidRequest(f"the text takes {least:.2f} s to say; a length of {requested_s:g} s was requested")
    if requested_s > MAX_LENGTH_S:
        raise InvalidRequest(f"a length of {requested_s:g} s was requested; at most {MAX_LENGTH_S:g} s expected")
    return requested_s


def blend_visemes(visemes: list[TimedViseme], times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (T, 7): at each time the mean of the nearby shapes, weighted by distance and by what each one needs.

    Source: M. M. Cohen and D. W. Massaro, "Modeling coarticulation in synthetic visual speech" (1993). Deliberately
    different: Gaussians instead of their exponentials, so that the lips move smoothly.
    """
    shapes = np.stack([one.viseme.shape.row() for one in visemes])  # (N, 7)
    needs = np.log(np.array([one.viseme.weights() for one in visemes]))  # (N, 7)
    starts, ends = np.array([one.start_s for one in visemes]), np.array([one.end_s for one in visemes])
    middles = (starts + ends) / 2
    plateaus = np.maximum((ends - starts) / 2 - PLATEAU_MARGIN_S, 0)
    rows = np.empty((len(times_s), shapes.shape[1]))
    for i, t in enumerate(times_s):
        current = int(np.searchsorted(ends, t))
        near = slice(max(current - NEIGHBOURS, 0), current + NEIGHBOURS + 1)
        away = np.maximum(np.abs(t - middles[near]) - plateaus[near], 0) / GAUSSIAN_S
        # In logarithms, so that the nearest shape wins even far from all of them.
        strengths = needs[near] - (away**2)[:, None]
        weights = np.exp(strengths - strengths.max(axis=0))
        rows[i] = (weights * shapes[near]).sum(axis=0) / weights.sum(axis=0)
    return rows
