"""LipCoordNet with convolutions in int8."""

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

from inference.errors import InvalidRequest
from inference.models import LipCoordNet

if TYPE_CHECKING:
    import openvino as ov

Array = npt.NDArray[Any]
Sample = tuple[Array, Array]  # video (1, 3, T, 64, 128), lips (1, T, 20, 2), both float32
# The GRUs and the last layer stay as they are: they take a tenth of the time, and carry errors on through a clip.
KEPT = ["GRUSequence", "MatMul"]
TELEMETRY = "openvino_telemetry"


def quantise(model: ov.Model, samples: Iterable[Sample]) -> ov.Model:
    """The same network with its convolutions in int8, the ranges of their inputs taken from the samples.

    Raises: InvalidRequest where NNCF is not installed.
    """
    nncf = import_nncf()
    measured = [{"video": video, "lips": lips} for video, lips in samples]
    with redirect_stdout(sys.stderr):  # its progress
        result: ov.Model = nncf.quantize(
            model, nncf.Dataset(measured), subset_size=len(measured), ignored_scope=nncf.IgnoredScope(types=KEPT)
        )
    return result


@torch.inference_mode()
def find_highest(module: LipCoordNet, samples: Iterable[Sample]) -> dict[str, float]:
    """By convolution, how high its inputs go in a sample, on average: what `quantise_convolutions` wants to know.

    Pictures go up to 1, of which each level is one of theirs.
    """
    found: dict[str, list[float]] = {"conv2": [], "conv3": []}
    for video, _ in samples:
        x = torch.from_numpy(video)
        for name, convolution in zip(found, (module.conv1, module.conv2), strict=True):
            x = module._pool(torch.relu(convolution(x)))
            found[name].append(float(x.max()))
    return {"conv1": 1.0} | {name: round(fmean(values), 3) for name, values in found.items()}


def import_nncf() -> ModuleType:
    """NNCF, which tells nobody that it is used: it would tell its makers, by a package that it does without."""
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import nncf
    except ImportError as err:
        raise InvalidRequest("--precision int8 needs the package nncf: pip install 'viseme[int8]'") from err
    finally:
        if before is None:
            del sys.modules[TELEMETRY]
        else:
            sys.modules[TELEMETRY] = before
    nncf.set_log_level(logging.ERROR)
    module: ModuleType = nncf
    return module
