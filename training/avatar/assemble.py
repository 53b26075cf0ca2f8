"""Put an ear in front of a painter: the two networks of an avatar.

    python -m training.avatar.assemble --ear EAR/ear.safetensors --painter RUN/painter.safetensors -o OUT

Writes OUT/network.safetensors and OUT/audio_encoder.safetensors (float16). Where the painter takes seven numbers of a
mouth, the avatar's U-Net takes the map of its audio branch, out of which the ear reads those numbers linearly: the two
steps become one, exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.audio.features import ROWS
from inference.models import AvatarUNet
from training.avatar.identity_init import WIDEN, joint_of, weight_of
from training.avatar.train_audio_encoder import EAR_WIDTHS, N_SHAPES, UNET_WIDTHS, Ear
from training.avatar.train_unet import BRANCH
from training.common.checkpoint import write_tensors


@dataclass(frozen=True)
class Recipe:
    """What is joined, and where it goes.

    The ear tells a mean of what the mouth may be doing, never quite open and never quite shut: the opening that is
    painted is `gain` times what it tells, less `shut`.
    """

    ear: Path
    painter: Path
    output: Path
    gain: float = 1.5
    shut: float = 0.2


@torch.no_grad()
def join(ear: Ear, painter: dict[str, Tensor], gain: float = 1.0, shut: float = 0.0) -> AvatarUNet:
    """The U-Net that paints what the ear reads out of its branch's map."""
    unet = AvatarUNet("ave", UNET_WIDTHS, EAR_WIDTHS[-1] // ROWS)
    branch = {BRANCH + key: value for key, value in ear.branch.state_dict().items()}
    unet.load_state_dict(painter | branch)
    gains = torch.ones(N_SHAPES)
    gains[0] = gain
    read_out = weight_of(ear.shape)[:, :, 0, 0] * gains[:, None]  # (7, 128)
    bias = cast(Tensor, ear.shape.bias) * gains
    bias[0] -= shut
    layers = joint_of(unet)
    widen, norm = weight_of(layers[WIDEN]), cast(nn.BatchNorm2d, layers[WIDEN + 1])
    own = widen.shape[1] - UNET_WIDTHS[-1]
    takes = widen[:, own : own + N_SHAPES, 0, 0].clone()  # (256, 7)
    widen[:, own:, 0, 0] = takes @ read_out
    cast(Tensor, norm.running_mean).sub_(takes @ bias)  # the convolution has no bias of its own
    return unet.eval()


def read_ear(path: Path) -> Ear:
    ear = Ear()
    ear.load_state_dict(load_file(path))
    return ear.eval()


def write_weights(network: nn.Module, path: Path) -> None:
    """The network's tensors as safetensors, float16 where they are not counts, replaced in one move."""
    tensors = {
        key: (value.half() if value.is_floating_point() else value).detach().contiguous()
        for key, value in network.state_dict().items()
    }
    write_tensors(tensors, path)


def write_avatar(recipe: Recipe) -> None:
    """Both networks."""
    ear = read_ear(recipe.ear)
    recipe.output.mkdir(parents=True, exist_ok=True)
    write_weights(join(ear, load_file(recipe.painter), recipe.gain, recipe.shut), recipe.output / "network.safetensors")
    write_weights(ear.encoder, recipe.output / "audio_encoder.safetensors")


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.avatar.assemble", description=__doc__.splitlines()[0])
    parser.add_argument("--ear", type=Path, required=True, help="of training.avatar.train_audio_encoder")
    parser.add_argument("--painter", type=Path, required=True, help="painter.safetensors of training.avatar.train_unet")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the two networks")
    parser.add_argument("--gain", type=float, default=Recipe.gain, help="of the mouth's opening over what is heard")
    parser.add_argument("--shut", type=float, default=Recipe.shut, help="taken off it")
    return Recipe(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    write_avatar(read_recipe())
