"""Weights in other forms: safetensors, ONNX, OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inference.conversion.architectures import LIP_COORD_NET, WAV2LIP, Architecture, load_module, widths_of
from inference.conversion.int8_lip_coord_net import Sample, import_nncf, quantise
from inference.conversion.int8_wav2lip import quantise_with_accuracy_control
from inference.conversion.openvino_files import ARCHITECTURE, MADE_FROM, RT_INFO, WEIGHTS, WIDTHS
from inference.errors import InvalidRequest
from inference.weights.checkpoint import write_safetensors
from inference.weights.registry import LIP_SYNC, LIVE, REGISTRY
from inference.weights.resolve import FoundWeights, find_weights, from_path
from inference.weights.sources import WeightSources
from inference.weights.user_supplied import find_brought

if TYPE_CHECKING:
    import openvino as ov

MOUTH_SSIM, KEPT_LAYERS = "mouth_ssim", "kept_in_float32"  # what an int8 file says of itself
JOB = "lip reading"  # whose sets are meant by a name that several jobs have
JOBS = (JOB, LIP_SYNC, LIVE)
# The forms, and the precisions that each stores weights in.
FORMS = {
    "safetensors": ("f32", "f16", "bf16"),
    "onnx": ("f32", "f16"),
    "openvino": ("f32", "f16", "int8"),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MakeSamples = Callable[[Architecture], Iterable[Sample]]
Tell = Callable[[str], None]


def find_convertible(name: str, sources: WeightSources) -> FoundWeights:
    """The weights of that name, path or address; of a set that the user brings, their file.

    Raises: as `find_weights`; WeightsNotFound for a set that does not convert.
    """
    known = REGISTRY.get(name)
    if known is not None and known.is_user_supplied and not Path(name).is_file():
        return replace(from_path(find_brought(known, sources), name), weight_set=known)
    return find_weights(name, known.job if known is not None and known.job in JOBS else JOB, sources)


def convert(
    found: FoundWeights,
    form: str,
    precision: str,
    folder: Path,
    make_samples: MakeSamples | None = None,
    tell: Tell = lambda _: None,
) -> list[Path]:
    """Write a network's weights in that form; the files appear whole or not at all.

    form: safetensors (tensors alone), or the network with them: onnx (one file), openvino (.xml, .bin).
    LipCoordNet takes video (B, 3, T, 64, 128) and lips (B, T, 20, 2) for any B and T and gives logits (B, T, 28);
    the other networks take and give what their modules do.
    precision: of the stored weights; networks compute in float32 either way, but for the convolutions in int8.
    make_samples: what the network takes in use, for int8: the ranges of its values are taken from it.
    tell: gets a line on what int8 cost, and which layers are kept out of it.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights (also where they are no network's that we know).
    """
    check_choice("--to", form, tuple(FORMS))
    check_choice(f"--precision for {form}", precision, FORMS[form])
    architecture, module = load_module(found.path)
    about = describe(found, architecture, module)
    name = name_of(found) + ("" if precision == "f32" else f"-{precision}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{form}"
    if form == "openvino":
        model = as_openvino(architecture, module, precision, make_samples, tell)
        return write_openvino(model, path.with_suffix(".xml"), about, is_half=precision == "f16")
    if form == "onnx":
        as_onnx(architecture, module, path, about, is_half=precision == "f16")
    else:
        tensors = {key: to_precision(value, precision) for key, value in module.state_dict().items()}
        write_safetensors(tensors, path, about)
    return [path]


def as_onnx(architecture: Architecture, module: nn.Module, path: Path, about: dict[str, str], *, is_half: bool) -> None:
    from inference.conversion.onnx_export import trace_onnx
    from inference.conversion.onnx_lip_coord_net import write_onnx

    if architecture is LIP_COORD_NET:
        write_onnx(module.state_dict(), path, about, is_half=is_half)
    else:
        trace_onnx(module, architecture, path, about, is_half=is_half)


def to_precision(value: Tensor, precision: str) -> Tensor:
    return value.to(DTYPES[precision]) if value.is_floating_point() else value


def check_choice(option: str, value: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise InvalidRequest(f"{option} {value!r}: expected one of {', '.join(expected)}")


def name_of(found: FoundWeights) -> str:
    """A set's name, or a file's without its suffix."""
    return found.weight_set.name if found.weight_set else found.path.stem


def describe(found: FoundWeights, architecture: Architecture, module: nn.Module) -> dict[str, str]:
    """What is written into the file about where it is from."""
    known = found.weight_set
    about = {ARCHITECTURE: architecture.name, MADE_FROM: found.sha256}
    widths = widths_of(module)
    if widths is not None:
        about[WIDTHS] = widths
    if known is not None:
        about |= {WEIGHTS: known.name, "licence": known.licence, "landmarks": known.landmarks or ""}
    return about


def as_openvino(
    architecture: Architecture, module: nn.Module, precision: str, make_samples: MakeSamples | None, tell: Tell
) -> ov.Model:
    model = architecture.build(module)
    if precision != "int8":
        return model
    if not architecture.is_quantised:
        raise InvalidRequest(f"precision int8: not for {architecture.name}; expected f32 or f16")
    import_nncf()  # before samples are made for it
    if make_samples is None:
        raise InvalidRequest("precision int8 needs samples of what the network takes")
    if architecture is not WAV2LIP:
        return quantise(model, make_samples(architecture))
    result = quantise_with_accuracy_control(model, make_samples(architecture))
    kept = f"in float32: {', '.join(result.kept)}" if result.kept else "no layer had to stay in float32"
    tell(f"mouths in int8 have an SSIM of {result.mouth_ssim} with float32's; {kept}")
    for key, value in {MOUTH_SSIM: str(result.mouth_ssim), KEPT_LAYERS: " ".join(result.kept)}.items():
        result.model.set_rt_info(value, [RT_INFO, key])
    return result.model


def write_openvino(model: ov.Model, path: Path, about: dict[str, str], *, is_half: bool) -> list[Path]:
    """The two files of an OpenVINO model: `path` and, before it, the weights beside it."""
    import openvino as ov

    for key, value in about.items():
        model.set_rt_info(value, [RT_INFO, key])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
        ov.save_model(model, Path(part) / path.name, compress_to_fp16=is_half)
        paths = [path.with_suffix(".bin"), path]  # the .xml last: it is what is opened
        for file in paths:
            os.replace(Path(part) / file.name, file)
    return paths
