"""Decode logits to one of a list of phrases, by exact CTC: each is scored over all of its paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inference.errors import InvalidRequest
from inference.lip_reading.greedy_decoder import SPACE, DecodedText, Logits, log_softmax
from inference.lip_reading.lattice import IDLE, Floats, Indices, LatticeBuilder
from inference.lip_reading.options import Alternative, Word
from inference.lip_reading.word_alignment import enforce_order, find_word_boundaries

MAX_FRAMES = 500  # 20 s at 25 fps: a phrase, with a pause before and after it


class PhraseStates(NamedTuple):
    """The CTC states of several phrases, padded to the longest.

    labels: (P, S) the class that each state emits. predecessors: (P, S, W) the states that may precede it, padded with
    S. finals: (P, 4) the states in which the phrase has been spoken.
    """

    labels: Indices
    predecessors: Indices
    finals: Indices


def build_states(phrases: Sequence[str]) -> PhraseStates:
    """Build the states of each phrase: before, between and after its words are blanks and spaces in any order.

    So a path belongs to a phrase exactly if greedy decoding reads the phrase from it.
    """
    graphs, finals = [], []
    for phrase in phrases:
        states = LatticeBuilder()
        entries = states.add_idle()
        for i, word in enumerate(phrase.split(SPACE)):
            if i:
                entries = states.add_word_boundary(*entries)
            end = states.add_word(word, entries)
            entries = [end, states.add(0, end)]
        graphs.append(states)
        finals.append([*entries, *states.add_word_boundary(*entries)])
    n_states = max(len(states.labels) for states in graphs)
    tables = [states.predecessor_table(n_states) for states in graphs]
    width = max(table.shape[1] for table in tables)
    predecessors = np.full((len(graphs), n_states, width), n_states)
    labels = np.zeros((len(graphs), n_states), np.int64)
    for i, (states, table) in enumerate(zip(graphs, tables, strict=True)):
        labels[i, : len(table)] = states.labels
        predecessors[i, : table.shape[0], : table.shape[1]] = table
    return PhraseStates(labels, predecessors, np.array(finals))


def score_phrases(log_p: Floats, phrases: Sequence[str]) -> Floats:
    """Return the log probability that all frames together say each phrase, and nothing else: -inf if they are too few.

    log_p: (T, 28). phrases: normalised. Returns: (P,).
    """
    states = build_states(phrases)
    n_phrases, n_states = states.labels.shape
    rows = np.arange(n_phrases)[:, None]
    totals = np.zeros((n_phrases, n_states + 1))
    totals[:, IDLE] = 1.0
    log_scale = np.zeros(n_phrases)
    for row in log_p:
        reached = totals[rows[..., None], states.predecessors].sum(axis=2)
        totals[:, :n_states] = reached * np.exp(row - row.max())[states.labels]
        largest = totals.max(axis=1)
        scale = np.where(largest > 0, largest, 1.0)
        totals /= scale[:, None]
        log_scale += np.log(scale) + row.max()
    found = totals[rows, states.finals].sum(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(found) + log_scale, np.float64)


def read_phrase(logits: Logits, phrases: Sequence[str], fps: float, n_best: int) -> DecodedText:
    """Decode the most probable phrase. logits: (T, 28). phrases: normalised.

    Confidence: the posterior of the phrase among all of the list, each as likely as the others beforehand; of a word,
    that of all phrases with this word in this place. Alternatives: the n best phrases.
    Raises: InvalidRequest if there are too few frames for any of them.
    """
    log_p = log_softmax(logits.astype(np.float64))
    scores = score_phrases(log_p, phrases)
    if not np.isfinite(scores).any():
        raise InvalidRequest(f"phrases: the video has {len(logits)} frames, too few for each of the phrases")
    weights = np.exp(scores - scores.max())
    posteriors = weights / weights.sum()
    order = np.argsort(-posteriors, kind="stable")
    best = phrases[order[0]]
    alternatives = tuple(Alternative(phrases[i], round(float(posteriors[i]), 4)) for i in order[:n_best])
    return DecodedText(
        best, time_words(log_p, best, phrases, posteriors, fps), alternatives[0].confidence, alternatives
    )


def time_words(log_p: Floats, best: str, phrases: Sequence[str], posteriors: Floats, fps: float) -> tuple[Word, ...]:
    """Return the words of a phrase, each until the next one begins."""
    words = best.split(SPACE)
    bounds = enforce_order(find_word_boundaries(log_p, words, fps), len(log_p) / fps, 1 / fps)
    split = [phrase.split(SPACE) for phrase in phrases]
    return tuple(
        Word(
            word,
            round(float(bounds[i]), 3),
            round(float(bounds[i + 1]), 3),
            round(float(sum(p for p, other in zip(posteriors, split, strict=True) if other[i : i + 1] == [word])), 4),
        )
        for i, word in enumerate(words)
    )
