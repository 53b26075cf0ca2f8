"""The networks that can be converted: how to identify each by its tensors and build it as a module and as a graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inference.backends.graphs.avatar import build_encoder, build_unet
from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip
from inference.errors import WrongWeights
from inference.models import S3FD, AudioVisualEncoder, AvatarUNet, LipCoordNet, Wav2Lip, Wav2LipWidths
from inference.models.audio_encoder import WIDTHS as ENCODER_WIDTHS
from inference.models.avatar_unet import AUDIO_SHAPES, MODES
from inference.models.avatar_unet import FACE_CHANNELS as AVATAR_CHANNELS
from inference.models.avatar_unet import FACE_SIDE as AVATAR_SIDE
from inference.models.avatar_unet import WIDTHS as AVATAR_WIDTHS
from inference.models.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS
from inference.weights.checkpoint import abbreviate, fill_module, read_tensors

if TYPE_CHECKING:
    import openvino as ov

DynamicAxes = dict[str, dict[int, str]]  # by input or output: the axes of any size, and their names
BATCH = {0: "batch"}
BATCH_AND_SIZE = {0: "batch", 2: "height", 3: "width"}
MAX_AUDIO_CHANNELS = 256  # of an avatar's audio features
# What reading widths out of another network's tensors raises.
NO_WIDTHS = (KeyError, IndexError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Architecture:
    """A network that can be converted.

    name: of the module's class.
    signature_key: a tensor that this network has and the others lack.
    make: builds an untrained module with the widths of a state dict; with the published widths if they can't be read.
    build: builds a module's OpenVINO graph.
    example: inputs of the module. inputs, outputs: their names in files. dynamic_axes: see `DynamicAxes`.
    supports_int8: whether its quality in int8 was measured.
    """

    name: str
    signature_key: str
    make: Callable[[Mapping[str, Tensor]], nn.Module]
    build: Callable[[Any], ov.Model]
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_axes: DynamicAxes
    supports_int8: bool


def new_wav2lip(tensors: Mapping[str, Tensor]) -> Wav2Lip:
    """Return an untrained Wav2Lip with the widths of these tensors, or the published ones if they can't be read."""
    try:
        return Wav2Lip(Wav2LipWidths.of(tensors))
    except NO_WIDTHS:
        return Wav2Lip()


def new_unet(tensors: Mapping[str, Tensor], mode: str | None = None) -> AvatarUNet:
    """Return an untrained U-Net with the widths of these tensors, or the published ones if they can't be read.

    mode: None infers it, as `AvatarUNet.like` does.
    """
    try:
        return AvatarUNet.like(tensors, mode)
    except NO_WIDTHS:
        return AvatarUNet(mode or "ave")


def new_encoder(tensors: Mapping[str, Tensor]) -> AudioVisualEncoder:
    """Return an untrained encoder with the widths of these tensors, or the published ones if they can't be read."""
    try:
        return AudioVisualEncoder.like(tensors)
    except NO_WIDTHS:
        return AudioVisualEncoder()


S3FD_OUTPUTS = tuple(f"{kind}{i}" for i in range(1, 7) for kind in ("logits", "offsets"))

LIP_COORD_NET = Architecture(
    name="LipCoordNet",
    signature_key="gru1.weight_ih_l0",
    make=lambda _: LipCoordNet(),
    build=lambda module: build_lip_coord_net(module.state_dict()),
    example=(torch.zeros(1, 3, 75, 64, 128), torch.zeros(1, 75, 20, 2)),
    inputs=("video", "lips"),
    outputs=("logits",),
    dynamic_axes={
        "video": {0: "batch", 2: "time"},
        "lips": {0: "batch", 1: "time"},
        "logits": {0: "batch", 1: "time"},
    },
    supports_int8=True,
)
WAV2LIP = Architecture(
    name="Wav2Lip",
    signature_key="face_encoder_blocks.0.0.conv_block.0.weight",
    make=new_wav2lip,
    build=build_wav2lip,
    example=(torch.zeros(1, 1, MEL_ROWS, MEL_COLUMNS), torch.zeros(1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE)),
    inputs=("audio", "face"),
    outputs=("faces",),
    dynamic_axes=dict.fromkeys(("audio", "face", "faces"), BATCH),
    supports_int8=True,
)
S3FD_DETECTOR = Architecture(
    name="S3FD",
    signature_key="conv3_3_norm.weight",
    make=lambda _: S3FD(),
    build=build_s3fd,
    example=(torch.zeros(1, 3, 96, 96),),
    inputs=("image",),
    outputs=S3FD_OUTPUTS,
    dynamic_axes=dict.fromkeys(("image", *S3FD_OUTPUTS), BATCH_AND_SIZE),
    supports_int8=False,
)
AVATAR_UNET = Architecture(
    name="AvatarUNet",
    signature_key="outc.conv.weight",
    make=new_unet,
    build=build_unet,
    example=(torch.zeros(1, AVATAR_CHANNELS, AVATAR_SIDE, AVATAR_SIDE), torch.zeros(1, *AUDIO_SHAPES["ave"])),
    inputs=("input", "audio"),
    outputs=("output",),
    dynamic_axes=dict.fromkeys(("input", "audio", "output"), BATCH),
    supports_int8=False,
)
AUDIO_ENCODER = Architecture(
    name="AudioVisualEncoder",
    signature_key="audio_encoder.12.conv_block.0.weight",
    make=new_encoder,
    build=build_encoder,
    example=(torch.zeros(1, 1, MEL_ROWS, MEL_COLUMNS),),
    inputs=("mel",),
    outputs=("features",),
    dynamic_axes=dict.fromkeys(("mel", "features"), BATCH),
    supports_int8=False,
)
ENCODER_PREFIX = "audio_encoder."  # of our keys; published encoders have keys without it
# The audio encoder comes last: Wav2Lip, too, has tensors of its names.
ARCHITECTURES = {one.name: one for one in (LIP_COORD_NET, WAV2LIP, S3FD_DETECTOR, AVATAR_UNET, AUDIO_ENCODER)}


def load_module(path: Path, architecture: Architecture | None = None) -> tuple[Architecture, nn.Module]:
    """Load a network from a file of tensors, in evaluation mode.

    architecture: the expected network; None identifies it by its tensors.
    Raises: WeightsNotFound, WrongWeights.
    """
    tensors = read_tensors(path)
    if AUDIO_ENCODER.signature_key.removeprefix(ENCODER_PREFIX) in tensors:
        tensors = {ENCODER_PREFIX + key: value for key, value in tensors.items()}
    found = architecture or identify(tensors, path)
    return found, fill_module(found.make(tensors), tensors, path.name).eval()


def identify(tensors: Mapping[str, Tensor], path: Path) -> Architecture:
    """Return the architecture that these tensors belong to. Raises: WrongWeights if it is unknown."""
    found = next((one for one in ARCHITECTURES.values() if one.signature_key in tensors), None)
    if found is None:
        names = " or ".join(ARCHITECTURES)
        raise WrongWeights(
            f"{path.name}: weights of another model; expected {names}, found {abbreviate(list(tensors))}"
        )
    return found


def example_inputs(module: nn.Module, architecture: Architecture) -> tuple[Tensor, ...]:
    """Return example inputs of this module: the audio input of avatars depends on their mode."""
    if isinstance(module, AvatarUNet):
        return (architecture.example[0], torch.zeros(1, *module.audio_shape))
    return architecture.example


def widths_of(module: nn.Module) -> str | None:
    """Return the JSON from which `make_from_widths` rebuilds the module; None if its size is fixed."""
    if isinstance(module, AvatarUNet):
        return json.dumps([MODES.index(module.mode), module.audio_shape[0], *module.widths])
    return json.dumps(module.widths) if isinstance(module, Wav2Lip | AudioVisualEncoder) else None


def make_from_widths(architecture: Architecture, widths: str | None) -> nn.Module:
    """Return an untrained module with widths as `widths_of` writes them.

    Raises: ValueError if the widths are invalid, or larger than the published network's.
    """
    if architecture in (LIP_COORD_NET, S3FD_DETECTOR):
        return architecture.make({})
    if architecture in (AVATAR_UNET, AUDIO_ENCODER):
        return make_avatar_network(architecture, widths)
    found, published = json.loads(widths or ""), Wav2LipWidths()
    if not isinstance(found, list) or not are_within(found, list(published)):
        raise ValueError(f"its widths are {str(widths)[:80]}; expected at most {json.dumps(published)}")
    faces, audio, decoder, output = found
    return Wav2Lip(Wav2LipWidths(tuple(faces), tuple(audio), tuple(decoder), output))


def make_avatar_network(architecture: Architecture, widths: str | None) -> nn.Module:
    """Return an untrained U-Net or audio encoder.

    widths: of a U-Net, the index of its mode and its audio channels come first.
    Raises: as `make_from_widths`.
    """
    found = json.loads(widths or "")
    largest = (
        list(ENCODER_WIDTHS) if architecture is AUDIO_ENCODER else [len(MODES), MAX_AUDIO_CHANNELS, *AVATAR_WIDTHS]
    )
    # The first mode has index 0, which `are_within` would refuse.
    is_first = isinstance(found, list) and architecture is AVATAR_UNET and bool(found) and found[0] == 0
    if not isinstance(found, list) or not are_within([1, *found[1:]] if is_first else found, largest):
        raise ValueError(f"its widths are {str(widths)[:80]}; expected at most {json.dumps(largest)}")
    if architecture is AUDIO_ENCODER:
        return AudioVisualEncoder(found)
    return AvatarUNet(MODES[min(found[0], len(MODES) - 1)], found[2:], found[1])


def are_within(found: object, largest: object) -> bool:
    """Return whether both are integers in the same nested lists, each between 1 and the other's."""
    if isinstance(found, list) and isinstance(largest, list | tuple):
        return len(found) == len(largest) and all(
            are_within(one, other) for one, other in zip(found, largest, strict=True)
        )
    return type(found) is int and isinstance(largest, int) and 0 < found <= largest
