"""LipCoordNet with its convolutions in int8."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from statistics import fmean
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from inference.backends.telemetry import disable_telemetry
from inference.errors import InvalidRequest
from inference.models import LipCoordNet

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
CalibrationSample = tuple[Array, Array]  # video (1, 3, T, 64, 128), lips (1, T, 20, 2), both float32
# The GRUs and the last layer stay in float32: they take a tenth of the time, and errors in them accumulate.
FLOAT32_TYPES = ["GRUSequence", "MatMul"]


def quantise_lip_coord_net(model: ov.Model, samples: Iterable[CalibrationSample]) -> ov.Model:
    """Return the network with its convolutions in int8; the ranges of their inputs are measured on the samples.

    Raises: InvalidRequest if NNCF is not installed.
    """
    nncf = import_nncf()
    inputs = [{"video": video, "lips": lips} for video, lips in samples]
    with redirect_stdout(sys.stderr):  # NNCF prints its progress
        result: ov.Model = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(types=FLOAT32_TYPES),
        )
    return result


@torch.inference_mode()
def measure_input_ranges(module: LipCoordNet, samples: Iterable[CalibrationSample]) -> dict[str, float]:
    """Measure the highest input of each convolution, averaged over the samples, for `quantise_convolutions`.

    The first convolution's inputs are images, 0..1 in steps of 1/255: with a range of 1 they stay exact.
    """
    found: dict[str, list[float]] = {"conv2": [], "conv3": []}
    for video, _ in samples:
        x = torch.from_numpy(video)
        for name, convolution in zip(found, (module.conv1, module.conv2), strict=True):
            x = module._pool(torch.relu(convolution(x)))
            found[name].append(float(x.max()))
    return {"conv1": 1.0} | {name: round(fmean(values), 3) for name, values in found.items()}


def import_nncf() -> ModuleType:
    """Import NNCF with its telemetry disabled. Raises: InvalidRequest if it is not installed."""
    disable_telemetry()
    try:
        import nncf
    except ImportError as err:
        raise InvalidRequest("--precision int8 needs the package nncf: pip install 'viseme[int8]'") from err
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would change all of its handlers, too
    module: ModuleType = nncf
    return module
