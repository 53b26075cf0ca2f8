"""A grammar of fixed slots as graphs of CTC states: the best path, and the weight of every sentence.

A sentence has one word from each slot, with spaces between words, and may be followed by another sentence. CTC
lets every character last, and puts blanks between: a state is a character or blank at one position of one
word. Words of one slot share their successors, so that GRID's 64,000 sentences need only 260 states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from inference.lip_reading.greedy_decoder import BLANK, FIRST_SYMBOL, SPACE, SYMBOLS
from inference.matrix_product import multiply

Slots = tuple[tuple[str, ...], ...]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

IDLE = 0  # the state before the first character
SPACE_LABEL = SYMBOLS.index(SPACE) + FIRST_SYMBOL
# A partial path may outweigh the best whole path, which weighs 1, and die later; it must not overflow before that.
MAX_WEIGHT = 1e250
SCALE_EVERY = 8  # frames: weights of 1e-30 a frame do not underflow in them
BLOCK_FRAMES = 256  # frames whose leaves are held at once: 3 MB for GRID's 1600 leaves


def class_of(character: str) -> int:
    """Return the class of a character, 1..27."""
    return SYMBOLS.index(character) + FIRST_SYMBOL


class LatticeBuilder:
    """Builds a graph: for each state its class and its predecessors."""

    def __init__(self) -> None:
        self.labels: list[int] = []
        self.predecessors: list[list[int]] = []

    def add(self, label: int, *predecessors: int) -> int:
        """Add a state that may repeat and may follow the given states; return its index."""
        self.labels.append(label)
        self.predecessors.append([len(self.labels) - 1, *predecessors])
        return len(self.labels) - 1

    def add_idle(self) -> list[int]:
        """Add blanks and spaces in any order, before the first character; return both states. The first one is IDLE."""
        blank, space = self.add(BLANK), self.add(SPACE_LABEL)
        self.predecessors[blank].append(space)
        self.predecessors[space].append(blank)
        return [blank, space]

    def add_word(self, word: str, entries: Sequence[int]) -> int:
        """Add the characters of a word after any of `entries`; return the state of its last character.

        A blank may come between characters; between equal characters it must.
        """
        at = self.add(class_of(word[0]), *entries)
        for last, character in pairwise(word):
            blank = self.add(BLANK, at)
            at = self.add(class_of(character), blank, *([at] if character != last else []))
        return at

    def add_word_boundary(self, *ends: int) -> list[int]:
        """Add a word boundary: a space, then blanks and spaces; return the states it may end in."""
        space = self.add(SPACE_LABEL, *ends)
        blank = self.add(BLANK, space)
        self.predecessors[space].append(blank)
        return [space, blank]

    def predecessor_table(self, padding: int) -> Indices:
        """Return the (S, P) predecessors of each state, padded with `padding`."""
        width = max(map(len, self.predecessors))
        return np.array([row + [padding] * (width - len(row)) for row in self.predecessors])


@dataclass(frozen=True)
class Lattice:
    """Sentences with pauses before, between and after them.

    labels: (S,) the class that each state emits. predecessors: (S, P) the states that may precede it; S + s is
    "a word of slot s has ended", S + n_slots is padding. cost: (S, P) cost of each step, in nats; only the first states
    of a sentence have one. exits: (n_slots, E) the states that end a word of each slot, padded with S + n_slots.
    final_states: the states in which no sentence is open.
    """

    labels: Indices
    predecessors: Indices
    cost: Floats
    exits: Indices
    final_states: Indices


@lru_cache(maxsize=8)
def build_lattice(slots: Slots, sentence_cost: float = 0.0, *, exactly_one: bool = False) -> Lattice:
    """Build the lattice of the sentences that slots allow.

    sentence_cost: nats that every sentence costs; the prior against decoding speech from silence. exactly_one: exactly
    one sentence; otherwise any number, zero included.
    """
    states = LatticeBuilder()
    entries = idle = states.add_idle()
    n_slots = len(slots)
    n_states = 2 * sum(len(word) for words in slots for word in words) + 2 * n_slots + (2 if exactly_one else 0)
    exits: list[list[int]] = []
    first_states: list[int] = []  # first states of a sentence
    for s, words in enumerate(slots):
        if s:
            entries = states.add_word_boundary(n_states + s - 1)
        exits.append([])
        for word in words:
            first_states += [] if s else [len(states.labels)]
            end = states.add_word(word, entries)
            exits[s] += [end, states.add(BLANK, end)]
    last = n_states + n_slots - 1
    if exactly_one:
        idle = states.add_word_boundary(last)
    else:
        states.predecessors[idle[1]].append(last)  # the end of a sentence may precede the next one
    assert len(states.labels) == n_states
    table = states.predecessor_table(n_states + n_slots)
    cost = np.zeros(table.shape)
    cost[first_states, 1:] = sentence_cost
    return Lattice(
        np.array(states.labels), table, cost, pad_rows(exits, n_states + n_slots), np.array(exits[-1] + idle)
    )


def pad_rows(rows: Sequence[Sequence[int]], padding: int) -> Indices:
    """Return rows as one array, each padded to the longest."""
    width = max(map(len, rows))
    return np.array([[*row, *[padding] * (width - len(row))] for row in rows])


def find_backpointers(lattice: Lattice, log_p: Floats) -> tuple[npt.NDArray[np.int16], Floats]:
    """Run the forward pass of Viterbi's algorithm, from the idle state.

    log_p: (T, 28).
    Returns: (T, S) the best predecessor of each state in each frame; (S,) the scores after the last frame.
    """
    n_states, n_slots = len(lattice.labels), len(lattice.exits)
    pointers = np.empty((len(log_p), n_states), np.int16)
    rows, slots = np.arange(n_states), np.arange(n_slots)
    scores = np.full(n_states + n_slots + 1, -np.inf)
    origins = np.arange(n_states + n_slots + 1)
    scores[IDLE] = 0.0
    update_word_exits(lattice, scores, origins, slots)
    for t, row in enumerate(log_p):
        reached = scores[lattice.predecessors] - lattice.cost
        best = reached.argmax(axis=1)
        pointers[t] = origins[lattice.predecessors[rows, best]]
        scores[:n_states] = reached[rows, best] + row[lattice.labels]
        update_word_exits(lattice, scores, origins, slots)
    return pointers, scores[:n_states]


def update_word_exits(lattice: Lattice, scores: Floats, origins: Indices, slots: Indices) -> None:
    """Set, in place, the score of having ended a word of each slot, and the state that ended it."""
    n_states = len(lattice.labels)
    exit_scores = scores[lattice.exits]
    best = exit_scores.argmax(axis=1)
    scores[n_states:-1] = exit_scores[slots, best]
    origins[n_states:-1] = lattice.exits[slots, best]


def find_best_path(lattice: Lattice, log_p: Floats) -> Indices:
    """Return the (T,) states of the most probable path that ends with no sentence open."""
    pointers, scores = find_backpointers(lattice, log_p)
    return backtrack(pointers, int(lattice.final_states[scores[lattice.final_states].argmax()]))


def backtrack(pointers: npt.NDArray[np.int16], state: int) -> Indices:
    """Return the path that ends in a state."""
    path = np.empty(len(pointers), np.int64)
    for t in range(len(pointers) - 1, -1, -1):
        path[t] = state
        state = int(pointers[t, state])
    return path


def sum_sentence_weights(slots: Slots, weights: Floats) -> Floats:
    """Return the log of the summed weight of all sentences: of all paths with exactly one sentence, whichever.

    weights: (B, T, 28) of each class in each frame. Returns: (B,), -inf if no path has a weight.
    """
    lattice = build_lattice(slots, exactly_one=True)
    n_states = len(lattice.labels)
    # No matrix products: for ones this small a BLAS library wakes threads that cost more than they save.
    predecessors = np.ascontiguousarray(lattice.predecessors.T)
    exits = np.ascontiguousarray(lattice.exits.T)
    emitted = weights.transpose(1, 2, 0)[:, lattice.labels]  # (T, S, B)
    totals = np.zeros((n_states + len(slots) + 1, len(weights)))
    totals[IDLE] = 1.0
    log_scale = np.zeros(len(weights))
    arriving = np.empty((*predecessors.shape, len(weights)))
    ending = np.empty((*exits.shape, len(weights)))
    for t, row in enumerate(emitted):
        np.take(totals, predecessors, 0, arriving, "clip")  # no index is clipped: others would be copied first
        np.multiply(np.add.reduce(arriving, 0), row, totals[:n_states])
        if t % SCALE_EVERY == 0:
            largest = totals[:n_states].max(axis=0)
            largest[largest == 0] = 1.0
            totals[:n_states] /= largest  # nothing underflows in a long video
            log_scale += np.log(largest)
        np.take(totals, exits, 0, ending, "clip")
        np.add.reduce(ending, 0, out=totals[n_states:-1])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(totals[lattice.final_states].sum(axis=0)) + log_scale)


@dataclass(frozen=True)
class PrefixTree:
    """A tree with one branch for every beginning of a sentence: one leaf for each sequence of words of some slots.

    labels: (S,). predecessors: (S, P), padded with S. leaves: (n_leaves, E) the states that end each sequence,
    in the order of `itertools.product`.
    """

    labels: Indices
    predecessors: Indices
    leaves: Indices


@lru_cache(maxsize=8)
def build_prefix_tree(slots: Slots, *, ends_in_boundary: bool) -> PrefixTree:
    """Build the prefix tree of some slots.

    ends_in_boundary: append the word boundary after the last word; the leaves are then its states.
    """
    states = LatticeBuilder()
    leaves = [states.add_idle()]
    for s, words in enumerate(slots):
        ends = [states.add_word(word, entries) for entries in leaves for word in words]
        is_last = s + 1 == len(slots)
        leaves = (
            [[end] for end in ends]
            if is_last and not ends_in_boundary
            else [states.add_word_boundary(end, states.add(BLANK, end)) for end in ends]
        )
    n_states = len(states.labels)
    return PrefixTree(np.array(states.labels), states.predecessor_table(n_states), np.array(leaves))


def iterate_leaf_weights(tree: PrefixTree, weights: Floats) -> Iterator[Floats]:
    """Run the forward algorithm over a tree. weights: (T, 28) of each class in each frame.

    Yields: (n_leaves,) for each frame: the sum over all paths from the first frame that are in the leaf now.
    """
    n_states = len(tree.labels)
    predecessors = np.ascontiguousarray(tree.predecessors.T)  # sums down long rows are several times as fast
    leaves = np.ascontiguousarray(tree.leaves.T)
    totals = np.zeros(n_states + 1)
    totals[IDLE] = 1.0
    for row in weights:
        arriving = totals[predecessors].sum(axis=0) * row[tree.labels]
        totals[:n_states] = np.minimum(arriving, MAX_WEIGHT)
        yield totals[leaves].sum(axis=0)


def compute_sentence_weights(slots: Slots, n_prefix: int, weights: Floats) -> Floats:
    """Compute the weight of every sentence: the sum over all its paths of the product of their weights per frame.

    weights: (T, 28). n_prefix: number of slots in the prefix; the others are the suffix, scored from the back. The two
    halves meet after each frame in turn, so no sentence needs states of its own.
    Returns: an array with one axis for each slot.
    """
    head, tail = (
        build_prefix_tree(slots[:n_prefix], ends_in_boundary=False),
        build_prefix_tree(reverse_slots(slots[n_prefix:]), ends_in_boundary=True),
    )
    suffix_weights = np.array(list(iterate_leaf_weights(tail, weights[::-1])))[::-1]
    prefix_weights = iterate_leaf_weights(head, weights)
    table = np.zeros((len(head.leaves), len(tail.leaves)))
    for t in range(0, len(weights) - 1, BLOCK_FRAMES):
        following = suffix_weights[t + 1 : t + 1 + BLOCK_FRAMES]
        table += multiply(np.array(list(islice(prefix_weights, len(following)))).T, following)
    sizes = [len(words) for words in slots]
    n_tail = len(slots) - n_prefix
    by_slot = table.reshape(sizes[:n_prefix] + sizes[n_prefix:][::-1])
    return by_slot.transpose([*range(n_prefix), *(n_prefix + i for i in reversed(range(n_tail)))])


def reverse_slots(slots: Slots) -> Slots:
    """Return the same grammar, spelled backwards."""
    return tuple(tuple(word[::-1] for word in words) for words in reversed(slots))
