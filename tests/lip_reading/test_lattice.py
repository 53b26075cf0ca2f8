"""The lattice, against every single path of tiny grammars."""

from itertools import product

import numpy as np
import pytest

from inference.lip_reading.grammar_decoder import GRID
from inference.lip_reading.greedy_decoder import FIRST_SYMBOL, SYMBOLS, decode_greedy, join_characters, log_softmax
from inference.lip_reading.lattice import (
    build_lattice,
    compute_sentence_weights,
    find_backpointers,
    find_best_path,
    sum_sentence_weights,
)

# A word of two equal letters, words that begin alike, and a word that is the beginning of another.
TINY = (("A", "BB"), ("AB", "A"))
N_FRAMES = 7
CLASSES = [0, 1, *(SYMBOLS.index(c) + FIRST_SYMBOL for c in "AB")]


def noise(seed: int, n_frames: int = N_FRAMES, scale: float = 2.0) -> np.ndarray:
    """Return (T, 28) log probabilities, of blank, space, A and B only."""
    logits = np.full((n_frames, 28), -1e9)
    logits[:, CLASSES] = np.random.default_rng(seed).normal(0, scale, (n_frames, len(CLASSES)))
    return log_softmax(logits)


def every_path(log_p: np.ndarray) -> list[tuple[str, float]]:
    """Return the text of each of the 4^T labellings, and its log probability."""
    labels = np.array(list(product(CLASSES, repeat=len(log_p))))
    scores = log_p[np.arange(len(log_p)), labels].sum(axis=1)
    return [(join_characters(decode_greedy(row)), score) for row, score in zip(labels, scores.tolist(), strict=True)]


def sentences(n: int) -> set[str]:
    """Return all texts of n sentences."""
    one = [" ".join(words) for words in product(*TINY)]
    return {" ".join(some) for some in product(one, repeat=n)}


@pytest.mark.parametrize("seed", range(5))
def test_a_sentence_weight_is_the_sum_over_its_paths(seed: int):
    log_p = noise(seed)
    paths = every_path(log_p)
    weights = compute_sentence_weights(TINY, 1, np.exp(log_p))
    assert weights.shape == (2, 2)
    for (i, a), (j, b) in product(enumerate(TINY[0]), enumerate(TINY[1])):
        log_probabilities = [score for text, score in paths if text == f"{a} {b}"]
        assert weights[i, j] == pytest.approx(np.exp(log_probabilities).sum(), rel=1e-9)


def test_the_prefix_length_does_not_matter():
    slots = (("A", "B"), ("B",), ("AB", "BA", "A"))
    weights = np.exp(noise(0, n_frames=12))
    early, late = (compute_sentence_weights(slots, n_head, weights) for n_head in (1, 2))
    assert early.shape == (2, 1, 3)
    assert early == pytest.approx(late, rel=1e-9)
    assert (early > 0).all()


def test_the_sum_of_all_sentence_weights_is_that_of_each():
    weights = np.exp([noise(seed, n_frames=12) for seed in range(3)])
    expected = [np.log(compute_sentence_weights(TINY, 1, one).sum()) for one in weights]
    assert sum_sentence_weights(TINY, weights) == pytest.approx(expected, rel=1e-9)
    grid = np.random.default_rng(0).random((2, 75, 28)) ** 4
    expected = [np.log(compute_sentence_weights(GRID, 4, one).sum()) for one in grid]
    assert sum_sentence_weights(GRID, grid) == pytest.approx(expected, rel=1e-9)


def test_a_sum_of_tiny_weights_does_not_underflow():
    weights = np.exp(noise(1, n_frames=400))
    (whole,) = sum_sentence_weights(TINY, weights[None])
    (scaled,) = sum_sentence_weights(TINY, weights[None] * 1e-9)
    assert scaled == pytest.approx(whole + 400 * np.log(1e-9), rel=1e-9)
    assert sum_sentence_weights(TINY, np.zeros((1, 5, 28))) == [-np.inf]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cost", [0.0, 3.0])
def test_the_best_path_is_the_best_of_all_paths(seed: int, cost: float):
    log_p = noise(seed)
    allowed = {"": 0.0} | dict.fromkeys(sentences(1), cost) | dict.fromkeys(sentences(2), 2 * cost)
    best = max(score - allowed[text] for text, score in every_path(log_p) if text in allowed)
    lattice = build_lattice(TINY, cost)
    labels = lattice.labels[find_best_path(lattice, log_p)]
    text = join_characters(decode_greedy(labels))
    assert log_p[np.arange(N_FRAMES), labels].sum() - allowed[text] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_exactly_one_sentence_if_requested(seed: int):
    log_p = noise(seed)
    log_p[:, 0] += 20  # silence would be far better
    lattice = build_lattice(TINY, exactly_one=True)
    assert join_characters(decode_greedy(lattice.labels[find_best_path(lattice, log_p)])) in sentences(1)


def logits_for(frames: str, sure: float = 10.0) -> np.ndarray:
    """Return log probabilities that emit characters; '-' is the blank."""
    log_p = np.zeros((len(frames), 28))
    log_p[np.arange(len(frames)), [0 if c == "-" else SYMBOLS.index(c) + FIRST_SYMBOL for c in frames]] = sure
    return log_softmax(log_p)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ("BB-B A", "BB A"),
        ("A - - AB", "A AB"),
        ("A A - B---  --", "A A"),  # a single letter makes no second sentence
        ("A A - B-B- A--", "A A BB A"),
        ("----", ""),
        ("  - ", ""),
    ],
)
def test_by_hand(frames: str, text: str):
    lattice = build_lattice(TINY, 8.0)
    assert join_characters(decode_greedy(lattice.labels[find_best_path(lattice, logits_for(frames))])) == text


def test_equal_letters_need_a_blank_between():
    log_p = logits_for("BBBB A")
    lattice = build_lattice(TINY, 8.0)
    assert join_characters(decode_greedy(lattice.labels[find_best_path(lattice, log_p)])) == "BB A"
    log_p[:, 0] = -1e9
    assert join_characters(decode_greedy(lattice.labels[find_best_path(lattice, log_p)])) == "A A"


def test_grid_has_260_states():
    lattice = build_lattice(GRID, 1.0)
    assert lattice.labels.shape == (260,)
    assert lattice.labels.min() == 0
    assert lattice.labels.max() == 27
    pointers, scores = find_backpointers(lattice, np.zeros((40, 28)))
    assert np.isfinite(scores).all()
    assert pointers.min() >= 0
    assert pointers.max() < 260


def test_likely_prefixes_that_die_do_not_overflow():
    """For 60 frames the best whole path is far worse than paths that never end."""
    log_p = noise(0, n_frames=80)
    log_p[:60, CLASSES[2]] -= 60
    lattice = build_lattice(TINY, exactly_one=True)
    labels = lattice.labels[find_best_path(lattice, log_p)]
    weights = compute_sentence_weights(TINY, 1, np.exp(log_p - log_p[np.arange(80), labels][:, None]))
    assert np.isfinite(weights).all()
    assert weights.sum() >= 1 - 1e-9
