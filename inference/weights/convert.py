"""Lip-reading weights in other forms: safetensors, ONNX, OpenVINO."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import torch

from inference.errors import InvalidRequest
from inference.models import LipCoordNet
from inference.weights.find import FoundWeights
from inference.weights.tensors import load_into, write_safetensors

JOB = "lip reading"  # the only one whose weights convert
FORMS = ("safetensors", "onnx", "openvino")
PRECISIONS = ("f32", "f16")
DTYPES = {"f32": torch.float32, "f16": torch.float16}
N_EXAMPLE_FRAMES = 8  # of the example that OpenVINO traces; the result takes any number


def convert(found: FoundWeights, form: str, precision: str, folder: Path) -> list[Path]:
    """Write LipCoordNet's weights in that form; the files appear whole or not at all.

    form: safetensors (tensors alone), or the network with them: onnx (one file), openvino (.xml, .bin).
    Both take video (B, 3, T, 64, 128) and lips (B, T, 20, 2) for any B and T and give logits (B, T, 28).
    precision: of the stored weights; networks compute in float32 either way.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights (also where they are another network's).
    """
    check_choice("--to", form, FORMS)
    check_choice("--precision", precision, PRECISIONS)
    module = LipCoordNet().eval()
    load_into(module, found.path)
    name = name_of(found) + ("" if precision == "f32" else f"-{precision}")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "openvino":
        return write_openvino(module, folder / f"{name}.xml", is_half=precision == "f16")
    path = folder / f"{name}.{form}"
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
    about = {"architecture": "LipCoordNet", "made_from_sha256": found.sha256}
    if known is not None:
        about |= {"weights": known.name, "licence": known.licence, "landmarks": known.landmarks or ""}
    return about


def write_openvino(module: LipCoordNet, path: Path, *, is_half: bool) -> list[Path]:
    """The two files of an OpenVINO model: `path` and, before it, the weights beside it."""
    import openvino as ov

    example = (torch.zeros(1, 3, N_EXAMPLE_FRAMES, 64, 128), torch.zeros(1, N_EXAMPLE_FRAMES, 20, 2))
    with warnings.catch_warnings():
        # That tracing will go away, and that it fixes the GRUs' checks of their input's width, which
        # no length of a clip changes: the tests run other batches and lengths.
        warnings.simplefilter("ignore")
        model = ov.convert_model(module, example_input=example, input=[[-1, 3, -1, 64, 128], [-1, -1, 20, 2]])
    model.output(0).get_tensor().set_names({"logits"})
    for put, name in zip(model.inputs, ("video", "lips"), strict=True):
        put.get_tensor().set_names({name})
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
        ov.save_model(model, Path(part) / path.name, compress_to_fp16=is_half)
        paths = [path.with_suffix(".bin"), path]  # the .xml last: it is what is opened
        for file in paths:
            os.replace(Path(part) / file.name, file)
    return paths
