"""Decode logits to sentences of the GRID corpus, with a confidence for each word.

The best path through the lattice gives the number of sentences and where each begins and ends. Within its
frames every sentence of the grammar is scored by CTC, summed over all its paths. This gives the n best
sentences and, by marginal sums, the posterior of each word in its slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice, pairwise

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.greedy_decoder import SPACE, DecodedText, Logits, decode_greedy, log_softmax, split_words
from inference.lip_reading.lattice import (
    Floats,
    Indices,
    Lattice,
    Slots,
    build_lattice,
    compute_sentence_weights,
    find_best_path,
)
from inference.lip_reading.options import Alternative, Word
from inference.lip_reading.preprocess import WINDOW_FRAMES
from inference.lip_reading.word_alignment import enforce_order, estimate_word_times

LANGUAGE = "grid"
GRID: Slots = (
    ("BIN", "LAY", "PLACE", "SET"),
    ("BLUE", "GREEN", "RED", "WHITE"),
    ("AT", "BY", "IN", "WITH"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVXYZ"),  # GRID omits W, which has three syllables
    ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"),
    ("AGAIN", "NOW", "PLEASE", "SOON"),
)
N_WORDS = len(GRID)
# Uniform prior: every sentence is equally likely before anything is seen.
SENTENCE_COST = math.log(math.prod(len(words) for words in GRID))  # ln 64,000 = 11.07 nats
# 1600 prefixes by 40 suffixes: the split of a sentence with the fewest states.
N_PREFIX_SLOTS = 4
# A sentence is searched for this far into a pause beyond its best path, as far as the network ever saw.
MAX_PAUSE = WINDOW_FRAMES  # frames
MARGIN = 12  # frames, half a second: words decoded this close to a sentence count against its agreement


@dataclass(frozen=True)
class Segment:
    """The frames of one sentence: to the middle of the pauses around it, at most MAX_PAUSE into them.

    start, end: bounds of the segment, `end` exclusive. speech_start, speech_end: the frame of the first character,
    and the frame after the last one.
    """

    start: int
    end: int
    speech_start: int
    speech_end: int


@dataclass(frozen=True)
class DecodedSentence:
    """One decoded sentence. alternatives: the n best, this one first."""

    words: tuple[Word, ...]
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class DecodedSpan:
    """Sentences decoded from a span of frames.

    n_out_of_grammar_words: words that unconstrained decoding finds apart from these sentences.
    """

    sentences: tuple[DecodedSentence, ...]
    n_out_of_grammar_words: int

    @property
    def words(self) -> list[Word]:
        """Words of all sentences."""
        return [word for sentence in self.sentences for word in sentence.words]

    def shifted(self, shift: int, start: int, end: int, fps: float) -> DecodedSpan:
        """Return the same, `shift` frames later.

        All words are moved inside the frames [start, end), each at least one frame long.
        """
        if not self.words:
            return self
        times = np.array([(word.start, word.end) for word in self.words], float) + (shift - start) / fps
        kept = enforce_order(np.append(times[:, 0], times[-1, 1]), (end - start) / fps, 1 / fps) + start / fps
        ends = np.clip(times[:, 1] + start / fps, kept[:-1] + 1 / fps, kept[1:])
        moved = iter(
            replace(word, start=round(float(a), 3), end=round(float(b), 3))
            for word, a, b in zip(self.words, kept[:-1], ends, strict=True)
        )
        sentences = (replace(one, words=tuple(islice(moved, len(one.words)))) for one in self.sentences)
        return replace(self, sentences=tuple(sentences))


@dataclass(frozen=True)
class SentencePosterior:
    """Posterior over the sentences of the grammar, for the frames of a segment.

    posteriors: of every sentence; one axis per slot. agreement: the log of the share that the sentences of the
    grammar have in everything that unconstrained CTC could decode here: 0 if it decodes nothing else.
    """

    posteriors: Floats
    agreement: float

    @property
    def best_indices(self) -> tuple[int, ...]:
        """The most probable sentence, as the index of its word in each slot."""
        return tuple(int(i) for i in np.unravel_index(int(self.posteriors.argmax()), self.posteriors.shape))

    @property
    def best_words(self) -> tuple[str, ...]:
        """The words of the most probable sentence."""
        return tuple(words[i] for words, i in zip(GRID, self.best_indices, strict=True))

    def word_posteriors(self) -> list[float]:
        """Return the posterior of each word of the best sentence in its slot."""
        return [float(slot[i]) for slot, i in zip(slot_posteriors(self.posteriors), self.best_indices, strict=True)]


def slot_posteriors(posteriors: Floats) -> list[Floats]:
    """Return the posterior of every word of each slot. posteriors: of every sentence; one axis per slot."""
    axes = range(posteriors.ndim)
    return [posteriors.sum(axis=tuple(other for other in axes if other != slot)) for slot in axes]


def grid_lattice() -> Lattice:
    """Return the lattice of any number of GRID sentences, with pauses."""
    return build_lattice(GRID, SENTENCE_COST)


def read_grammar(logits: Logits, fps: float, n_best: int, calibration: Calibration) -> DecodedText:
    """Decode the most probable sentences; none if silence is more probable. logits: (T, 28)."""
    return join_spans([decode_span(logits, fps, n_best, calibration)], n_best)


def decode_span(logits: Logits, fps: float, n_best: int, calibration: Calibration) -> DecodedSpan:
    """Decode the sentences in one span of frames. logits: (T, 28)."""
    log_p = log_softmax(logits.astype(np.float64))
    path = find_best_path(grid_lattice(), log_p)
    segments = cut_segments(path)
    sentences = tuple(decode_sentence(log_p, path, one, fps, n_best, calibration) for one in segments)
    return DecodedSpan(sentences, count_out_of_grammar_words(log_p, segments))


def join_spans(passages: Sequence[DecodedSpan], n_best: int) -> DecodedText:
    """Join consecutive spans to one text.

    Confidence: the expected share of right words; words that unconstrained decoding finds outside all sentences count
    as wrong; 0 if there are no words. Alternatives: of several sentences, the best combinations; their confidences are
    posteriors among all that the grammar allows in these frames.
    """
    sentences = [sentence for passage in passages for sentence in passage.sentences]
    words = tuple(word for sentence in sentences for word in sentence.words)
    expected_right = sum(word.confidence or 0.0 for word in words)
    n_stray = sum(passage.n_out_of_grammar_words for passage in passages)
    return DecodedText(
        text=SPACE.join(word.word for word in words),
        words=words,
        confidence=round(expected_right / (len(words) + n_stray), 4) if words else 0.0,
        alternatives=combine_alternatives([sentence.alternatives for sentence in sentences], n_best),
    )


def cut_segments(path: Indices) -> list[Segment]:
    """Cut the frames into one segment per sentence.

    path: (T,) states of the lattice. The last segment may contain a sentence that is still open.
    """
    words = list(split_words(decode_greedy(grid_lattice().labels[path])))
    sentences = [words[i : i + N_WORDS] for i in range(0, len(words), N_WORDS)]
    spans = [(sentence[0][0].first, sentence[-1][-1].last + 1) for sentence in sentences]
    cuts = [0, *((before[1] + after[0]) // 2 for before, after in pairwise(spans)), len(path)]
    return [
        Segment(max(first, opens - MAX_PAUSE), min(end, closes + MAX_PAUSE), opens, closes)
        for (first, end), (opens, closes) in zip(pairwise(cuts), spans, strict=False)
    ]


def compute_posterior(log_p: Floats, path: Indices, segment: Segment) -> SentencePosterior:
    """Compute the posterior of every sentence of the grammar in a segment, summed over all of its paths.

    log_p: (T, 28) of the whole video. path: (T,) states of the best path.
    """
    own = log_p[segment.start : segment.end]
    labels = grid_lattice().labels[path[segment.start : segment.end]]
    aligned = own[np.arange(len(own)), labels]
    # Each frame is scaled by its value on the best path: that path weighs 1, and nothing underflows.
    weights = compute_sentence_weights(GRID, N_PREFIX_SLOTS, np.exp(own - aligned[:, None]))
    total = weights.sum()
    around_speech = slice(
        max(segment.speech_start - segment.start - MARGIN, 0), segment.speech_end - segment.start + MARGIN
    )
    agreement = np.log(total) + aligned[around_speech].sum()
    return SentencePosterior(weights / total, float(agreement))


def decode_sentence(
    log_p: Floats, path: Indices, segment: Segment, fps: float, n_best: int, calibration: Calibration
) -> DecodedSentence:
    """Decode the most probable sentence of a segment."""
    scored = compute_posterior(log_p, path, segment)
    times = estimate_word_times(log_p[segment.start : segment.end], scored.best_words, fps, calibration)
    shift_s = segment.start / fps
    words = tuple(
        Word(
            word,
            round(start + shift_s, 3),
            round(end + shift_s, 3),
            round(calibration.confidence(posterior, scored.agreement), 4),
        )
        for word, (start, end), posterior in zip(scored.best_words, times, scored.word_posteriors(), strict=True)
    )
    return DecodedSentence(words, tuple(find_n_best(scored.posteriors, n_best)))


def find_n_best(posteriors: Floats, n_best: int) -> Iterator[Alternative]:
    """Yield the n most probable sentences, best first; sentences with zero probability are left out."""
    flat = posteriors.ravel()
    n = min(n_best, flat.size)
    candidates = np.argpartition(-flat, n - 1)[:n]
    for i in sorted(candidates, key=lambda i: (-flat[i], i)):
        if flat[i] > 0:
            sentence = (words[j] for words, j in zip(GRID, np.unravel_index(i, posteriors.shape), strict=True))
            yield Alternative(SPACE.join(sentence), float(flat[i]))


def combine_alternatives(parts: Sequence[Sequence[Alternative]], n_best: int) -> tuple[Alternative, ...]:
    """Combine the n best alternatives of several sentences to the n best of the whole.

    The result is exact, since sentences in separate segments are independent.
    """
    if not parts:
        return ()
    best = list(parts[0])
    for part in parts[1:]:
        both = (Alternative(a.text + SPACE + b.text, a.confidence * b.confidence) for a in best for b in part)
        best = nlargest(n_best, both, key=lambda one: one.confidence)
    return tuple(Alternative(one.text, round(one.confidence, 4)) for one in best)


def count_out_of_grammar_words(log_p: Floats, segments: Sequence[Segment]) -> int:
    """Count the words that unconstrained decoding finds apart from all sentences.

    They may be speech outside the grammar.
    """
    words = split_words(decode_greedy(log_p.argmax(axis=1)))
    is_near_sentence = np.zeros(len(log_p), bool)
    for one in segments:
        is_near_sentence[max(one.speech_start - MARGIN, 0) : one.speech_end + MARGIN] = True
    return sum(not is_near_sentence[letters[0].first : letters[-1].last + 1].any() for letters in words)
