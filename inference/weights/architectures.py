"""The networks whose weights convert: told from one another by their tensors, built as modules and as graphs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inference.errors import WrongWeights
from inference.models import S3FD, LipCoordNet, Wav2Lip, Wav2LipWidths
from inference.models.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS
from inference.weights.face_graphs import build_s3fd, build_wav2lip
from inference.weights.openvino_graph import build_openvino
from inference.weights.tensors import check_keys, read_tensors, some

if TYPE_CHECKING:
    import openvino as ov


@dataclass(frozen=True)
class Architecture:
    """name: the module's. mark: a tensor that it has and no other. make: the module with the tensors' widths.
    build: the module as a graph. example: what it takes. inputs, outputs: their names in files.
    """

    name: str
    mark: str
    make: Callable[[Mapping[str, Tensor]], nn.Module]
    build: Callable[[Any], ov.Model]
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_quantised: bool  # whether int8 was tried


LIP_COORD_NET = Architecture(
    "LipCoordNet",
    "gru1.weight_ih_l0",
    lambda _: LipCoordNet(),
    lambda module: build_openvino(module.state_dict()),
    (torch.zeros(1, 3, 75, 64, 128), torch.zeros(1, 75, 20, 2)),
    ("video", "lips"),
    ("logits",),
    is_quantised=True,
)
WAV2LIP = Architecture(
    "Wav2Lip",
    "face_encoder_blocks.0.0.conv_block.0.weight",
    lambda tensors: Wav2Lip(Wav2LipWidths.of(tensors)),
    build_wav2lip,
    (torch.zeros(1, 1, MEL_ROWS, MEL_COLUMNS), torch.zeros(1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE)),
    ("audio", "face"),
    ("faces",),
    is_quantised=True,
)
S3FD_DETECTOR = Architecture(
    "S3FD",
    "conv3_3_norm.weight",
    lambda _: S3FD(),
    build_s3fd,
    (torch.zeros(1, 3, 96, 96),),
    ("image",),
    tuple(f"{kind}{i}" for i in range(1, 7) for kind in ("logits", "offsets")),
    is_quantised=False,
)
ARCHITECTURES = {one.name: one for one in (LIP_COORD_NET, WAV2LIP, S3FD_DETECTOR)}


def load_module(path: Path, architecture: Architecture | None = None) -> tuple[Architecture, nn.Module]:
    """The network that a file's tensors are of, with them in it; architecture: which one it has to be.

    Raises: WeightsNotFound, WrongWeights.
    """
    tensors = read_tensors(path)
    found = architecture or recognise(tensors, path)
    module = make_empty(found, tensors)
    check_keys(tensors, module.state_dict(), path.name, found.name)
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    return found, module.eval()


def recognise(tensors: Mapping[str, Tensor], path: Path) -> Architecture:
    known = next((one for one in ARCHITECTURES.values() if one.mark in tensors), None)
    if known is None:
        names = " or ".join(ARCHITECTURES)
        raise WrongWeights(f"{path.name}: weights of another model; expected {names}, found {some(list(tensors))}")
    return known


def make_empty(architecture: Architecture, tensors: Mapping[str, Tensor]) -> nn.Module:
    """With the widths of the tensors where they tell them; else with the published ones, for a check that names why."""
    try:
        return architecture.make(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError):
        return architecture.make(Wav2Lip().state_dict())


def widths_of(module: nn.Module) -> str | None:
    """What a file has to say for its network to be built again; None where there is nothing to be said."""
    return json.dumps(module.widths) if isinstance(module, Wav2Lip) else None


def make_of_widths(architecture: Architecture, said: str | None) -> nn.Module:
    """Raises: ValueError for widths that are none, or larger than the published network's."""
    if architecture is not WAV2LIP:
        return architecture.make({})
    found, usual = json.loads(said or ""), Wav2LipWidths()
    if not isinstance(found, list) or not fits(found, list(usual)):
        raise ValueError(f"its widths are {str(said)[:80]}; expected at most {json.dumps(usual)}")
    faces, audio, decoder, output = found
    return Wav2Lip(Wav2LipWidths(tuple(faces), tuple(audio), tuple(decoder), output))


def fits(found: object, most: object) -> bool:
    """Whether there are as many whole numbers, in the same lists, each from 1 to the other's."""
    if isinstance(found, list) and isinstance(most, list | tuple):
        return len(found) == len(most) and all(fits(one, other) for one, other in zip(found, most, strict=True))
    return type(found) is int and isinstance(most, int) and 0 < found <= most
