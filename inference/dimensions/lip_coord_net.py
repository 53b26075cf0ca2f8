"""Sizes of LipCoordNet."""

from __future__ import annotations

from inference.dimensions.layers import Shape

N_CLASSES = 28  # blank, space, A..Z
N_LIP_POINTS = 20
GRU_WIDTH = 256
COORD_WIDTH = 128
CONV_WIDTHS = (32, 64, 96)
MAP_HEIGHT, MAP_WIDTH = 4, 8  # 64 x 128 halved four times
N_GATES = 3  # of a GRU: reset, update, new
DIRECTIONS = ("", "_reverse")  # suffixes of the names of a bidirectional GRU's tensors


def lip_coord_net_shapes() -> dict[str, Shape]:
    """Return the shapes of its tensors, in the order of torch's state dict."""
    first, second, third = CONV_WIDTHS
    shapes: dict[str, Shape] = {}
    for name, shape in {
        "conv1": (first, 3, 3, 5, 5),
        "conv2": (second, first, 3, 5, 5),
        "conv3": (third, second, 3, 3, 3),
    }.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= gru_shapes("gru1", third * MAP_HEIGHT * MAP_WIDTH, GRU_WIDTH)
    shapes |= gru_shapes("gru2", 2 * GRU_WIDTH, GRU_WIDTH)
    shapes |= {"FC.weight": (N_CLASSES, 2 * GRU_WIDTH + 2 * COORD_WIDTH), "FC.bias": (N_CLASSES,)}
    return shapes | gru_shapes("coord_gru", 2 * N_LIP_POINTS, COORD_WIDTH)


def gru_shapes(name: str, n_in: int, width: int) -> dict[str, Shape]:
    """Return the shapes of the tensors of a bidirectional GRU."""
    n_rows = N_GATES * width
    shapes: dict[str, Shape] = {}
    for suffix in DIRECTIONS:
        shapes[f"{name}.weight_ih_l0{suffix}"] = (n_rows, n_in)
        shapes[f"{name}.weight_hh_l0{suffix}"] = (n_rows, width)
        shapes[f"{name}.bias_ih_l0{suffix}"] = shapes[f"{name}.bias_hh_l0{suffix}"] = (n_rows,)
    return shapes
