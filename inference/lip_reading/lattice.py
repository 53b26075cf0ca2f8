"""A language of fixed slots as graphs of CTC states: the best path, and the weight of every sentence.

A sentence has one word out of each slot, spaces between words, and may be followed by another one. CTC
lets every character last, and puts blanks between: a state is a character or blank at one place of one
word. Words of one slot share what follows them, so that GRID's 64,000 sentences need 260 states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from inference.lip_reading.decode import BLANK, FIRST_SYMBOL, SPACE, SYMBOLS

Slots = tuple[tuple[str, ...], ...]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

IDLE = 0  # the state in which nothing was said yet
SPACE_LABEL = SYMBOLS.index(SPACE) + FIRST_SYMBOL
# A partial path may outweigh the best whole one, which is 1, and die later; it must not overflow before.
HEAVIEST = 1e250
BLOCK = 256  # frames whose leaves are held at once: 3 MB for GRID's 1600


def label_of(character: str) -> int:
    """The class of a character, 1..27."""
    return SYMBOLS.index(character) + FIRST_SYMBOL


class States:
    """A graph while it is being built: for each state its class and the states that may come before it."""

    def __init__(self) -> None:
        self.labels: list[int] = []
        self.before: list[list[int]] = []

    def add(self, label: int, *before: int) -> int:
        """A state that may last, and may follow those; returns its number."""
        self.labels.append(label)
        self.before.append([len(self.labels) - 1, *before])
        return len(self.labels) - 1

    def add_idle(self) -> list[int]:
        """Blanks and spaces in any order, before anything is said; its first state is IDLE."""
        blank, space = self.add(BLANK), self.add(SPACE_LABEL)
        self.before[blank].append(space)
        self.before[space].append(blank)
        return [blank, space]

    def add_word(self, word: str, entries: Sequence[int]) -> int:
        """The characters of a word after any of `entries`; returns its last one's state.

        Between characters there may be a blank, between equal ones there must be.
        """
        at = self.add(label_of(word[0]), *entries)
        for last, character in pairwise(word):
            blank = self.add(BLANK, at)
            at = self.add(label_of(character), blank, *([at] if character != last else []))
        return at

    def add_gap(self, *ends: int) -> list[int]:
        """What parts words: blanks and spaces, after a first space; returns the states it may end in."""
        space = self.add(SPACE_LABEL, *ends)
        blank = self.add(BLANK, space)
        self.before[space].append(blank)
        return [space, blank]

    def table(self, nowhere: int) -> Indices:
        """(S, P) states that may come before each, padded with `nowhere`."""
        width = max(map(len, self.before))
        return np.array([row + [nowhere] * (width - len(row)) for row in self.before])


@dataclass(frozen=True)
class Lattice:
    """Sentences with pauses before, between and after them.

    labels: (S,) the class each state says. before: (S, P) which states may come before it; S + s stands for
    "a word of slot s has ended", S + n_slots for none. cost: (S, P) what each step costs: a sentence's start does.
    exits: (n_slots, E) the states that end a word of each slot, padded with S + n_slots.
    closed: the states in which no sentence is open.
    """

    labels: Indices
    before: Indices
    cost: Floats
    exits: Indices
    closed: Indices


@lru_cache(maxsize=8)
def build_lattice(slots: Slots, sentence_cost: float = 0.0, *, once: bool = False) -> Lattice:
    """once: exactly one sentence; otherwise any number, none among them.

    sentence_cost: nats that every sentence costs; the prior against reading speech into silence.
    """
    states = States()
    entries = idle = states.add_idle()
    n_slots = len(slots)
    n_states = 2 * sum(len(word) for words in slots for word in words) + 2 * n_slots + (2 if once else 0)
    exits: list[list[int]] = []
    opening: list[int] = []  # states that begin a sentence
    for s, words in enumerate(slots):
        if s:
            entries = states.add_gap(n_states + s - 1)
        exits.append([])
        for word in words:
            opening += [] if s else [len(states.labels)]
            end = states.add_word(word, entries)
            exits[s] += [end, states.add(BLANK, end)]
    last = n_states + n_slots - 1
    if once:
        idle = states.add_gap(last)
    else:
        states.before[idle[1]].append(last)  # after a sentence is before the next one
    assert len(states.labels) == n_states
    table = states.table(n_states + n_slots)
    cost = np.zeros(table.shape)
    cost[opening, 1:] = sentence_cost
    return Lattice(np.array(states.labels), table, cost, pad(exits, n_states + n_slots), np.array(exits[-1] + idle))


def pad(rows: Sequence[Sequence[int]], filler: int) -> Indices:
    width = max(map(len, rows))
    return np.array([[*row, *[filler] * (width - len(row))] for row in rows])


def find_pointers(lattice: Lattice, log_p: Floats) -> tuple[npt.NDArray[np.int16], Floats]:
    """Viterbi's algorithm, forward, from nothing said.

    log_p: (T, 28).
    Returns: (T, S) the best state before each state of each frame; (S,) the scores after the last frame.
    """
    n_states, n_slots = len(lattice.labels), len(lattice.exits)
    pointers = np.empty((len(log_p), n_states), np.int16)
    rows, slots = np.arange(n_states), np.arange(n_slots)
    scores = np.full(n_states + n_slots + 1, -np.inf)
    origins = np.arange(n_states + n_slots + 1)
    scores[IDLE] = 0.0
    leave(lattice, scores, origins, slots)
    for t, row in enumerate(log_p):
        reached = scores[lattice.before] - lattice.cost
        best = reached.argmax(axis=1)
        pointers[t] = origins[lattice.before[rows, best]]
        scores[:n_states] = reached[rows, best] + row[lattice.labels]
        leave(lattice, scores, origins, slots)
    return pointers, scores[:n_states]


def leave(lattice: Lattice, scores: Floats, origins: Indices, slots: Indices) -> None:
    """Set, in place, the score of having ended a word of each slot, and the state it was ended in."""
    n_states = len(lattice.labels)
    ended = scores[lattice.exits]
    best = ended.argmax(axis=1)
    scores[n_states:-1] = ended[slots, best]
    origins[n_states:-1] = lattice.exits[slots, best]


def best_path(lattice: Lattice, log_p: Floats) -> Indices:
    """(T,) the states of the most probable path that ends with no sentence open."""
    pointers, scores = find_pointers(lattice, log_p)
    return follow_back(pointers, int(lattice.closed[scores[lattice.closed].argmax()]))


def follow_back(pointers: npt.NDArray[np.int16], state: int) -> Indices:
    """The path that ends in a state."""
    path = np.empty(len(pointers), np.int64)
    for t in range(len(pointers) - 1, -1, -1):
        path[t] = state
        state = int(pointers[t, state])
    return path


@dataclass(frozen=True)
class Tree:
    """Every beginning of a sentence apart: one leaf for each sequence of words of some slots.

    labels: (S,). before: (S, P), padded with S. leaves: (n_leaves, E) the states that end each sequence,
    in the order of `itertools.product`.
    """

    labels: Indices
    before: Indices
    leaves: Indices


@lru_cache(maxsize=8)
def grow(slots: Slots, *, gap: bool) -> Tree:
    """gap: whether what parts the last word from the next one belongs to the tree; a leaf ends in it."""
    states = States()
    leaves = [states.add_idle()]
    for s, words in enumerate(slots):
        ends = [states.add_word(word, entries) for entries in leaves for word in words]
        is_last = s + 1 == len(slots)
        leaves = (
            [[end] for end in ends]
            if is_last and not gap
            else [states.add_gap(end, states.add(BLANK, end)) for end in ends]
        )
    n_states = len(states.labels)
    return Tree(np.array(states.labels), states.table(n_states), np.array(leaves))


def weigh_leaves(tree: Tree, weights: Floats) -> Iterator[Floats]:
    """weights: (T, 28) of each class in each frame.

    Yields: (n_leaves,) for each frame: the sum over all paths from the first frame that are in the leaf now.
    """
    n_states = len(tree.labels)
    before = np.ascontiguousarray(tree.before.T)  # sums down long rows are several times as fast
    leaves = np.ascontiguousarray(tree.leaves.T)
    reached = np.zeros(n_states + 1)
    reached[IDLE] = 1.0
    for row in weights:
        total = reached[before].sum(axis=0) * row[tree.labels]
        reached[:n_states] = np.minimum(total, HEAVIEST)
        yield reached[leaves].sum(axis=0)


def weigh_sentences(slots: Slots, n_head: int, weights: Floats) -> Floats:
    """The weight of every sentence: the sum over all its paths, each the product of its frames' weights.

    weights: (T, 28). n_head: how many slots are counted from the front; the others from the back. The two
    halves meet after each frame in turn, so that no sentence needs states of its own.
    Returns: an array with one axis for each slot.
    """
    head, tail = grow(slots[:n_head], gap=False), grow(mirror(slots[n_head:]), gap=True)
    to_come = np.array(list(weigh_leaves(tail, weights[::-1])))[::-1]
    ended = weigh_leaves(head, weights)
    table = np.zeros((len(head.leaves), len(tail.leaves)))
    for t in range(0, len(weights) - 1, BLOCK):
        following = to_come[t + 1 : t + 1 + BLOCK]
        table += np.array(list(islice(ended, len(following)))).T @ following
    sizes = [len(words) for words in slots]
    n_tail = len(slots) - n_head
    by_slot = table.reshape(sizes[:n_head] + sizes[n_head:][::-1])
    return by_slot.transpose([*range(n_head), *(n_head + i for i in reversed(range(n_tail)))])


def mirror(slots: Slots) -> Slots:
    """The same language read from the back."""
    return tuple(tuple(word[::-1] for word in words) for words in reversed(slots))
