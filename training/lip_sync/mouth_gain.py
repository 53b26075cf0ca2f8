"""Have the lips of a trained Wav2Lip move as far as it takes to be seen.

    python -m training.lip_sync.mouth_gain RUN/model.safetensors --talking PACKS [MORE_PACKS] -o model.safetensors

Sound tells only in part how far a mouth is open, and an audio encoder that is unsure tells a mean of what it may be:
lips move less than the true ones, and a viewer, or a landmarker, sees noise beside them. So its last layer is set to
differ from its own mean by a factor more, before its ReLU: so does the shape that it tells. Taken is the most of a few
with which drawn lips, as a landmarker sees them, go about as well with true ones as with any, on clips never trained
on, each to the voice of the next one. Nothing is learned here.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from inference.conversion.architectures import WAV2LIP, load_module
from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.models import Wav2Lip
from inference.settings import Settings
from training.lip_sync.evaluate import Moved, measure
from training.lip_sync.samples import Talking, prepare
from training.lip_sync.train import Recipe, split_clips, write_weights

GAINS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
SPARED = 0.02  # of the correlation is given up for lips that move further
FURTHEST = 1.25  # times as far as true lips is as far as drawn ones may move
SEEN_EVERY = 5  # frames of a clip of which the layer's mean is taken


@torch.no_grad()
def amplify(network: Wav2Lip, mean: Tensor, gain: float) -> None:
    """Have the audio encoder's last layer differ `gain` times as much from its mean (C,), before its ReLU."""
    norm = last_norm(network)
    norm.bias.copy_(norm.bias * gain + (1 - gain) * mean)
    norm.weight.mul_(gain)


@torch.no_grad()
def mean_heard(network: Wav2Lip, clips: Sequence[Talking]) -> Tensor:
    """(C,) of the audio encoder's last layer, before its ReLU, over the clips' sound."""
    heard: list[Tensor] = []
    hook = last_norm(network).register_forward_hook(lambda _module, _inputs, output: heard.append(output.mean((2, 3))))
    try:
        for clip in clips:
            mels = np.stack([clip.sound.window(i) for i in range(0, clip.n_frames, SEEN_EVERY)])
            network.audio_encoder(torch.from_numpy(mels[:, None]))
    finally:
        hook.remove()
    return torch.cat(heard).mean(0)


def last_norm(network: Wav2Lip) -> nn.BatchNorm2d:
    block = cast(nn.Sequential, network.audio_encoder[-1].conv_block)
    return cast(nn.BatchNorm2d, block[1])


def find_gain(network: Wav2Lip, clips: Sequence[Talking], landmarker: Landmarker) -> tuple[float, dict[float, Moved]]:
    """The most of GAINS with which drawn lips go about as well with true ones as with any; and what each gives.

    The network comes back with that gain; with none where it draws no faces, as after a handful of steps.
    """
    mean, unmoved = mean_heard(network, clips), copy.deepcopy(last_norm(network).state_dict())

    def set_to(gain: float) -> None:
        last_norm(network).load_state_dict(unmoved)
        amplify(network, mean, gain)

    tried: dict[float, Moved] = {}
    for gain in GAINS:
        set_to(gain)
        moved = measure(network, clips, landmarker)
        if moved is None or (tried and moved.reach > FURTHEST):
            break
        tried[gain] = moved
    enough = max((moved.correlation for moved in tried.values()), default=0.0) - SPARED
    best = max((gain for gain, moved in tried.items() if moved.correlation >= enough), default=1.0)
    set_to(best)
    return best, tried


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, write the weights, and print what each gain gave."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_sync.mouth_gain", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--talking", type=Path, nargs="+", required=True, help="the packs of the training")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args(words)
    set_gain(asked.weights, Recipe(tuple(asked.talking), asked.output.parent), asked.output)


def set_gain(weights: Path, recipe: Recipe, output: Path) -> None:
    """recipe: of the training, which tells the clips that it held out."""
    cv2.setNumThreads(1)
    network = cast(Wav2Lip, load_module(weights, WAV2LIP)[1])
    clips = [prepare(clip) for part in split_clips(recipe)[1].values() for clip in part]
    gain, tried = find_gain(network, clips, load_landmarker("mediapipe", Settings.from_env().weight_sources))
    for one, moved in tried.items():
        print(f"gain {one:.2f}: correlation {moved.correlation:.3f}, reach {moved.reach:.2f}", flush=True)
    write_weights(network, output)
    seen = f"gain {gain:.2f}" if tried else "no face in what it draws, no gain"
    print(f"{output}: {seen}", flush=True)


if __name__ == "__main__":
    main()
