"""Convolutions of a network, and the shapes of their tensors in its state dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Pair = tuple[int, int]  # of height and width


@dataclass(frozen=True)
class ConvLayer:
    """A 2-D convolution with the batch norm that follows it.

    name, norm: their prefixes in the state dict; norm is None if there is no batch norm. is_residual: the block's input
    is added to its output. output_padding: of a transposed convolution, which doubles the side with 1.
    """

    name: str
    n_in: int
    n_out: int
    kernel: int = 3
    stride: Pair = (1, 1)
    padding: Pair = (1, 1)
    groups: int = 1
    has_bias: bool = True
    norm: str | None = None
    is_residual: bool = False
    is_transposed: bool = False
    output_padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        if min(self.n_in, self.n_out) < 1:
            raise ValueError(f"{self.name}: {self.n_in} to {self.n_out} channels; expected at least one")

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of its tensors, in the order of torch's state dict."""
        ends = (self.n_in, self.n_out) if self.is_transposed else (self.n_out, self.n_in // self.groups)
        shapes: dict[str, Shape] = {f"{self.name}.weight": (*ends, self.kernel, self.kernel)}
        if self.has_bias:
            shapes[f"{self.name}.bias"] = (self.n_out,)
        if self.norm is not None:
            per_channel = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{self.norm}.{key}": (self.n_out,) for key in per_channel}
            shapes[f"{self.norm}.{BATCH_COUNTER}"] = ()
        return shapes


BATCH_COUNTER = "num_batches_tracked"  # of a batch norm: an integer that only training uses


def shapes_of(layers: Iterable[ConvLayer]) -> dict[str, Shape]:
    """Return the shapes of the tensors of all layers."""
    return {key: shape for layer in layers for key, shape in layer.shapes.items()}


def by_name(layers: Iterable[ConvLayer]) -> Mapping[str, ConvLayer]:
    """Return the layers by the names of their convolutions."""
    return {layer.name: layer for layer in layers}
