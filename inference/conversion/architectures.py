"""The networks whose weights convert: told from one another by their tensors, built as modules and as graphs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inference.backends.graphs.avatar import build_encoder, build_unet
from inference.backends.graphs.lip_coord_net import build_openvino
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip
from inference.errors import WrongWeights
from inference.models import S3FD, AudioVisualEncoder, AvatarUNet, LipCoordNet, Wav2Lip, Wav2LipWidths
from inference.models.audio_encoder import WIDTHS as EAR_WIDTHS
from inference.models.avatar_unet import AUDIO_SHAPES, MODES
from inference.models.avatar_unet import FACE_CHANNELS as AVATAR_CHANNELS
from inference.models.avatar_unet import FACE_SIDE as AVATAR_SIDE
from inference.models.avatar_unet import WIDTHS as AVATAR_WIDTHS
from inference.models.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS
from inference.weights.checkpoint import check_keys, read_tensors, abbreviate

if TYPE_CHECKING:
    import openvino as ov


@dataclass(frozen=True)
class Architecture:
    """name: the module's. signature_key: a tensor that it has and no other. make: the module with the tensors' widths.
    build: the module as a graph. example: what it takes. inputs, outputs: their names in files.
    """

    name: str
    signature_key: str
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
AVATAR = Architecture(
    "AvatarUNet",
    "outc.conv.weight",
    lambda tensors: AvatarUNet.like(tensors),  # noqa: PLW0108 (with its own mode)
    build_unet,
    (torch.zeros(1, AVATAR_CHANNELS, AVATAR_SIDE, AVATAR_SIDE), torch.zeros(1, *AUDIO_SHAPES["ave"])),
    ("input", "audio"),
    ("output",),
    is_quantised=False,
)
# Behind Wav2Lip, which holds an ear of the same names.
EAR = Architecture(
    "AudioVisualEncoder",
    "audio_encoder.12.conv_block.0.weight",
    AudioVisualEncoder.like,
    build_encoder,
    (torch.zeros(1, 1, MEL_ROWS, MEL_COLUMNS),),
    ("mel",),
    ("features",),
    is_quantised=False,
)
EAR_PREFIX = "audio_encoder."  # which published ears lack
ARCHITECTURES = {one.name: one for one in (LIP_COORD_NET, WAV2LIP, S3FD_DETECTOR, AVATAR, EAR)}


def load_module(path: Path, architecture: Architecture | None = None) -> tuple[Architecture, nn.Module]:
    """The network that a file's tensors are of, with them in it; architecture: which one it has to be.

    Raises: WeightsNotFound, WrongWeights.
    """
    tensors = read_tensors(path)
    if EAR.signature_key.removeprefix(EAR_PREFIX) in tensors:
        tensors = {EAR_PREFIX + key: value for key, value in tensors.items()}
    found = architecture or recognise(tensors, path)
    module = make_empty(found, tensors)
    check_keys(tensors, module.state_dict(), path.name, found.name)
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    return found, module.eval()


def recognise(tensors: Mapping[str, Tensor], path: Path) -> Architecture:
    known = next((one for one in ARCHITECTURES.values() if one.signature_key in tensors), None)
    if known is None:
        names = " or ".join(ARCHITECTURES)
        raise WrongWeights(
            f"{path.name}: weights of another model; expected {names}, found {abbreviate(list(tensors))}"
        )
    return known


def make_empty(architecture: Architecture, tensors: Mapping[str, Tensor]) -> nn.Module:
    """With the widths of the tensors where they tell them; else with the published ones, for a check that names why."""
    try:
        return architecture.make(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError):
        usual = {AVATAR.name: AvatarUNet, EAR.name: AudioVisualEncoder}.get(architecture.name, Wav2Lip)
        return architecture.make(usual().state_dict())


def example_of(module: nn.Module, architecture: Architecture) -> tuple[Tensor, ...]:
    """What this very network takes: avatars' differ in what they hear."""
    if isinstance(module, AvatarUNet):
        return (architecture.example[0], torch.zeros(1, *module.audio_shape))
    return architecture.example


def widths_of(module: nn.Module) -> str | None:
    """What a file has to say for its network to be built again; None where there is nothing to be said."""
    if isinstance(module, AvatarUNet):
        return json.dumps([MODES.index(module.mode), module.audio_shape[0], *module.widths])
    return json.dumps(module.widths) if isinstance(module, Wav2Lip | AudioVisualEncoder) else None


def make_of_widths(architecture: Architecture, said: str | None) -> nn.Module:
    """Raises: ValueError for widths that are none, or larger than the published network's."""
    if architecture in (LIP_COORD_NET, S3FD_DETECTOR):
        return architecture.make({})
    if architecture in (AVATAR, EAR):
        return make_avatar(architecture, said)
    found, usual = json.loads(said or ""), Wav2LipWidths()
    if not isinstance(found, list) or not fits(found, list(usual)):
        raise ValueError(f"its widths are {str(said)[:80]}; expected at most {json.dumps(usual)}")
    faces, audio, decoder, output = found
    return Wav2Lip(Wav2LipWidths(tuple(faces), tuple(audio), tuple(decoder), output))


def make_avatar(architecture: Architecture, said: str | None) -> nn.Module:
    """As `make_of_widths`; of a U-Net the widths stand behind its mode, by number, and its audio channels."""
    found = json.loads(said or "")
    most = list(EAR_WIDTHS) if architecture is EAR else [len(MODES), 256, *AVATAR_WIDTHS]
    is_first = isinstance(found, list) and architecture is AVATAR and bool(found) and found[0] == 0
    if not isinstance(found, list) or not fits([1, *found[1:]] if is_first else found, most):
        raise ValueError(f"its widths are {str(said)[:80]}; expected at most {json.dumps(most)}")
    if architecture is EAR:
        return AudioVisualEncoder(found)
    return AvatarUNet(MODES[min(found[0], len(MODES) - 1)], found[2:], found[1])


def fits(found: object, most: object) -> bool:
    """Whether there are as many whole numbers, in the same lists, each from 1 to the other's."""
    if isinstance(found, list) and isinstance(most, list | tuple):
        return len(found) == len(most) and all(fits(one, other) for one, other in zip(found, most, strict=True))
    return type(found) is int and isinstance(most, int) and 0 < found <= most
