"""Torch modules as ONNX graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 17  # torch writes IR version 8 with it, so that old runtimes open the file, too


def trace_onnx(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    path: Path,
) -> None:
    """Write a module as ONNX. examples: its inputs, with a batch of 1. dynamic_axes: by name, the axes of any size.

    Raises: ImportError if the package onnx is not installed.
    """
    with warnings.catch_warnings():
        # Two are expected. The exporter is deprecated: its successor (dynamo, torch 2.13) needs more packages, and
        # writes the example's number of frames into the reshapes behind a GRU. And a GRU exported with another batch
        # than 1 may not take other batches: the examples have a batch of 1.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=dynamic_axes,
            opset_version=OPSET,
            dynamo=False,
        )
