"""Wav2Lip with as many convolutions in int8 as the quality of its mouths allows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference.backends.telemetry import import_openvino
from inference.conversion.int8_lip_coord_net import Array, CalibrationSample, import_nncf
from inference.dimensions.wav2lip import FACE_SIDE
from inference.errors import InvalidRequest
from inference.faces.ssim import ssim

if TYPE_CHECKING:
    import openvino as ov

Run = Callable[[dict[str, Array]], Any]  # openvino.CompiledModel
MIN_SSIM = 0.98  # mean SSIM of int8 mouths with float32 mouths
HOLD_OUT_EVERY = 4  # every fourth sample measures quality and gives no ranges
N_RANKING_SAMPLES = 8  # held-out samples that layers are ranked with
MOUTH_TOP = FACE_SIDE // 2  # first row of the lower half of a face


@dataclass(frozen=True)
class QuantisedWav2Lip:
    """A quantised Wav2Lip.

    float32_layers: names of the convolutions that stay in float32.
    mouth_ssim: mean SSIM of held-out int8 mouths with float32 mouths.
    """

    model: ov.Model
    float32_layers: tuple[str, ...]
    mouth_ssim: float


def quantise_with_accuracy_control(
    model: ov.Model, samples: Iterable[CalibrationSample], min_ssim: float = MIN_SSIM
) -> QuantisedWav2Lip:
    """Quantise Wav2Lip, keeping in float32 the layers that would change mouths too much.

    If the SSIM of held-out mouths is below the minimum, layers return to float32, the most harmful first.
    Raises: InvalidRequest if NNCF is not installed, or there are too few samples.
    """
    nncf = import_nncf()
    inputs = name_inputs(model, samples)
    calibration = [one for i, one in enumerate(inputs) if i % HOLD_OUT_EVERY]
    held_out = inputs[::HOLD_OUT_EVERY]
    if not calibration:
        raise InvalidRequest(f"{len(inputs)} samples of faces and audio; int8 needs at least 2")
    run_float32 = compile_float32(model)
    reference = [generate_mouth(run_float32, one) for one in held_out]

    def measure(run: Run, chosen: Iterable[int]) -> tuple[float, list[float]]:
        found = [ssim(reference[i], generate_mouth(run, held_out[i])) for i in chosen]
        return float(np.mean(found)), found

    with redirect_stdout(sys.stderr):  # NNCF prints its progress
        result: ov.Model = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(calibration),
            nncf.Dataset(list(range(len(held_out)))),
            measure,
            max_drop=1 - min_ssim,
            subset_size=len(calibration),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=N_RANKING_SAMPLES
            ),
        )
    mouth_ssim, _ = measure(compile_float32(result), range(len(held_out)))
    return QuantisedWav2Lip(result, float32_convolutions(result), round(mouth_ssim, 4))


def name_inputs(model: ov.Model, samples: Iterable[CalibrationSample]) -> list[dict[str, Array]]:
    names = [port.get_any_name() for port in model.inputs]
    return [dict(zip(names, sample, strict=True)) for sample in samples]


def compile_float32(model: ov.Model) -> Run:
    run: Run = import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return run


def generate_mouth(run: Run, inputs: dict[str, Array]) -> npt.NDArray[np.uint8]:
    """Return the lower half of the generated face: (48, 96, 3) uint8 BGR."""
    levels = np.clip(run(inputs)[0][0] * 255, 0, 255)
    return np.ascontiguousarray(levels.transpose(1, 2, 0)[MOUTH_TOP:].astype(np.uint8))


def float32_convolutions(model: ov.Model) -> tuple[str, ...]:
    """Return the names of the convolutions whose weights are not quantised."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name().startswith("Convolution")]
    weights = (layer.input_value(1).get_node().get_type_name() for layer in layers)
    return tuple(
        layer.get_friendly_name() for layer, weight in zip(layers, weights, strict=True) if weight == "Constant"
    )
