"""Assemble the two networks of an avatar from its audio networks and its U-Net.

    python -m training.avatar.assemble --audio AUDIO/audio_network.safetensors --unet UNET/unet.safetensors -o OUT

Writes OUT/network.safetensors and OUT/audio_encoder.safetensors (float16). The trained U-Net takes seven numbers of a
mouth; the avatar's U-Net takes the map of its audio branch, and these numbers are a linear function of that map. So the
readout is merged into the weights of the layer that takes them, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.audio.avatar_features import FEATURE_ROWS
from inference.models import AvatarUNet
from inference.rendering.mouth_shape import MouthShape
from training.avatar.identity_init import WIDEN, fusion_layers, weight_of
from training.avatar.train_audio_encoder import ENCODER_WIDTHS, N_SHAPES, UNET_WIDTHS, AvatarAudioNetwork
from training.avatar.train_unet import AUDIO_BRANCH
from training.common.checkpoint import write_half_precision
from training.common.options import Option, parse_options

OPEN, PRESS = (list(MouthShape.__dataclass_fields__).index(name) for name in ("open", "press"))


@dataclass(frozen=True)
class AssemblyOptions:
    """What to assemble, and where to write it.

    The audio network predicts a mean of possible mouths, never quite open and never quite closed. So the opening to
    draw is `gain` times the prediction, plus `bias`, less `press` times the predicted pressing of the lips, which shuts
    them on b, m and p. Below 0 they are shut.
    """

    audio: Annotated[Path, Option("audio_network.safetensors of training.avatar.train_audio_encoder")]
    unet: Annotated[Path, Option("unet.safetensors of training.avatar.train_unet")]
    output: Annotated[Path, Option("folder for the two networks", short="-o")]
    gain: Annotated[float, Option("factor of the predicted opening of the mouth")] = 1.25
    bias: Annotated[float, Option("added to the opening")] = 0.1
    press: Annotated[float, Option("share of the predicted pressing that is taken off the opening")] = 0.3


@torch.no_grad()
def assemble(
    audio_network: AvatarAudioNetwork,
    unet_tensors: Mapping[str, Tensor],
    gain: float = 1.0,
    bias: float = 0.0,
    press: float = 0.0,
) -> AvatarUNet:
    """Return a U-Net that draws the mouth predicted from its audio branch's map. See `AssemblyOptions`."""
    unet = AvatarUNet("ave", UNET_WIDTHS, ENCODER_WIDTHS[-1] // FEATURE_ROWS)
    branch = {AUDIO_BRANCH + key: value for key, value in audio_network.branch.state_dict().items()}
    unet.load_state_dict({**unet_tensors, **branch})
    drawn = torch.eye(N_SHAPES)  # the numbers to draw, of those predicted
    drawn[OPEN, OPEN], drawn[OPEN, PRESS] = gain, -press
    readout = drawn @ weight_of(audio_network.shape)[:, :, 0, 0]  # (7, 128)
    biases = drawn @ cast(Tensor, audio_network.shape.bias)
    biases[OPEN] += bias
    layers = fusion_layers(unet)
    widen, norm = weight_of(layers[WIDEN]), cast(nn.BatchNorm2d, layers[WIDEN + 1])
    n_face = widen.shape[1] - UNET_WIDTHS[-1]
    shape_weights = widen[:, n_face : n_face + N_SHAPES, 0, 0].clone()  # (512, 7)
    widen[:, n_face:, 0, 0] = shape_weights @ readout
    cast(Tensor, norm.running_mean).sub_(shape_weights @ biases)  # the convolution has no bias
    return unet.eval()


def load_audio_network(path: Path) -> AvatarAudioNetwork:
    network = AvatarAudioNetwork()
    network.load_state_dict(load_file(path))
    return network.eval()


def write_avatar(options: AssemblyOptions) -> None:
    """Write both networks."""
    audio_network = load_audio_network(options.audio)
    options.output.mkdir(parents=True, exist_ok=True)
    unet = assemble(audio_network, load_file(options.unet), options.gain, options.bias, options.press)
    write_half_precision(unet, options.output / "network.safetensors")
    write_half_precision(audio_network.encoder, options.output / "audio_encoder.safetensors")


def main(arguments: Sequence[str] | None = None) -> None:
    """Assemble what the command line names."""
    write_avatar(parse_options(AssemblyOptions, "training.avatar.assemble", __doc__, arguments))


if __name__ == "__main__":
    main()
