"""Evaluation on clips with known words: error rates, accuracy per slot, confusions, and reliability of confidences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from inference.lip_reading.grammar_decoder import GRID
from inference.lip_reading.options import Word

Symbol = TypeVar("Symbol", bound=Hashable)
Floats = npt.NDArray[np.float64]

SLOT_NAMES = ("command", "colour", "preposition", "letter", "digit", "adverb")  # slots of a sentence of the GRID corpus
LETTER_SLOT = SLOT_NAMES.index("letter")
N_BINS = 10  # bins of confidence, each a tenth wide


@dataclass(frozen=True)
class TranscribedClip:
    """One transcribed clip.

    reference: the spoken words, in capitals with single spaces. hypothesis: the output of one decoder; words: the
    same, with times and confidences.
    """

    reference: str
    hypothesis: str
    words: tuple[Word, ...]
    speaker: str = ""


@dataclass(frozen=True)
class ConfidenceBin:
    """Words whose confidence is between two bounds.

    confidence, right: mean confidence, and share of correct words; NaN if the bin is empty.
    """

    low: float
    high: float
    n_words: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """Reliability of the confidences of one decoder.

    n_words: recognised words. n_right: correct ones among them. expected_error: expected calibration error, the mean
    distance of confidence from the share of correct words, over the bins. area_under_roc: the probability that a
    correct word scores above a wrong one; None if all are correct, or all wrong.
    """

    n_words: int
    n_right: int
    expected_error: float
    area_under_roc: float | None
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class DecoderScore:
    """Scores of one decoder on some clips.

    wer, cer: errors over words and characters of the references. slots: share of correct words in each slot, over the
    clips whose reference is a GRID sentence; empty if there are none. letters: (reference, hypothesis, count), most
    frequent first; the hypothesis is "-" for a missing word. speakers: WER of each speaker, if there are several.
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
        """Return plain values for JSON; NaN becomes null."""
        bins = [vars(one) | ({"confidence": None, "right": None} if not one.n_words else {}) for one in self.bins]
        return vars(self) | {"reliability": vars(self.reliability) | {"bins": bins}}

    @property
    def bins(self) -> tuple[ConfidenceBin, ...]:
        return self.reliability.bins


def score_clips(clips: Sequence[TranscribedClip]) -> DecoderScore:
    """Score one decoder. clips: at least one."""
    speakers = sorted({clip.speaker for clip in clips})
    by_speaker = {name: [clip for clip in clips if clip.speaker == name] for name in speakers}
    return DecoderScore(
        n_clips=len(clips),
        wer=word_error_rate(clips),
        cer=error_rate([(list(clip.reference), list(clip.hypothesis)) for clip in clips]),
        n_sentences_right=sum(clip.reference == clip.hypothesis for clip in clips),
        slots=score_slots(clips),
        letters=count_letter_confusions(clips),
        speakers={name: word_error_rate(own) for name, own in by_speaker.items()} if len(by_speaker) > 1 else {},
        reliability=measure_reliability(clips),
    )


def word_error_rate(clips: Sequence[TranscribedClip]) -> float:
    return error_rate([(clip.reference.split(), clip.hypothesis.split()) for clip in clips])


def error_rate(pairs: Sequence[tuple[Sequence[Symbol], Sequence[Symbol]]]) -> float:
    """Return edits / length of the references, over all pairs of (reference, hypothesis) together.

    Words give the word error rate, characters the character error rate.
    """
    n_symbols = sum(len(reference) for reference, _ in pairs)
    return sum(edit_distance(reference, hypothesis) for reference, hypothesis in pairs) / max(n_symbols, 1)


def edit_distance(reference: Sequence[Symbol], hypothesis: Sequence[Symbol]) -> int:
    """Return the Levenshtein distance: the fewest symbols to insert, delete or change."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        above, row = row, [i]
        for j, found in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (expected != found)))
    return row[-1]


def align_sequences(
    reference: Sequence[Symbol], hypothesis: Sequence[Symbol]
) -> list[tuple[Symbol | None, Symbol | None]]:
    """Align two sequences with the fewest edits.

    Returns: pairs of symbols; None is the missing symbol of an insertion or a deletion. Among alignments with
    equally few edits, a match or a substitution is preferred to a deletion, and a deletion to an insertion, from the
    end backwards. The scores per slot depend on this order.
    """
    distances = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    distances[:, 0], distances[0] = np.arange(len(reference) + 1), np.arange(len(hypothesis) + 1)
    for i, a in enumerate(reference, 1):
        for j, b in enumerate(hypothesis, 1):
            distances[i, j] = min(distances[i - 1, j - 1] + (a != b), distances[i - 1, j] + 1, distances[i, j - 1] + 1)
    pairs: list[tuple[Symbol | None, Symbol | None]] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        if i and j and distances[i, j] == distances[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and distances[i, j] == distances[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def is_grid_sentence(words: Sequence[str]) -> bool:
    return len(words) == len(GRID) and all(word in slot for word, slot in zip(words, GRID, strict=True))


def aligned_hypotheses(clip: TranscribedClip) -> list[str | None]:
    """Return what was recognised for each word of the reference; None for a missing word."""
    return [
        hypothesis
        for reference, hypothesis in align_sequences(clip.reference.split(), clip.hypothesis.split())
        if reference is not None
    ]


def score_slots(clips: Sequence[TranscribedClip]) -> dict[str, float]:
    references = [clip.reference.split() for clip in clips]
    right = [
        [a == b for a, b in zip(words, aligned_hypotheses(clip), strict=True)]
        for words, clip in zip(references, clips, strict=True)
        if is_grid_sentence(words)
    ]
    return dict(zip(SLOT_NAMES, np.mean(right, axis=0).tolist(), strict=True)) if right else {}


def count_letter_confusions(clips: Sequence[TranscribedClip]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(
        (clip.reference.split()[LETTER_SLOT], aligned_hypotheses(clip)[LETTER_SLOT] or "-")
        for clip in clips
        if is_grid_sentence(clip.reference.split())
    )
    return tuple((a, b, n) for (a, b), n in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def measure_reliability(clips: Sequence[TranscribedClip]) -> Reliability:
    """Measure how far confidences can be trusted. A word is correct if the reference has the same word in its place."""
    pairs = [
        (word.confidence or 0.0, reference == word.word)
        for clip in clips
        for word, reference in zip(clip.words, aligned_references(clip), strict=True)
    ]
    confidence = np.array([one for one, _ in pairs], float)
    right = np.array([one for _, one in pairs], bool)
    bin_indices = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = tuple(make_bin(i, confidence[bin_indices == i], right[bin_indices == i]) for i in range(N_BINS))
    total_error = sum(one.n_words * abs(one.confidence - one.right) for one in bins if one.n_words)
    return Reliability(
        n_words=len(pairs),
        n_right=int(right.sum()),
        expected_error=total_error / max(len(pairs), 1),
        area_under_roc=area_under_roc(confidence, right),
        bins=bins,
    )


def aligned_references(clip: TranscribedClip) -> list[str | None]:
    """Return the word of the reference for each recognised word; None for an inserted word."""
    words = [word.word for word in clip.words]
    return [
        reference for reference, hypothesis in align_sequences(clip.reference.split(), words) if hypothesis is not None
    ]


def make_bin(index: int, confidence: Floats, right: npt.NDArray[np.bool_]) -> ConfidenceBin:
    n_words = len(right)
    means = (float(confidence.mean()), float(right.mean())) if n_words else (float("nan"), float("nan"))
    return ConfidenceBin(index / N_BINS, (index + 1) / N_BINS, n_words, *means)


def area_under_roc(confidence: Floats, right: npt.NDArray[np.bool_]) -> float | None:
    """Return the probability that a correct word scores above a wrong one; a tie counts half."""
    a, b = confidence[right][:, None], confidence[~right]
    return float(((a > b) + 0.5 * (a == b)).mean()) if a.size and b.size else None
