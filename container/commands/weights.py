"""`viseme weights`: the weight sets of the registry, and conversion of weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.console import print_line, print_note
from inference.weights.cache import check_hash, locate, path_of
from inference.weights.fetch import fetch
from inference.weights.registry import REGISTRY, find_set

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from collections.abc import Iterable

    from inference.conversion.int8_lip_coord_net import CalibrationSample
    from inference.weights.architectures import Architecture

app = typer.Typer(help="List, fetch, verify and convert model weights.", no_args_is_help=True, add_completion=False)


class WeightFormat(StrEnum):
    """File formats that `weights convert` writes."""

    safetensors = "safetensors"
    onnx = "onnx"
    openvino = "openvino"


class StoredPrecision(StrEnum):
    """Precisions that `weights convert` stores weights in."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    int8 = "int8"


@app.command("list")
def list_weights() -> None:
    """Print the weight sets of the registry, one per line.

    Columns, separated by tabs: name, task, state on this machine, source, licence, landmarks.
    """
    from inference.settings import Settings

    cache = Settings.from_env().weights_cache
    for weight_set in REGISTRY.values():
        is_cached = all(path_of(weight_set, file, cache).is_file() for file in weight_set.files)
        state = "shipped" if weight_set.shipped_in else "fetched" if is_cached else "not fetched"
        columns = weight_set.name, weight_set.task, state, weight_set.source, weight_set.licence
        print_line("\t".join([*columns, weight_set.landmarks or "-"]))


@app.command("fetch")
def fetch_weights(name: Annotated[str, typer.Argument(help="A name from 'viseme weights list'.")]) -> None:
    """Download a weight set into the cache, unless it is already there, and print its files.

    Its licence is printed on stderr.
    """
    from inference.settings import Settings

    weight_set = find_set(name)
    print_note(f"{weight_set.name}: licence: {weight_set.licence}")
    if weight_set.notice:
        print_note(f"warning: {weight_set.notice}")
    for path in fetch(name, Settings.from_env().weight_sources):
        print_line(str(path))


@app.command("verify")
def verify_weights(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A name from 'viseme weights list', or a file.")],
) -> None:
    """Check weights and print the SHA-256 of each file.

    A set is checked against the registry. Any other file must contain the
    weights of a whole network.
    """
    from inference.settings import Settings
    from inference.weights.resolve import is_path_like

    if is_path_like(name) or Path(name).is_file():
        verify_file(Path(name))
        return
    weight_set = find_set(name)
    for file in weight_set.files:
        path = locate(weight_set, file, Settings.from_env().weights_cache)
        print_line(f"{check_hash(path, file)}  {path}")


def verify_file(path: Path) -> None:
    """Check that a file is a whole network's weights; print which network, and which set if the registry has it.

    Raises: WeightsNotFound, WrongWeights.
    """
    from inference.weights.architectures import load_module
    from inference.weights.openvino_files import read_openvino
    from inference.weights.resolve import OPENVINO_SUFFIX, from_path

    found = from_path(path, str(path))
    if found.path.suffix == OPENVINO_SUFFIX:
        architecture = read_openvino(found.path, None).architecture
    else:
        architecture, _ = load_module(found.path)
    print_line(f"{found.sha256}  {found.path}")
    print_note(f"{path.name}: a whole {architecture.name}")
    if found.weight_set:
        print_note(f"{path.name}: these are the weights {found.weight_set.name!r}")


@app.command("convert")
def convert_weights(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH", help="Weights of a supported network: a name, a file, s3:// or hf://."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    weight_format: Annotated[
        WeightFormat,
        typer.Option("--to", help="safetensors: only the tensors. onnx, openvino: the network as well."),
    ] = WeightFormat.safetensors,
    precision: Annotated[
        StoredPrecision,
        typer.Option(
            help="Precision of the stored weights. bf16: safetensors only. int8: OpenVINO only; takes minutes."
        ),
    ] = StoredPrecision.f32,
    calibration_videos: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate",
            metavar="VIDEO",
            help="For int8 Wav2Lip: a video with audio of a talking face, to calibrate on. Repeatable.",
        ),
    ] = None,
) -> None:
    """Convert weights to another format or precision and print the files written."""
    from inference.backends.torch_import import require_torch

    require_torch("converting weights")
    from container.commands.calibration_data import make_lip_reading_samples, make_lip_sync_samples
    from inference.conversion.convert import convert, find_convertible
    from inference.settings import Settings
    from inference.weights.architectures import LIP_COORD_NET

    sources = Settings.from_env().weight_sources
    found = find_convertible(name, sources)
    if found.weight_set and found.weight_set.notice:
        print_note(f"warning: {found.weight_set.notice}")

    def make_calibration_data(architecture: Architecture) -> Iterable[CalibrationSample]:
        if architecture is LIP_COORD_NET:
            return make_lip_reading_samples(sources, found.landmarks)
        return make_lip_sync_samples(sources, calibration_videos or ())

    for path in convert(found, weight_format.value, precision.value, output, make_calibration_data, print_note):
        print_line(str(path))
