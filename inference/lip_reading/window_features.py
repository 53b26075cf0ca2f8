"""Features of the windows that a search tries, with each frame convolved once.

A window is some frames of the video, with the first and the last one repeated on both sides up to its 75 frames. A
feature depends on three frames to each side, one for each convolution. So those of most frames are the same in every
window that contains them, and are computed as the frames arrive. Only those near the first and the last frame of a
window are computed for it, from what earlier layers have computed; the result is that of the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from inference.lip_reading.preprocess import WINDOW_FRAMES, MouthCrop
from inference.lip_reading.staged_network import Array, StagedNetwork
from inference.lip_reading.windows import to_network_input

N_LAYERS = 3
TIME_AXIS = 1  # of a frame's layers, (C, T, H, W); features are (T, P)
# From so many repeats on, inner ones have the same feature: the outer three lack neighbours, the inner two see frames.
MANY = 6


@dataclass(frozen=True)
class PaddedSpan:
    """The frames [start, end) in the middle of a window: before them the first is repeated, after them the last."""

    start: int
    end: int

    @property
    def n_before(self) -> int:
        """Number of repeats of the first frame."""
        return (WINDOW_FRAMES - (self.end - self.start)) // 2

    @property
    def n_after(self) -> int:
        """Number of repeats of the last frame."""
        return WINDOW_FRAMES - (self.end - self.start) - self.n_before


class LayerBuffer:
    """What a layer computed of consecutive frames. first: the frame of the first of them; axis: of time."""

    def __init__(self, first: int, axis: int) -> None:
        self.first = first
        self._axis = axis
        self._values: Array | None = None

    @property
    def end(self) -> int:
        """The frame behind the last one."""
        return self.first + (0 if self._values is None else self._values.shape[self._axis])

    def append(self, values: Array) -> None:
        """Append the following frames."""
        earlier = self._values
        self._values = values if earlier is None else np.concatenate([earlier, values], self._axis)

    def drop_before(self, frame: int) -> None:
        """Delete the frames before this one; if all are before it, the next one appended is this one."""
        if frame > self.first:
            self._values = self[frame : self.end] if frame < self.end else None
            self.first = frame

    def __getitem__(self, frames: slice) -> Array:
        """Return the frames [start, stop), as numbered from the start of the video."""
        assert self._values is not None
        assert self.first <= frames.start <= frames.stop <= self.end
        kept = slice(frames.start - self.first, frames.stop - self.first)
        return self._values[kept] if self._axis == 0 else self._values[:, kept]


@dataclass(frozen=True)
class Side:
    """One side of a window. If its frame is repeated often, inner repeats have the same outputs, computed once.

    is_head: the side of the first frame. same: per layer, the index of such an output among those of the side.
    """

    is_head: bool
    same: tuple[int, int, int]

    def join(self, repeats: Array, inner: Array) -> Array:
        """Join the repeats of the frame and what is further inside, (E, C, T, H, W) each."""
        return np.concatenate([repeats, inner] if self.is_head else [inner, repeats], 2)

    def without_innermost(self, values: Array, axis: int) -> Array:
        """Remove the innermost output, which lacks a neighbour."""
        kept = slice(None, -1) if self.is_head else slice(1, None)
        return values[(slice(None),) * axis + (kept,)]


HEAD = Side(is_head=True, same=(1, 2, 3))
TAIL = Side(is_head=False, same=(1, 3, 5))


@dataclass(frozen=True)
class SideKey:
    """A side of a window: its first or last frame, and its number of repeats, at most MANY."""

    side: Side
    bound: int
    n_repeats: int

    @classmethod
    def of(cls, side: Side, bound: int, n_repeats: int) -> SideKey:
        """Return the key of a side with any number of repeats."""
        return cls(side, bound, min(n_repeats, MANY))

    @property
    def order(self) -> tuple[bool, int, int]:
        """Sides that are computed together follow each other."""
        return self.side.is_head, self.n_repeats, self.bound


class WindowFeatures:
    """Buffers frames and computes the features of windows of them.

    What the recurrent layers take of features is a product with 19 MB of weights, which are read at each call: all that
    a call of `compute` or `estimate` needs is projected at once, and frames that arrived with it.
    """

    def __init__(self, network: StagedNetwork, first: int) -> None:
        """Begin at frame `first` of a video."""
        self._network = network
        self._layers = [LayerBuffer(first + i, TIME_AXIS) for i in range(N_LAYERS)]
        self._features = LayerBuffer(first + N_LAYERS, 0)
        self._arrived: list[Array] = []  # (T, F) each: of the frames behind those, not projected
        self._sides: dict[SideKey, Array] = {}  # of windows that were computed
        self._held: dict[int, Array] = {}  # (1, P) each, of frames that are shown throughout
        self._last: Array | None = None  # the last features of such a window, (3, P)

    @property
    def end(self) -> int:
        """The frame behind the last one whose features are known."""
        return self._features.end + sum(map(len, self._arrived))

    def append(self, mouths: Sequence[MouthCrop]) -> None:
        """Append frames, and compute what depends on them and on no later ones."""
        crops = np.stack([mouth.crop for mouth in mouths])
        self._layers[0].append(to_network_input(crops[None])[0])
        for before, after, convolution in zip(self._layers, self._layers[1:], self._network.convolutions, strict=False):
            if before.end - after.end >= 2:
                (found,) = convolution(before[after.end - 1 : before.end][None])
                after.append(found[0, :, 1:-1])
        last, start = self._layers[-1], self.end
        if last.end - start >= 2:
            (found,) = self._network.convolutions[-1](last[start - 1 : last.end][None])
            self._arrived.append(found[0, 1:-1])

    def drop_before(self, frame: int) -> None:
        """Delete the frames before this one."""
        self._project([])
        self._sides.clear()
        self._held.clear()
        for i, layer in enumerate((*self._layers, self._features)):
            # The first frames of a layer depend on frames before the buffer: they are in no window.
            layer.drop_before(frame if layer.end > frame + i else frame + i)

    def compute(self, spans: Sequence[PaddedSpan]) -> Array:
        """Return the features of windows, (B, 75, P): what the recurrent layers take of them."""
        heads = [SideKey.of(HEAD, span.start, span.n_before) for span in spans]
        tails = [SideKey.of(TAIL, span.end, span.n_after) for span in spans]
        self._prepare([*heads, *tails], [])
        inner = [self._features[span.start + N_LAYERS : span.end - N_LAYERS] for span in spans]
        return np.stack(
            [
                np.concatenate([self._side(head, span.n_before), own, self._side(tail, span.n_after)])
                for span, head, own, tail in zip(spans, heads, inner, tails, strict=True)
            ]
        )

    def estimate(self, spans: Sequence[PaddedSpan]) -> Array:
        """Return features that are close to those of `compute`, (B, 75, P), at a small part of the cost.

        The last three frames of a span have the features of the video as it goes on, and repeats those of a frame that
        is shown throughout. The first and the last three of a window hardly depend on the frame, but on the zeros
        beside them: they are those of other windows. Windows up to the last frames that arrived are computed.
        """
        known = [span for span in spans if span.end <= self.end]
        others = [span for span in spans if span.end > self.end]
        heads = [SideKey.of(HEAD, span.start, max(span.n_before, MANY)) for span in known]
        tails = [SideKey.of(TAIL, known[0].end, MANY)] if known and self._last is None else []
        self._prepare([*heads, *tails], [span.end - 1 for span in known])
        found = dict(zip(others, self.compute(others), strict=True)) if others else {}
        for span, key in zip(known, heads, strict=True):
            head = self._side(key, max(span.n_before, MANY))
            inner = self._features[span.start + N_LAYERS : span.end]
            repeats = np.repeat(self._held[span.end - 1], span.n_after, 0)
            window = np.concatenate([head[:N_LAYERS], head[len(head) - span.n_before :], inner, repeats])
            window[-N_LAYERS:] = self._last
            found[span] = window
        return np.stack([found[span] for span in spans])

    def _prepare(self, sides: Sequence[SideKey], held: Sequence[int]) -> None:
        """Compute these sides of windows, and the features of these frames, if they are shown throughout."""
        new_sides = sorted({key for key in sides if key not in self._sides}, key=lambda key: key.order)
        new_held = sorted({frame for frame in held if frame not in self._held})
        parts: list[Array] = []
        for _, group in groupby(new_sides, key=lambda key: (key.side, key.n_repeats)):
            keys = list(group)
            parts += list(self._compute_side(keys[0].side, [key.bound for key in keys], keys[0].n_repeats))
        if new_held:
            (features,) = self._network.hold(self._gather(0, new_held, 1))
            parts += list(features)
        projected = self._project(parts)
        self._held.update(zip(new_held, projected[len(new_sides) :], strict=True))
        for key, features in zip(new_sides, projected[: len(new_sides)], strict=True):
            self._sides[key] = features
            self._last = self._last if key.side.is_head else features[-N_LAYERS:]

    def _side(self, key: SideKey, n_repeats: int) -> Array:
        """Return the features of three frames and of the repeats of the outermost one."""
        found = self._sides[key]
        return repeat_at(found, key.side.same[-1], n_repeats - MANY + 1, 0) if n_repeats >= MANY else found

    def _compute_side(self, side: Side, bounds: Sequence[int], n_repeats: int) -> Array:
        """Return such features of windows with the same number of repeats, (E, n_repeats + 3, F), not projected."""
        many = n_repeats == MANY
        outermost = self._gather(0, [bound if side.is_head else bound - 1 for bound in bounds], 1)
        x = np.repeat(outermost, 2 if many else n_repeats, 2)
        for i, convolution in enumerate(self._network.convolutions):
            inner = self._gather(i, [bound + i if side.is_head else bound - 2 - i for bound in bounds], 2)
            (x,) = convolution(side.join(x, inner))
            if i + 1 < N_LAYERS:
                x = side.without_innermost(x, 2)
                x = repeat_at(x, side.same[i], 3, 2) if many else x
        return side.without_innermost(x, 1)

    def _gather(self, layer: int, starts: Sequence[int], n: int) -> Array:
        """Return n frames of a layer from each start, (E, C, n, H, W)."""
        return np.stack([self._layers[layer][start : start + n] for start in starts])

    def _project(self, parts: Sequence[Array]) -> list[Array]:
        """Project features, (T, F) each, and those of the frames that arrived."""
        everything = [*self._arrived, *parts]
        if not everything:
            return []
        (products,) = self._network.project(np.concatenate(everything)[None])
        projected = np.split(products[0], np.cumsum([len(part) for part in everything])[:-1])
        for frames in projected[: len(self._arrived)]:
            self._features.append(frames)
        found = projected[len(self._arrived) :]
        self._arrived = []
        return found


def repeat_at(x: Array, index: int, n: int, axis: int) -> Array:
    """Repeat one entry of an axis n times."""
    counts = np.ones(x.shape[axis], int)
    counts[index] = n
    return np.repeat(x, counts, axis)
