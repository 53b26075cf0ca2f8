"""How well clips with known words are read: error rates, slots, letters, and what confidences are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from inference.lip_reading.grammar import GRID
from inference.lip_reading.options import Word

Symbol = TypeVar("Symbol", bound=Hashable)
Floats = npt.NDArray[np.float64]

SLOTS = ("command", "colour", "preposition", "letter", "digit", "adverb")  # of a sentence of the GRID corpus
LETTER = SLOTS.index("letter")
N_BINS = 10  # of confidence, each a tenth wide


@dataclass(frozen=True)
class ReadClip:
    """One clip: what was said, in capitals with single spaces, and what one decoder read."""

    said: str
    read: str
    words: tuple[Word, ...]
    speaker: str = ""


@dataclass(frozen=True)
class Bin:
    """Words whose confidence lies between two bounds. confidence, right: their means; nan where there are none."""

    low: float
    high: float
    n_words: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """What confidences are worth.

    n_words: that were read. n_right: of these. expected_error: the mean distance of confidence from the share of
    right words, over the bins. area_under_roc: the chance that a right word scores over a wrong one; None where
    all are right, or all wrong.
    """

    n_words: int
    n_right: int
    expected_error: float
    area_under_roc: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Score:
    """One decoder on some clips.

    wer, cer: errors over words and characters said. slots: share of right words in each slot, over clips that say
    a GRID sentence; empty without such. letters: (said, read, how often), most often first; read is "-" for none.
    speakers: WER of each, where there are several.
    """

    n_clips: int
    wer: float
    cer: float
    n_sentences_right: int
    slots: dict[str, float]
    letters: tuple[tuple[str, str, int], ...]
    speakers: dict[str, float]
    reliability: Reliability

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: null where there is no number."""
        bins = [vars(one) | ({"confidence": None, "right": None} if not one.n_words else {}) for one in self.bins]
        return vars(self) | {"reliability": vars(self.reliability) | {"bins": bins}}

    @property
    def bins(self) -> tuple[Bin, ...]:
        return self.reliability.bins


def score(clips: Sequence[ReadClip]) -> Score:
    """All measures of one decoder; of one clip at least."""
    speakers = sorted({clip.speaker for clip in clips})
    own = {name: [clip for clip in clips if clip.speaker == name] for name in speakers}
    return Score(
        n_clips=len(clips),
        wer=word_error_rate(clips),
        cer=error_rate([(list(clip.said), list(clip.read)) for clip in clips]),
        n_sentences_right=sum(clip.said == clip.read for clip in clips),
        slots=score_slots(clips),
        letters=confuse_letters(clips),
        speakers={name: word_error_rate(of_one) for name, of_one in own.items()} if len(own) > 1 else {},
        reliability=weigh_confidence(clips),
    )


def word_error_rate(clips: Sequence[ReadClip]) -> float:
    return error_rate([(clip.said.split(), clip.read.split()) for clip in clips])


def error_rate(pairs: Sequence[tuple[list[str], list[str]]]) -> float:
    """Symbols to insert, delete or change, over all that were said."""
    n_said = sum(len(said) for said, _ in pairs)
    return sum(a != b for said, read in pairs for a, b in align(said, read)) / n_said


def align(said: Sequence[Symbol], read: Sequence[Symbol]) -> list[tuple[Symbol | None, Symbol | None]]:
    """The two beside each other with the fewest differences; None stands against what only one of them has."""
    costs = np.zeros((len(said) + 1, len(read) + 1), int)
    costs[:, 0], costs[0] = np.arange(len(said) + 1), np.arange(len(read) + 1)
    for i, a in enumerate(said, 1):
        for j, b in enumerate(read, 1):
            costs[i, j] = min(costs[i - 1, j - 1] + (a != b), costs[i - 1, j] + 1, costs[i, j - 1] + 1)
    pairs: list[tuple[Symbol | None, Symbol | None]] = []
    i, j = len(said), len(read)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (said[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((said[i], read[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((said[i], None))
        else:
            j -= 1
            pairs.append((None, read[j]))
    return pairs[::-1]


def is_grid(words: Sequence[str]) -> bool:
    return len(words) == len(GRID) and all(word in slot for word, slot in zip(words, GRID, strict=True))


def read_slots(clip: ReadClip) -> list[str | None]:
    """What was read in the place of each word that was said; None where nothing was."""
    return [read for said, read in align(clip.said.split(), clip.read.split()) if said is not None]


def score_slots(clips: Sequence[ReadClip]) -> dict[str, float]:
    said = [clip.said.split() for clip in clips]
    right = [
        [a == b for a, b in zip(words, read_slots(clip), strict=True)]
        for words, clip in zip(said, clips, strict=True)
        if is_grid(words)
    ]
    return dict(zip(SLOTS, np.mean(right, axis=0).tolist(), strict=True)) if right else {}


def confuse_letters(clips: Sequence[ReadClip]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(
        (clip.said.split()[LETTER], read_slots(clip)[LETTER] or "-") for clip in clips if is_grid(clip.said.split())
    )
    return tuple((a, b, n) for (a, b), n in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def weigh_confidence(clips: Sequence[ReadClip]) -> Reliability:
    """Each word that was read counts: it is right where the word that was said in its place is the same."""
    pairs = [
        (word.confidence or 0.0, said == word.word)
        for clip in clips
        for word, said in zip(clip.words, said_for(clip), strict=True)
    ]
    confidence = np.array([one for one, _ in pairs], float)
    right = np.array([one for _, one in pairs], bool)
    places = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = tuple(fill_bin(i, confidence[places == i], right[places == i]) for i in range(N_BINS))
    off = sum(one.n_words * abs(one.confidence - one.right) for one in bins if one.n_words)
    return Reliability(
        n_words=len(pairs),
        n_right=int(right.sum()),
        expected_error=off / max(len(pairs), 1),
        area_under_roc=area_under_roc(confidence, right),
        bins=bins,
    )


def said_for(clip: ReadClip) -> list[str | None]:
    """What was said in the place of each word that was read; None where nothing was."""
    words = [word.word for word in clip.words]
    return [said for said, read in align(clip.said.split(), words) if read is not None]


def fill_bin(place: int, confidence: Floats, right: npt.NDArray[np.bool_]) -> Bin:
    n_words = len(right)
    means = (float(confidence.mean()), float(right.mean())) if n_words else (float("nan"), float("nan"))
    return Bin(place / N_BINS, (place + 1) / N_BINS, n_words, *means)


def area_under_roc(confidence: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    """The chance that a right word scores over a wrong one, a tie counting half."""
    a, b = confidence[right][:, None], confidence[~right]
    return float(((a > b) + 0.5 * (a == b)).mean()) if a.size and b.size else None
