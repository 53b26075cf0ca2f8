"""Windows through the network, and their logits stitched into one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.lip_reading.decode import BLANK, Logits
from inference.lip_reading.preprocess import Window

Network = Callable[..., Sequence[npt.NDArray[Any]]]
OnRows = Callable[[Logits, int], None]

# Frames between windows. They overlap by 15: near its edges a window lacks context, but each one is
# read as a sentence of its own, so much overlap reads words twice (measured on joined clips).
HOP = 60
# A hole this long says nothing: no word is read into it.
SILENT_HOLE = 25  # frames
N_LIP_POINTS = 20
SURE_BLANK = 20.0  # logit of the blank there, over zeros


def run_windows(windows: Iterable[Window], network: Network, batch_size: int) -> Iterator[tuple[Window, Logits]]:
    """Each window with its logits, (75, 28) float32; at most `batch_size` windows are held."""
    iterator = iter(windows)
    while batch := list(islice(iterator, batch_size)):
        video = np.stack([window.video for window in batch])
        lips = np.stack([window.lips for window in batch])
        (logits,) = network(to_network_input(video), lips)
        yield from zip(batch, logits, strict=True)


def to_network_input(video: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(B, T, 64, 128, 3) uint8 -> (B, 3, T, 64, 128) float32 in 0..1, BGR as before."""
    return np.ascontiguousarray(video.transpose(0, 4, 1, 2, 3), dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class Stitched:
    """One row for each frame of a video. logits: (T, 28) float32. holes: 0, or the length of the hole."""

    logits: Logits
    holes: tuple[int, ...]


def stitch(results: Iterable[tuple[Window, Logits]], on_rows: OnRows | None = None) -> Stitched:
    """The logits of all windows as one run.

    on_rows: called after each window with the rows it gave and the frame that the first of them is of;
    rows may come again, when a later window takes them over.
    Where two overlap, the first half of what they share is the earlier one's, the rest the later one's.
    """
    runs: list[Logits] = []
    holes: list[int] = []
    for window, logits in results:
        n_shared = len(holes) - window.start
        n_later = (n_shared + 1) // 2  # of the shared frames that the later window takes over
        if n_later:
            runs[-1] = runs[-1][:-n_later]
        kept = slice(n_shared - n_later, window.n_frames)
        runs.append(silence_holes(logits[kept], window.holes[kept]))
        if on_rows is not None:
            on_rows(runs[-1], window.start + n_shared - n_later)
        holes.extend(window.holes[n_shared:])
    return Stitched(np.concatenate(runs), tuple(holes))


def silence_holes(logits: npt.NDArray[Any], holes: Sequence[int]) -> Logits:
    """The same with long holes blank: held pictures can only look like speech by chance."""
    rows = logits.astype(np.float32)
    silent = np.array(holes) >= SILENT_HOLE
    rows[silent] = 0
    rows[silent, BLANK] = SURE_BLANK
    return rows
