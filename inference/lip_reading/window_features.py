"""Features of the windows that a search tries, with each frame convolved once.

A window is some frames of the video, with the first and the last one repeated on both sides up to its 75 frames. A
feature depends on three frames to each side, one for each convolution. So those of most frames are the same in every
window that contains them, and are computed as the frames arrive. Only those near the first and the last frame of a
window are computed for it, from what earlier layers have computed; the result is that of the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


class WindowFeatures:
    """Buffers frames and computes the features of windows of them."""

    def __init__(self, network: StagedNetwork, first: int) -> None:
        """Begin at frame `first` of a video."""
        self._network = network
        self._layers = [LayerBuffer(first + i, TIME_AXIS) for i in range(N_LAYERS)]
        self._features = LayerBuffer(first + N_LAYERS, 0)
        self._sides: dict[tuple[Side, int, int], Array] = {}  # of windows that were computed, by bound and repeats
        self._last: Array | None = None  # the last features of such a window, (3, P)

    def append(self, mouths: Sequence[MouthCrop]) -> None:
        """Append frames, and compute what depends on them and on no later ones."""
        crops = np.stack([mouth.crop for mouth in mouths])
        self._layers[0].append(to_network_input(crops[None])[0])
        for before, after, convolution in zip(self._layers, self._layers[1:], self._network.convolutions, strict=False):
            if before.end - after.end >= 2:
                (found,) = convolution(before[after.end - 1 : before.end][None])
                after.append(found[0, :, 1:-1])
        last, start = self._layers[-1], self._features.end
        if last.end - start >= 2:
            (found,) = self._network.convolutions[-1](last[start - 1 : last.end][None])
            self._features.append(self._project(found[:, 1:-1])[0])

    def drop_before(self, frame: int) -> None:
        """Delete the frames before this one."""
        self._sides.clear()
        for i, layer in enumerate((*self._layers, self._features)):
            # The first frames of a layer depend on frames before the buffer: they are in no window.
            layer.drop_before(frame if layer.end > frame + i else frame + i)

    def compute(self, spans: Sequence[PaddedSpan]) -> Array:
        """Return the features of windows, (B, 75, P): what the recurrent layers take of them."""
        heads = self._compute_sides(HEAD, [(span.start, span.n_before) for span in spans])
        tails = self._compute_sides(TAIL, [(span.end, span.n_after) for span in spans])
        inner = [self._features[span.start + N_LAYERS : span.end - N_LAYERS] for span in spans]
        return np.stack([np.concatenate(parts) for parts in zip(heads, inner, tails, strict=True)])

    def estimate(self, spans: Sequence[PaddedSpan]) -> Array:
        """Return features that are close to those of `compute`, (B, 75, P), at a small part of the cost.

        The last three frames of a span have the features of the video as it goes on, and repeats those of a frame that
        is shown throughout. The first and the last three of a window hardly depend on the frame, but on the zeros
        beside them: they are those of other windows. Windows up to the last frames that arrived are computed.
        """
        known = [span for span in spans if span.end <= self._features.end]
        others = [span for span in spans if span.end > self._features.end]
        found = dict(zip(others, self.compute(others), strict=True)) if others else {}
        if known and self._last is None:
            self._compute_sides(TAIL, [(known[0].end, MANY)])
        held = self._hold(sorted({span.end - 1 for span in known}))
        heads = self._compute_sides(HEAD, [(span.start, max(span.n_before, MANY)) for span in known])
        for span, head in zip(known, heads, strict=True):
            inner = self._features[span.start + N_LAYERS : span.end]
            repeats = np.repeat(held[span.end - 1], span.n_after, 0)
            window = np.concatenate([head[:N_LAYERS], head[len(head) - span.n_before :], inner, repeats])
            window[-N_LAYERS:] = self._last
            found[span] = window
        return np.stack([found[span] for span in spans])

    def _hold(self, frames: Sequence[int]) -> dict[int, Array]:
        """Return the features of frames that are shown throughout, (1, P) each."""
        if not frames:
            return {}
        (features,) = self._network.hold(self._gather(0, frames, 1))
        return dict(zip(frames, self._project(features), strict=True))

    def _compute_sides(self, side: Side, wanted: Sequence[tuple[int, int]]) -> list[Array]:
        """Return the features of three frames and of the repeats of the outermost one, for each (bound, n_repeats)."""
        new = {(bound, min(n, MANY)) for bound, n in wanted if (side, bound, min(n, MANY)) not in self._sides}
        for n in sorted({n for _, n in new}):
            bounds = sorted(bound for bound, each in new if each == n)
            for bound, features in zip(bounds, self._compute_side(side, bounds, n), strict=True):
                self._sides[side, bound, n] = features
                self._last = self._last if side.is_head else features[-N_LAYERS:]
        found = [(n, self._sides[side, bound, min(n, MANY)]) for bound, n in wanted]
        return [repeat_at(one, side.same[-1], n - MANY + 1, 0) if n >= MANY else one for n, one in found]

    def _compute_side(self, side: Side, bounds: Sequence[int], n_repeats: int) -> Array:
        """Return such features of windows with the same number of repeats, (E, n_repeats + 3, P)."""
        many = n_repeats == MANY
        outermost = self._gather(0, [bound if side.is_head else bound - 1 for bound in bounds], 1)
        x = np.repeat(outermost, 2 if many else n_repeats, 2)
        for i, convolution in enumerate(self._network.convolutions):
            inner = self._gather(i, [bound + i if side.is_head else bound - 2 - i for bound in bounds], 2)
            (x,) = convolution(side.join(x, inner))
            if i + 1 < N_LAYERS:
                x = side.without_innermost(x, 2)
                x = repeat_at(x, side.same[i], 3, 2) if many else x
        return self._project(side.without_innermost(x, 1))

    def _gather(self, layer: int, starts: Sequence[int], n: int) -> Array:
        """Return n frames of a layer from each start, (E, C, n, H, W)."""
        return np.stack([self._layers[layer][start : start + n] for start in starts])

    def _project(self, features: Array) -> Array:
        return self._network.project(np.ascontiguousarray(features))[0]


def repeat_at(x: Array, index: int, n: int, axis: int) -> Array:
    """Repeat one entry of an axis n times."""
    counts = np.ones(x.shape[axis], int)
    counts[index] = n
    return np.repeat(x, counts, axis)
