"""Lip-reading weights in other forms: safetensors, ONNX, OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inference.errors import InvalidRequest
from inference.models import LipCoordNet
from inference.weights.find import FoundWeights
from inference.weights.openvino_graph import build_openvino
from inference.weights.openvino_model import MADE_FROM, RT_INFO
from inference.weights.quantise import Sample, import_nncf, quantise
from inference.weights.tensors import load_into, write_safetensors

if TYPE_CHECKING:
    import openvino as ov

JOB = "lip reading"  # the only one whose weights convert
# The forms, and the precisions that each stores weights in.
FORMS = {
    "safetensors": ("f32", "f16", "bf16"),
    "onnx": ("f32", "f16"),
    "openvino": ("f32", "f16", "int8"),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MakeSamples = Callable[[], Iterable[Sample]]


def convert(
    found: FoundWeights, form: str, precision: str, folder: Path, make_samples: MakeSamples | None = None
) -> list[Path]:
    """Write LipCoordNet's weights in that form; the files appear whole or not at all.

    form: safetensors (tensors alone), or the network with them: onnx (one file), openvino (.xml, .bin).
    Both take video (B, 3, T, 64, 128) and lips (B, T, 20, 2) for any B and T and give logits (B, T, 28).
    precision: of the stored weights; networks compute in float32 either way, but for the convolutions in int8.
    make_samples: what the network takes in use, for int8: the ranges of its values are taken from it.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights (also where they are another network's).
    """
    check_choice("--to", form, tuple(FORMS))
    check_choice(f"--precision for {form}", precision, FORMS[form])
    module = LipCoordNet().eval()
    load_into(module, found.path)
    name = name_of(found) + ("" if precision == "f32" else f"-{precision}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{form}"
    if form == "openvino":
        model = as_openvino(module, precision, make_samples)
        return write_openvino(model, path.with_suffix(".xml"), describe(found), is_half=precision == "f16")
    if form == "onnx":
        from inference.weights.onnx_graph import write_onnx

        write_onnx(module.state_dict(), path, describe(found), is_half=precision == "f16")
    else:
        tensors = {key: value.to(DTYPES[precision]) for key, value in module.state_dict().items()}
        write_safetensors(tensors, path, describe(found))
    return [path]


def check_choice(option: str, value: str, expected: tuple[str, ...]) -> None:
    if value not in expected:
        raise InvalidRequest(f"{option} {value!r}: expected one of {', '.join(expected)}")


def name_of(found: FoundWeights) -> str:
    """A set's name, or a file's without its suffix."""
    return found.weight_set.name if found.weight_set else found.path.stem


def describe(found: FoundWeights) -> dict[str, str]:
    """What is written into the file about where it is from."""
    known = found.weight_set
    about = {"architecture": "LipCoordNet", MADE_FROM: found.sha256}
    if known is not None:
        about |= {"weights": known.name, "licence": known.licence, "landmarks": known.landmarks or ""}
    return about


def as_openvino(module: LipCoordNet, precision: str, make_samples: MakeSamples | None) -> ov.Model:
    model = build_openvino(module.state_dict())
    if precision != "int8":
        return model
    import_nncf()  # before samples are made for it
    if make_samples is None:
        raise InvalidRequest("precision int8 needs samples of what the network takes")
    return quantise(model, make_samples())


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
