"""Logits into sentences of the GRID corpus, and how sure each word of them is.

The best path through the lattice says how many sentences there are and where each begins and ends. Within
its frames each sentence of the language is weighed by CTC, over all of its paths: this gives the n best, and
by sums over the others the posterior of each word in its slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice, pairwise

import numpy as np

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.decode import SPACE, Logits, Reading, decode_greedy, log_softmax, split_words
from inference.lip_reading.lattice import Floats, Indices, Lattice, Slots, best_path, build_lattice, weigh_sentences
from inference.lip_reading.options import Alternative, Word
from inference.lip_reading.preprocess import WINDOW
from inference.lip_reading.word_times import keep_order, place_words

LANGUAGE = "grid"
GRID: Slots = (
    ("BIN", "LAY", "PLACE", "SET"),
    ("BLUE", "GREEN", "RED", "WHITE"),
    ("AT", "BY", "IN", "WITH"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVXYZ"),  # W is no letter of GRID: it has three syllables
    ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"),
    ("AGAIN", "NOW", "PLEASE", "SOON"),
)
N_WORDS = len(GRID)
# Every sentence is as likely as any other before anything is seen.
SENTENCE_COST = math.log(math.prod(len(words) for words in GRID))  # ln 64,000 = 11.07 nats
# 1600 beginnings by 40 ends: of all ways to cut a sentence in two the one with the fewest states.
N_HEAD = 4
# How far into a pause a sentence may be looked for, beyond its best path: as far as the network ever looked.
REACH = WINDOW  # frames
NEARBY = 12  # frames, half a second: what is read so near to a sentence is held against it


@dataclass(frozen=True)
class Segment:
    """The frames of one sentence: to the middle of the pauses around it, at most REACH into them.

    first, end: of the segment. opens, closes: the frames of its first character and after its last one.
    """

    first: int
    end: int
    opens: int
    closes: int


@dataclass(frozen=True)
class Sentence:
    """One sentence, read. alternatives: the n best, this one first."""

    words: tuple[Word, ...]
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Passage:
    """Sentences, and how many words free decoding reads apart from them."""

    sentences: tuple[Sentence, ...]
    n_stray: int

    @property
    def words(self) -> list[Word]:
        return [word for sentence in self.sentences for word in sentence.words]

    def moved(self, shift: int, start: int, end: int, fps: float) -> Passage:
        """The same, so many frames later, with all its words in the frames [start, end), each of one at least."""
        if not self.words:
            return self
        times = np.array([(word.start, word.end) for word in self.words], float) + (shift - start) / fps
        kept = keep_order(np.append(times[:, 0], times[-1, 1]), (end - start) / fps, 1 / fps) + start / fps
        ends = np.clip(times[:, 1] + start / fps, kept[:-1] + 1 / fps, kept[1:])
        moved = iter(
            replace(word, start=round(float(a), 3), end=round(float(b), 3))
            for word, a, b in zip(self.words, kept[:-1], ends, strict=True)
        )
        sentences = (replace(one, words=tuple(islice(moved, len(one.words)))) for one in self.sentences)
        return replace(self, sentences=tuple(sentences))


@dataclass(frozen=True)
class Weighed:
    """What the frames of a segment say.

    posteriors: of every sentence; an axis for each slot. agreement: the log of the share that the language's
    sentences have in all that CTC, free of it, could read here: 0 where it reads nothing else.
    """

    posteriors: Floats
    agreement: float

    @property
    def best(self) -> tuple[int, ...]:
        """The most probable sentence, as the number of its word in each slot."""
        return tuple(int(i) for i in np.unravel_index(int(self.posteriors.argmax()), self.posteriors.shape))

    @property
    def said(self) -> tuple[str, ...]:
        return tuple(words[i] for words, i in zip(GRID, self.best, strict=True))

    def of_slots(self) -> list[float]:
        """The posterior of each word of the best sentence in its slot."""
        return [float(slot[i]) for slot, i in zip(slot_posteriors(self.posteriors), self.best, strict=True)]


def slot_posteriors(posteriors: Floats) -> list[Floats]:
    """The posterior of every word of each slot. posteriors: of every sentence; an axis for each slot."""
    axes = range(posteriors.ndim)
    return [posteriors.sum(axis=tuple(other for other in axes if other != slot)) for slot in axes]


def grid_lattice() -> Lattice:
    """Any number of GRID sentences, with pauses."""
    return build_lattice(GRID, SENTENCE_COST)


def read_grammar(logits: Logits, fps: float, n_best: int, calibration: Calibration) -> Reading:
    """The sentences that were most probably said; none where silence is more probable. logits: (T, 28)."""
    return join_passages([read_passage(logits, fps, n_best, calibration)], n_best)


def read_passage(logits: Logits, fps: float, n_best: int, calibration: Calibration) -> Passage:
    log_p = log_softmax(logits.astype(np.float64))
    path = best_path(grid_lattice(), log_p)
    segments = cut_segments(path)
    sentences = tuple(read_sentence(log_p, path, one, fps, n_best, calibration) for one in segments)
    return Passage(sentences, count_stray_words(log_p, segments))


def join_passages(passages: Sequence[Passage], n_best: int) -> Reading:
    """Passages that follow one another as one reading.

    Confidence: the expected share of right words, with words that free decoding reads outside all sentences counted
    as wrong ones; 0 for none. Alternatives: of several sentences, the best combinations; their confidences are
    posteriors among all the language can say in these frames.
    """
    sentences = [sentence for passage in passages for sentence in passage.sentences]
    words = tuple(word for sentence in sentences for word in sentence.words)
    sure = sum(word.confidence or 0.0 for word in words)
    n_stray = sum(passage.n_stray for passage in passages)
    return Reading(
        text=SPACE.join(word.word for word in words),
        words=words,
        confidence=round(sure / (len(words) + n_stray), 4) if words else 0.0,
        alternatives=combine([sentence.alternatives for sentence in sentences], n_best),
    )


def cut_segments(path: Indices) -> list[Segment]:
    """path: (T,) states of the lattice. The last segment may be of a sentence that is still open."""
    words = list(split_words(decode_greedy(grid_lattice().labels[path])))
    sentences = [words[i : i + N_WORDS] for i in range(0, len(words), N_WORDS)]
    spans = [(sentence[0][0].first, sentence[-1][-1].last + 1) for sentence in sentences]
    cuts = [0, *((before[1] + after[0]) // 2 for before, after in pairwise(spans)), len(path)]
    return [
        Segment(max(first, opens - REACH), min(end, closes + REACH), opens, closes)
        for (first, end), (opens, closes) in zip(pairwise(cuts), spans, strict=False)
    ]


def weigh_segment(log_p: Floats, path: Indices, segment: Segment) -> Weighed:
    """Every sentence of the language against the frames of a segment, by the sum over all of its paths.

    log_p: (T, 28) of the whole. path: (T,) the best path's states.
    """
    own = log_p[segment.first : segment.end]
    labels = grid_lattice().labels[path[segment.first : segment.end]]
    aligned = own[np.arange(len(own)), labels]
    # Each frame in proportion to what the best path makes of it: that path weighs 1, and nothing underflows.
    weights = weigh_sentences(GRID, N_HEAD, np.exp(own - aligned[:, None]))
    total = weights.sum()
    nearby = slice(max(segment.opens - segment.first - NEARBY, 0), segment.closes - segment.first + NEARBY)
    agreement = np.log(total) + aligned[nearby].sum()
    return Weighed(weights / total, float(agreement))


def read_sentence(
    log_p: Floats, path: Indices, segment: Segment, fps: float, n_best: int, calibration: Calibration
) -> Sentence:
    """The most probable sentence of a segment."""
    weighed = weigh_segment(log_p, path, segment)
    times = place_words(log_p[segment.first : segment.end], weighed.said, fps, calibration)
    shift_s = segment.first / fps
    words = tuple(
        Word(
            word,
            round(start + shift_s, 3),
            round(end + shift_s, 3),
            round(calibration.confidence(posterior, weighed.agreement), 4),
        )
        for word, (start, end), posterior in zip(weighed.said, times, weighed.of_slots(), strict=True)
    )
    return Sentence(words, tuple(find_best(weighed.posteriors, n_best)))


def find_best(posteriors: Floats, n_best: int) -> Iterator[Alternative]:
    """The n most probable sentences, the best first; one with no probability at all is none."""
    flat = posteriors.ravel()
    n = min(n_best, flat.size)
    among = np.argpartition(-flat, n - 1)[:n]
    for i in sorted(among, key=lambda i: (-flat[i], i)):
        if flat[i] > 0:
            said = (words[j] for words, j in zip(GRID, np.unravel_index(i, posteriors.shape), strict=True))
            yield Alternative(SPACE.join(said), float(flat[i]))


def combine(parts: Sequence[Sequence[Alternative]], n_best: int) -> tuple[Alternative, ...]:
    """The n best readings of several sentences, out of the n best of each: exact, since sentences in
    segments of their own are independent.
    """
    if not parts:
        return ()
    best = list(parts[0])
    for part in parts[1:]:
        both = (Alternative(a.text + SPACE + b.text, a.confidence * b.confidence) for a in best for b in part)
        best = nlargest(n_best, both, key=lambda one: one.confidence)
    return tuple(Alternative(one.text, round(one.confidence, 4)) for one in best)


def count_stray_words(log_p: Floats, segments: Sequence[Segment]) -> int:
    """Words that free decoding reads apart from all sentences: speech, perhaps, that the language lacks."""
    free = split_words(decode_greedy(log_p.argmax(axis=1)))
    near = np.zeros(len(log_p), bool)
    for one in segments:
        near[max(one.opens - NEARBY, 0) : one.closes + NEARBY] = True
    return sum(not near[letters[0].first : letters[-1].last + 1].any() for letters in free)
