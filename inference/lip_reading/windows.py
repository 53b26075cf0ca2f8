"""Run windows through the network and stitch their logits together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.lip_reading.greedy_decoder import BLANK, FIRST_SYMBOL, SYMBOLS, Logits
from inference.lip_reading.preprocess import MouthWindow
from inference.lip_reading.staged_network import Network

OnRows = Callable[[Logits, int], None]

# Frames between windows. They overlap by 15: near its edges a window lacks context, but each window is
# decoded as a sentence of its own, so a larger overlap duplicates words (measured on joined clips).
WINDOW_HOP = 60
# A gap this long is silenced: no word is decoded in it.
SILENT_GAP = 25  # frames
N_LIP_POINTS = 20
BLANK_LOGIT = 20.0  # logit of the blank in such a gap; the others are 0
SPACE_ROW = BLANK_LOGIT * (np.arange(1 + len(SYMBOLS), dtype=np.float32) == FIRST_SYMBOL)  # (28,), certainly a space


def run_windows(
    windows: Iterable[MouthWindow], network: Network, batch_size: int
) -> Iterator[tuple[MouthWindow, Logits]]:
    """Yield each window with its logits, (75, 28) float32; at most `batch_size` windows are held."""
    iterator = iter(windows)
    while batch := list(islice(iterator, batch_size)):
        video = np.stack([window.video for window in batch])
        lips = np.stack([window.lips for window in batch])
        (logits,) = network(to_network_input(video), lips)
        yield from zip(batch, logits, strict=True)


def to_network_input(video: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert (B, T, 64, 128, 3) uint8 to (B, 3, T, 64, 128) float32 in 0..1; the colour order stays BGR."""
    return np.ascontiguousarray(video.transpose(0, 4, 1, 2, 3), dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class StitchedLogits:
    """One row for each frame of a video. logits: (T, 28) float32. gap_lengths: 0, or the length of the gap."""

    logits: Logits
    gap_lengths: tuple[int, ...]


def stitch(results: Iterable[tuple[MouthWindow, Logits]], on_rows: OnRows | None = None) -> StitchedLogits:
    """Stitch the logits of all windows into one run.

    on_rows: called after each window with its rows and the frame of the first of them;
    rows may be repeated if a later window replaces them.
    The earlier of two overlapping windows keeps the first half of the shared frames, the later one the rest. Windows
    that share no frame are of two shots: the first row of the second becomes a space, so no word runs across the cut.
    """
    parts: list[Logits] = []
    gap_lengths: list[int] = []
    for window, logits in results:
        n_shared = len(gap_lengths) - window.start
        n_later = (n_shared + 1) // 2  # shared frames that the later window replaces
        if n_later:
            parts[-1] = parts[-1][:-n_later]
        kept = slice(n_shared - n_later, window.n_frames)
        parts.append(blank_gaps(logits[kept], window.gap_lengths[kept]))
        if gap_lengths and n_shared == 0:
            parts[-1][0] = SPACE_ROW
        if on_rows is not None:
            on_rows(parts[-1], window.start + n_shared - n_later)
        gap_lengths.extend(window.gap_lengths[n_shared:])
    return StitchedLogits(np.concatenate(parts), tuple(gap_lengths))


def blank_gaps(logits: npt.NDArray[Any], gap_lengths: Sequence[int]) -> Logits:
    """Return the logits with long gaps set to blank: repeated crops can look like speech only by chance."""
    rows = logits.astype(np.float32)
    silent = np.array(gap_lengths) >= SILENT_GAP
    rows[silent] = 0
    rows[silent, BLANK] = BLANK_LOGIT
    return rows
