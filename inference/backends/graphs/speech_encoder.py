"""The speech encoder as a graph: from mel windows to the mouth and the phoneme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.graphs.folded_conv import fold
from inference.backends.graphs.model import Array, Node, as_float32, import_ops, make_model
from inference.backends.graphs.wav2lip import add_block, add_convolution
from inference.dimensions.speech_encoder import speech_encoder_layers, speech_widths_of
from inference.dimensions.wav2lip import MEL_COLUMNS, MEL_ROWS

if TYPE_CHECKING:
    import openvino as ov


def build_speech_encoder(state: Mapping[str, Any]) -> ov.Model:
    """Build the speech encoder from the tensors or arrays of a state dict.

    Input: mel (B, 1, 80, 16). Outputs: shapes (B, 3), opening, height and width; contact (B, 1), a logit; classes
    (B, n), logits. All are float32. The last layer's first output, before its ReLU, is the opening.
    """
    ops, weights = import_ops(), as_float32(state)
    *layers, last = speech_encoder_layers(speech_widths_of(weights))
    mel = ops.parameter([-1, 1, MEL_ROWS, MEL_COLUMNS], np.float32)
    x = mel
    for layer in layers:
        x = add_block(ops, weights, layer, x)
    before = ops.squeeze(add_convolution(ops, fold(weights, last), last.name, x), np.array([2, 3]))
    features = ops.relu(before)
    opening = ops.gather(before, np.array([0]), np.array(1))
    shapes = ops.concat([opening, add_linear(ops, weights, "form", features)], 1)
    outputs = [shapes, *(add_linear(ops, weights, name, features) for name in ("contact", "phoneme"))]
    return make_model(outputs, [mel], ("mel", "shapes", "contact", "classes"), "SpeechEncoder")


def add_linear(ops: Any, weights: Mapping[str, Array], name: str, x: Node) -> Node:
    """Add a linear layer: (B, in) to (B, out)."""
    product = ops.matmul(x, weights[f"{name}.weight"], transpose_a=False, transpose_b=True)
    return ops.add(product, weights[f"{name}.bias"].reshape(1, -1))
