"""Sentences spliced of words of several clips, for people whose clips have few sentences.

The clips of GRID that this project has of six people all begin with BIN BLUE, and their digit mostly fixes the adverb.
A network trained on them as they are would learn that any new face says BIN BLUE. So the first words come from another
person's clip, and each other word from a random clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from training.common.arrays import Bytes, Floats, Integers
from training.common.mouth_packs import BETWEEN_WORDS, N_FRAMES
from training.lip_reading.augmentation import MouthSample, select_frames

N_HEAD_WORDS = 3  # verb, colour and preposition
MIN_GAIN, MAX_GAIN = 0.5, 2.0  # of the contrast of one clip, to match another


def splice_words(head: MouthSample, tails: Sequence[MouthSample]) -> MouthSample:
    """Return a sentence of 75 frames: the first three words of `head`, and each further word of the next of `tails`.

    All have as many words: three more than there are tails. The pixels and lips of `head` are matched to those of the
    first tail in mean and deviation. A pause after a word comes with the word.
    """
    matched = match_appearance(head, tails[0])
    parts = [cut_words(matched, 0, N_HEAD_WORDS)]
    parts += [cut_words(tail, word, word + 1) for word, tail in enumerate(tails, N_HEAD_WORDS)]
    words = head.words[:N_HEAD_WORDS] + tuple(tail.words[i] for i, tail in enumerate(tails, N_HEAD_WORDS))
    whole = MouthSample(
        frames=np.concatenate([part.frames for part in parts]),
        lips=np.concatenate([part.lips for part in parts]),
        word_indices=np.concatenate([part.word_indices for part in parts]),
        word_progress=np.concatenate([part.word_progress for part in parts]),
        words=words,
        text=" ".join(words),
    )
    return select_frames(whole, fit_length(whole.word_indices))


def cut_words(sample: MouthSample, first: int, end: int) -> MouthSample:
    """Return the frames of words first..end - 1, with the silence before the first word or after the last one."""
    start = 0 if first == 0 else start_of_word(sample, first)
    stop = len(sample.word_indices) if end == len(sample.words) else start_of_word(sample, end)
    return select_frames(sample, np.arange(start, stop))


def start_of_word(sample: MouthSample, word: int) -> int:
    """Return the first frame of a word, or of the next one if it is shorter than a frame; their number if none is."""
    found = np.flatnonzero(sample.word_indices >= word)
    return int(found[0]) if len(found) else len(sample.word_indices)


def fit_length(word_indices: Integers) -> Integers:
    """Return 75 frames to keep, in order: silence at both ends is cut first, then all frames are spread evenly."""
    spoken = np.flatnonzero(word_indices != BETWEEN_WORDS)
    n_before, n_after = int(spoken[0]), len(word_indices) - 1 - int(spoken[-1])
    surplus = max(len(word_indices) - N_FRAMES, 0)
    cut_before = min(round(surplus * n_before / max(n_before + n_after, 1)), n_before)
    cut_after = min(surplus - cut_before, n_after)
    kept = np.arange(cut_before, len(word_indices) - cut_after)
    return kept[np.rint(np.linspace(0, len(kept) - 1, N_FRAMES)).astype(np.int64)]


def match_appearance(sample: MouthSample, to: MouthSample) -> MouthSample:
    """Give a sample the means and deviations of another: of each colour, and of the lip points' x and y."""
    return replace(sample, frames=match_colours(sample.frames, to.frames), lips=match_lips(sample.lips, to.lips))


def match_colours(frames: Bytes, to: Bytes) -> Bytes:
    """Match (T, H, W, 3) to another array of frames."""
    (mean, deviation), (mean_to, deviation_to) = (
        (one.mean((0, 1, 2), dtype=np.float64), one.std((0, 1, 2), dtype=np.float64)) for one in (frames, to)
    )
    gain = np.clip(deviation_to / np.maximum(deviation, 1), MIN_GAIN, MAX_GAIN)
    levels = np.arange(256)[:, None]
    table = np.clip(np.rint((levels - mean) * gain + mean_to), 0, 255).astype(np.uint8)[None]
    stack = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    return cv2.LUT(stack, table).reshape(frames.shape).astype(np.uint8, copy=False)


def match_lips(lips: Floats, to: Floats) -> Floats:
    """Match (T, 20, 2) to another array of lip points."""
    scale = to.std((0, 1)) / np.maximum(lips.std((0, 1)), 1e-6)
    matched = (lips - lips.mean((0, 1))) * np.clip(scale, MIN_GAIN, MAX_GAIN) + to.mean((0, 1))
    return np.asarray(matched, np.float32)
