"""The networks that can be loaded and converted: how to identify each by its tensors, and how to build it.

Torch is imported only where a module is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.backends.graphs.avatar import build_encoder, build_unet
from inference.backends.graphs.lip_coord_net import build_lip_coord_net
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip
from inference.backends.torch_import import require_torch
from inference.dimensions.avatar import FACE_CHANNELS as AVATAR_CHANNELS
from inference.dimensions.avatar import FACE_SIDE as AVATAR_SIDE
from inference.dimensions.avatar import MODES, UNetDimensions, unet_layers
from inference.dimensions.avatar import WIDTHS as AVATAR_WIDTHS
from inference.dimensions.layers import Shape, shapes_of
from inference.dimensions.lip_coord_net import lip_coord_net_shapes
from inference.dimensions.s3fd import s3fd_shapes
from inference.dimensions.wav2lip import (
    AUDIO_ENCODER as AUDIO_ENCODER_NAME,
)
from inference.dimensions.wav2lip import (
    AUDIO_WIDTHS,
    FACE_CHANNELS,
    FACE_SIDE,
    MEL_COLUMNS,
    MEL_ROWS,
    Wav2LipWidths,
    audio_encoder_layers,
    audio_widths_of,
    wav2lip_layers,
)
from inference.errors import WrongWeights
from inference.weights.checkpoint import Arrays, abbreviate, fill_module, fit_arrays, read_arrays, read_tensors

if TYPE_CHECKING:
    import openvino as ov
    from torch import Tensor, nn

Sizes = Any  # a network's: Wav2LipWidths, UNetDimensions, the widths of an audio encoder, None if they are fixed
DynamicAxes = dict[str, dict[int, str]]  # by input or output: the axes of any size, and their names
BATCH = {0: "batch"}
BATCH_AND_SIZE = {0: "batch", 2: "height", 3: "width"}
MAX_AUDIO_CHANNELS = 256  # of an avatar's audio features
# What reading widths out of another network's tensors raises.
NO_WIDTHS = (KeyError, IndexError, ValueError)


@dataclass(frozen=True)
class Architecture:
    """A network that can be loaded and converted.

    name: of the module's class.
    signature_key: a tensor that this network has and the others lack.
    published: the sizes of the published network. read_sizes: reads them out of a state dict of tensors or arrays; see
    `NO_WIDTHS`.
    shapes: returns the shapes of the tensors of a network of these sizes.
    build: builds the OpenVINO graph of a state dict of tensors or arrays. make: makes an untrained module.
    example: shapes of the module's inputs. inputs, outputs: their names in files. dynamic_axes: see `DynamicAxes`.
    supports_int8: whether its quality in int8 was measured.
    """

    name: str
    signature_key: str
    published: Sizes
    read_sizes: Callable[[Mapping[str, Any]], Sizes]
    shapes: Callable[[Sizes], dict[str, Shape]]
    build: Callable[[Mapping[str, Any], Sizes], ov.Model]
    make: Callable[[Sizes], nn.Module]
    example: Callable[[Sizes], tuple[Shape, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_axes: DynamicAxes
    supports_int8: bool

    def sizes_of(self, tensors: Mapping[str, Any]) -> Sizes:
        """Return the sizes of a network with these tensors; the published ones if they can't be read."""
        try:
            sizes = self.read_sizes(tensors)
            self.shapes(sizes)
        except NO_WIDTHS:
            return self.published
        return sizes


@dataclass(frozen=True)
class NetworkWeights:
    """A network's weights, float32, by the names of its state dict."""

    architecture: Architecture
    sizes: Sizes
    arrays: Arrays

    def build(self) -> ov.Model:
        """Build its OpenVINO graph."""
        return self.architecture.build(self.arrays, self.sizes)

    def make_module(self) -> nn.Module:
        """Make its module, in evaluation mode. Raises: DeviceUnavailable without torch."""
        require_torch(f"{self.architecture.name} as a module of torch")
        return to_module(self.architecture.make(self.sizes), self.arrays)


def weights_of(module: nn.Module) -> NetworkWeights:
    """Return the weights of one of our modules, such as a trained one."""
    architecture, state = ARCHITECTURES[type(module).__name__], module.state_dict()
    sizes = architecture.sizes_of(state)
    if architecture is AVATAR_UNET:
        sizes = replace(sizes, mode=module.mode)  # which shapes do not always show
    return NetworkWeights(architecture, sizes, {key: value.cpu().numpy() for key, value in state.items()})


def to_module(module: nn.Module, arrays: Arrays) -> nn.Module:
    """Copy all arrays of a state dict into a module, in evaluation mode."""
    import torch

    module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()})
    return module.eval()


def make_lip_coord_net(_: Sizes) -> nn.Module:
    from inference.models import LipCoordNet

    return LipCoordNet()


def make_wav2lip(sizes: Sizes) -> nn.Module:
    from inference.models import Wav2Lip

    return Wav2Lip(sizes)


def make_s3fd(_: Sizes) -> nn.Module:
    from inference.models import S3FD

    return S3FD()


def make_unet(sizes: Sizes) -> nn.Module:
    from inference.models import AvatarUNet

    return AvatarUNet(sizes.mode, sizes.widths, sizes.n_audio_channels)


def make_encoder(sizes: Sizes) -> nn.Module:
    from inference.models import AudioVisualEncoder

    return AudioVisualEncoder(sizes)


S3FD_OUTPUTS = tuple(f"{kind}{i}" for i in range(1, 7) for kind in ("logits", "offsets"))

LIP_COORD_NET = Architecture(
    name="LipCoordNet",
    signature_key="gru1.weight_ih_l0",
    published=None,
    read_sizes=lambda _: None,
    shapes=lambda _: lip_coord_net_shapes(),
    build=lambda state, _: build_lip_coord_net(state),
    make=make_lip_coord_net,
    example=lambda _: ((1, 3, 75, 64, 128), (1, 75, 20, 2)),
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
    published=Wav2LipWidths(),
    read_sizes=Wav2LipWidths.of,
    shapes=lambda widths: shapes_of(wav2lip_layers(widths).all),
    build=lambda state, _: build_wav2lip(state),
    make=make_wav2lip,
    example=lambda _: ((1, 1, MEL_ROWS, MEL_COLUMNS), (1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE)),
    inputs=("audio", "face"),
    outputs=("faces",),
    dynamic_axes=dict.fromkeys(("audio", "face", "faces"), BATCH),
    supports_int8=True,
)
S3FD_DETECTOR = Architecture(
    name="S3FD",
    signature_key="conv3_3_norm.weight",
    published=None,
    read_sizes=lambda _: None,
    shapes=lambda _: s3fd_shapes(),
    build=lambda state, _: build_s3fd(state),
    make=make_s3fd,
    example=lambda _: ((1, 3, 96, 96),),
    inputs=("image",),
    outputs=S3FD_OUTPUTS,
    dynamic_axes=dict.fromkeys(("image", *S3FD_OUTPUTS), BATCH_AND_SIZE),
    supports_int8=False,
)
AVATAR_UNET = Architecture(
    name="AvatarUNet",
    signature_key="outc.conv.weight",
    published=UNetDimensions.published("ave"),
    read_sizes=UNetDimensions.of,
    shapes=lambda sizes: shapes_of(unet_layers(sizes).values()),
    build=build_unet,
    make=make_unet,
    example=lambda sizes: ((1, AVATAR_CHANNELS, AVATAR_SIDE, AVATAR_SIDE), (1, *sizes.audio_shape)),
    inputs=("input", "audio"),
    outputs=("output",),
    dynamic_axes=dict.fromkeys(("input", "audio", "output"), BATCH),
    supports_int8=False,
)
AUDIO_ENCODER = Architecture(
    name="AudioVisualEncoder",
    signature_key="audio_encoder.12.conv_block.0.weight",
    published=AUDIO_WIDTHS,
    read_sizes=audio_widths_of,
    shapes=lambda widths: shapes_of(audio_encoder_layers(widths)),
    build=lambda state, _: build_encoder(state),
    make=make_encoder,
    example=lambda _: ((1, 1, MEL_ROWS, MEL_COLUMNS),),
    inputs=("mel",),
    outputs=("features",),
    dynamic_axes=dict.fromkeys(("mel", "features"), BATCH),
    supports_int8=False,
)
ENCODER_PREFIX = f"{AUDIO_ENCODER_NAME}."  # of our keys; published encoders have keys without it
# The audio encoder comes last: Wav2Lip, too, has tensors of its names.
ARCHITECTURES = {one.name: one for one in (LIP_COORD_NET, WAV2LIP, S3FD_DETECTOR, AVATAR_UNET, AUDIO_ENCODER)}


def load_weights(path: Path, architecture: Architecture | None = None) -> NetworkWeights:
    """Load a network's weights from a file of tensors.

    architecture: the expected network; None identifies it by its tensors.
    Raises: WeightsNotFound, WrongWeights.
    """
    arrays = with_prefix(read_arrays(path))
    found = architecture or identify(arrays, path)
    sizes = found.sizes_of(arrays)
    return NetworkWeights(found, sizes, fit_arrays(arrays, found.shapes(sizes), path.name, found.name))


def load_module(path: Path, architecture: Architecture | None = None) -> tuple[Architecture, nn.Module]:
    """Load a network from a file of tensors as a module, in evaluation mode. See `load_weights`."""
    tensors = with_prefix(read_tensors(path))
    found = architecture or identify(tensors, path)
    return found, fill_module(found.make(found.sizes_of(tensors)), tensors, path.name).eval()


def with_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    """Add the prefix that published audio encoders lack."""
    if AUDIO_ENCODER.signature_key.removeprefix(ENCODER_PREFIX) in tensors:
        return {ENCODER_PREFIX + key: value for key, value in tensors.items()}
    return tensors


def identify(tensors: Mapping[str, Any], path: Path) -> Architecture:
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
    import torch

    return tuple(torch.zeros(shape) for shape in architecture.example(architecture.sizes_of(module.state_dict())))


def sizes_to_json(sizes: Sizes) -> str | None:
    """Return the JSON that `sizes_from_json` reads; None if the network's size is fixed."""
    if isinstance(sizes, UNetDimensions):
        return json.dumps([MODES.index(sizes.mode), sizes.n_audio_channels, *sizes.widths])
    return None if sizes is None else json.dumps(sizes)


def sizes_from_json(architecture: Architecture, text: str | None) -> Sizes:
    """Return sizes as `sizes_to_json` writes them.

    Raises: ValueError if they are invalid, or larger than the published network's.
    """
    if architecture.published is None:
        return None
    if architecture in (AVATAR_UNET, AUDIO_ENCODER):
        return avatar_sizes_from_json(architecture, text)
    found, published = json.loads(text or ""), Wav2LipWidths()
    if not isinstance(found, list) or not are_within(found, list(published)):
        raise ValueError(f"its widths are {str(text)[:80]}; expected at most {json.dumps(published)}")
    faces, audio, decoder, output = found
    return Wav2LipWidths(tuple(faces), tuple(audio), tuple(decoder), output)


def avatar_sizes_from_json(architecture: Architecture, text: str | None) -> Sizes:
    """Return the sizes of a U-Net or an audio encoder.

    text: of a U-Net, the index of its mode and its audio channels come first.
    Raises: as `sizes_from_json`.
    """
    found = json.loads(text or "")
    largest = list(AUDIO_WIDTHS) if architecture is AUDIO_ENCODER else [len(MODES), MAX_AUDIO_CHANNELS, *AVATAR_WIDTHS]
    # The first mode has index 0, which `are_within` would refuse.
    is_first = isinstance(found, list) and architecture is AVATAR_UNET and bool(found) and found[0] == 0
    if not isinstance(found, list) or not are_within([1, *found[1:]] if is_first else found, largest):
        raise ValueError(f"its widths are {str(text)[:80]}; expected at most {json.dumps(largest)}")
    if architecture is AUDIO_ENCODER:
        return tuple(found)
    return UNetDimensions(MODES[min(found[0], len(MODES) - 1)], tuple(found[2:]), found[1])


def are_within(found: object, largest: object) -> bool:
    """Return whether both are integers in the same nested lists, each between 1 and the other's."""
    if isinstance(found, list) and isinstance(largest, list | tuple):
        return len(found) == len(largest) and all(
            are_within(one, other) for one, other in zip(found, largest, strict=True)
        )
    return type(found) is int and isinstance(largest, int) and 0 < found <= largest
