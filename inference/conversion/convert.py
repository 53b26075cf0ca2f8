"""Converts weights to other formats: safetensors, ONNX, OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inference.backends.telemetry import import_openvino
from inference.conversion.int8_lip_coord_net import CalibrationSample, import_nncf, quantise_lip_coord_net
from inference.conversion.int8_wav2lip import quantise_with_accuracy_control
from inference.errors import InvalidRequest
from inference.weights.architectures import WAV2LIP, Architecture, load_module, sizes_to_json
from inference.weights.checkpoint import write_safetensors
from inference.weights.openvino_files import ARCHITECTURE, MADE_FROM, RT_INFO, WEIGHTS, WIDTHS
from inference.weights.registry import LIP_READING, LIP_SYNC, LIVE, REGISTRY
from inference.weights.resolve import ResolvedWeights, find_weights, from_path
from inference.weights.sources import WeightSources
from inference.weights.user_supplied import find_user_supplied

if TYPE_CHECKING:
    import openvino as ov

MOUTH_SSIM, KEPT_LAYERS = "mouth_ssim", "kept_in_float32"  # metadata of int8 files
TASKS = (LIP_READING, LIP_SYNC, LIVE)  # of the networks that can be converted
# The formats, and the precisions that each can store weights in.
FORMATS = {
    "safetensors": ("f32", "f16", "bf16"),
    "onnx": ("f32", "f16"),
    "openvino": ("f32", "f16", "int8"),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MakeSamples = Callable[[Architecture], Iterable[CalibrationSample]]
Report = Callable[[str], None]


def find_convertible(name: str, sources: WeightSources) -> ResolvedWeights:
    """Resolve weights by name, path or address.

    Raises: as `find_weights`; WeightsNotFound if the set's network can't be converted.
    """
    known = REGISTRY.get(name)
    if known is not None and known.is_user_supplied and not Path(name).is_file():
        return replace(from_path(find_user_supplied(known, sources), name), weight_set=known)
    return find_weights(name, known.task if known is not None and known.task in TASKS else LIP_READING, sources)


def convert(
    found: ResolvedWeights,
    target: str,
    precision: str,
    folder: Path,
    make_samples: MakeSamples | None = None,
    report: Report = lambda _: None,
) -> list[Path]:
    """Write a network's weights in another format; each file appears complete or not at all.

    target: safetensors (tensors only), or the network with its weights: onnx (one file), openvino (.xml, .bin).
    LipCoordNet takes video (B, 3, T, 64, 128) and lips (B, T, 20, 2) for any B and T and returns logits (B, T, 28);
    the other networks have the inputs and outputs of their modules.
    precision: of the stored weights. Networks compute in float32 in any case, except for int8 convolutions.
    make_samples: returns typical inputs of the network, from which int8 takes value ranges.
    report: receives one line about the accuracy of int8 and the layers that stay in float32.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights (also if the weights belong to none of our networks).
    """
    check_choice("--to", target, tuple(FORMATS))
    check_choice(f"--precision for {target}", precision, FORMATS[target])
    architecture, module = load_module(found.path)
    metadata = metadata_of(found, architecture, module)
    name = name_of(found) + ("" if precision == "f32" else f"-{precision}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{target}"
    if target == "openvino":
        model = build_model(architecture, module, precision, make_samples, report)
        return write_openvino(model, path.with_suffix(".xml"), metadata, is_half=precision == "f16")
    if target == "onnx":
        from inference.conversion.onnx_export import export_onnx

        export_onnx(module, architecture, path, metadata, is_half=precision == "f16")
    else:
        tensors = {key: to_precision(value, precision) for key, value in module.state_dict().items()}
        write_safetensors(tensors, path, metadata)
    return [path]


def to_precision(value: Tensor, precision: str) -> Tensor:
    return value.to(DTYPES[precision]) if value.is_floating_point() else value


def check_choice(option: str, value: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise InvalidRequest(f"{option} {value!r}: expected one of {', '.join(expected)}")


def name_of(found: ResolvedWeights) -> str:
    """Return a set's name, or a file's without its suffix."""
    return found.weight_set.name if found.weight_set else found.path.stem


def metadata_of(found: ResolvedWeights, architecture: Architecture, module: nn.Module) -> dict[str, str]:
    """Return the metadata that records where a converted file comes from."""
    known = found.weight_set
    metadata = {ARCHITECTURE: architecture.name, MADE_FROM: found.sha256}
    widths = sizes_to_json(architecture.sizes_of(module.state_dict()))
    if widths is not None:
        metadata[WIDTHS] = widths
    if known is not None:
        metadata |= {WEIGHTS: known.name, "licence": known.licence, "landmarks": known.landmarks or ""}
    return metadata


def build_model(
    architecture: Architecture, module: nn.Module, precision: str, make_samples: MakeSamples | None, report: Report
) -> ov.Model:
    """Build the OpenVINO graph of a module, quantised if the precision is int8."""
    state = module.state_dict()
    model = architecture.build(state, architecture.sizes_of(state))
    if precision != "int8":
        return model
    if not architecture.supports_int8:
        raise InvalidRequest(f"precision int8: not for {architecture.name}; expected f32 or f16")
    import_nncf()  # fails early: making samples takes long
    if make_samples is None:
        raise InvalidRequest("precision int8 needs samples of the network's inputs")
    if architecture is not WAV2LIP:
        return quantise_lip_coord_net(model, make_samples(architecture))
    result = quantise_with_accuracy_control(model, make_samples(architecture))
    layers = result.float32_layers
    kept = f"in float32: {', '.join(layers)}" if layers else "no layer had to stay in float32"
    report(f"mouths in int8 have an SSIM of {result.mouth_ssim} with float32's; {kept}")
    for key, value in {MOUTH_SSIM: str(result.mouth_ssim), KEPT_LAYERS: " ".join(layers)}.items():
        result.model.set_rt_info(value, [RT_INFO, key])
    return result.model


def write_openvino(model: ov.Model, path: Path, metadata: dict[str, str], *, is_half: bool) -> list[Path]:
    """Write the two files of an OpenVINO model and return their paths: the weights (.bin), then the graph (.xml).

    path: of the .xml.
    """
    for key, value in metadata.items():
        model.set_rt_info(value, [RT_INFO, key])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as partial:
        import_openvino().save_model(model, Path(partial) / path.name, compress_to_fp16=is_half)
        paths = [path.with_suffix(".bin"), path]  # the .xml last: it is the file that is opened
        for file in paths:
            os.replace(Path(partial) / file.name, file)
    return paths
