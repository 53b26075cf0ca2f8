"""Wav2Lip with convolutions in int8, as many as leave mouths what they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.conversion.int8_lip_coord_net import Array, Sample, import_nncf
from inference.errors import InvalidRequest
from inference.faces.ssim import ssim
from inference.models.wav2lip import FACE_SIDE

if TYPE_CHECKING:
    import openvino as ov

Run = Callable[[dict[str, Array]], Any]  # openvino.CompiledModel
LEAST_SSIM = 0.98  # of mouths in int8 with those in float32, on average
HELD_OUT = 4  # each so many-th sample is measured with, and no range is taken from it
N_RANKED = 8  # samples by which layers are ranked
MOUTH_FROM = FACE_SIDE // 2  # rows


@dataclass(frozen=True)
class QuantisedWav2Lip:
    """A quantised Wav2Lip. kept: its layers that stay in float32. mouth_ssim: of held-out mouths with float32's."""

    model: ov.Model
    kept: tuple[str, ...]
    mouth_ssim: float


def quantise_with_accuracy_control(
    model: ov.Model, samples: Iterable[Sample], least_ssim: float = LEAST_SSIM
) -> QuantisedWav2Lip:
    """Wav2Lip with as many convolutions in int8 as leave mouths what they are.

    Where held-out mouths are less alike, layers go back to float32, those first that harm most.
    Raises: InvalidRequest where NNCF is not installed, or there are too few samples.
    """
    nncf = import_nncf()
    given = by_name(model, samples)
    measured = [one for i, one in enumerate(given) if i % HELD_OUT]
    held_out = given[::HELD_OUT]
    if not measured:
        raise InvalidRequest(f"{len(given)} samples of faces and voices; at least 2 expected to quantise by")
    exact = compiled(model)
    reference = [mouth_of(exact, one) for one in held_out]

    def measure(run: Run, chosen: Iterable[int]) -> tuple[float, list[float]]:
        found = [ssim(reference[i], mouth_of(run, held_out[i])) for i in chosen]
        return float(np.mean(found)), found

    with redirect_stdout(sys.stderr):
        result: ov.Model = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(measured),
            nncf.Dataset(list(range(len(held_out)))),
            measure,
            max_drop=1 - least_ssim,
            subset_size=len(measured),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=N_RANKED),
        )
    return QuantisedWav2Lip(result, kept_layers(result), round(measure(compiled(result), range(len(held_out)))[0], 4))


def by_name(model: ov.Model, samples: Iterable[Sample]) -> list[dict[str, Array]]:
    names = [port.get_any_name() for port in model.inputs]
    return [dict(zip(names, sample, strict=True)) for sample in samples]


def compiled(model: ov.Model) -> Run:
    import openvino as ov

    run: Run = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return run


def mouth_of(run: Run, inputs: dict[str, Array]) -> npt.NDArray[np.uint8]:
    """The lower half of the face that comes out: (48, 96, 3) uint8 BGR."""
    levels = np.clip(run(inputs)[0][0] * 255, 0, 255)
    return np.ascontiguousarray(levels.transpose(1, 2, 0)[MOUTH_FROM:].astype(np.uint8))


def kept_layers(model: ov.Model) -> tuple[str, ...]:
    """Convolutions whose weights are stored as they were."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name().startswith("Convolution")]
    weights = (layer.input_value(1).get_node().get_type_name() for layer in layers)
    return tuple(
        layer.get_friendly_name() for layer, weight in zip(layers, weights, strict=True) if weight == "Constant"
    )
