"""A sentence laid out in time: which sound when, and the mouth between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidRequest
from inference.rendering.mouth_shape import MouthShape
from inference.speaker.lexicon import phonemes_of, words_of
from inference.speaker.visemes import REST, VISEMES, Viseme

DEFAULT_LENGTH_S = 3.0  # as the clips of the GRID corpus; longer where the text is
MIN_MARGIN_S = 0.2  # of silence before and after
PAUSE_EVERY = 6  # words: a sentence of GRID
PAUSE_S = 0.45
SPEAKING_RATES = (0.96, 1.12)  # of speaking, one for each seed: the slowest says the longest sentence of GRID in 2.6 s
DURATION_JITTER = 0.1  # a sound may be this much longer or shorter
# Neighbouring shapes blend (coarticulation): each holds until this long before its end, then falls off as a bell.
PLATEAU_MARGIN_S = 0.035
GAUSSIAN_S = 0.04
NEIGHBOURS = 4  # shapes on either side that still reach a moment
MAX_LENGTH_S = 600.0


@dataclass(frozen=True)
class Phone:
    """One phoneme and when it sounds, in seconds; `word` counts from 0."""

    phoneme: str
    word: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is said, in seconds."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedViseme:
    """A shape of the mouth and the time it is meant for."""

    viseme: Viseme
    start_s: float
    end_s: float


class SynthesisedSpeech:
    """A text as it will be said.

    Durations follow from the phonemes, one rate for the speaker, and an unevenness drawn by place in the
    sequence: none of it depends on which word is said, so nothing but the shapes can give a word away.
    """

    def __init__(self, text: str, seed: int, length_s: float | None = None) -> None:
        """Raises: InvalidRequest for words that are not in the lexicon, or too little time for them."""
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
        """Every word with its times."""
        times = [[phone for phone in self.phones if phone.word == i] for i in range(len(self.words))]
        return [TimedWord(word, own[0].start_s, own[-1].end_s) for word, own in zip(self.words, times, strict=True)]

    def mouths(self, times_s: npt.NDArray[np.float64]) -> list[MouthShape]:
        """The mouth at each of these times."""
        visemes = [
            TimedViseme(REST, -1.0, self._visemes[0].start_s),
            *self._visemes,
            TimedViseme(REST, self._visemes[-1].end_s, self.length_s + 1),
        ]
        return [MouthShape.from_row(row) for row in blend_visemes(visemes, times_s)]


def schedule(
    words: tuple[str, ...], rng: np.random.Generator, rate: float
) -> tuple[list[Phone], list[TimedViseme], float]:
    """The sounds and shapes of words said from 0 s on, and how long they take."""
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
    """How long the film is. Raises: InvalidRequest where the words do not fit, or it is too long."""
    least = spoken_s + 2 * MIN_MARGIN_S
    if requested_s is None:
        return max(DEFAULT_LENGTH_S, least)
    if not requested_s >= least:
        raise InvalidRequest(f"the text takes {least:.2f} s to say; a length of {requested_s:g} s was asked for")
    if requested_s > MAX_LENGTH_S:
        raise InvalidRequest(f"a length of {requested_s:g} s was asked for; at most {MAX_LENGTH_S:g} s expected")
    return requested_s


def blend_visemes(visemes: list[TimedViseme], times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(T, 7): at each time the mean of the shapes around it, each weighted by how near it is and what it needs.

    After M. M. Cohen and D. W. Massaro, "Modeling coarticulation in synthetic visual speech" (1993), with bells
    in place of their exponentials, so that the lips move without a jerk.
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
        # Far from every shape the nearest must still win: hence logarithms.
        strengths = needs[near] - (away**2)[:, None]
        weights = np.exp(strengths - strengths.max(axis=0))
        rows[i] = (weights * shapes[near]).sum(axis=0) / weights.sum(axis=0)
    return rows
