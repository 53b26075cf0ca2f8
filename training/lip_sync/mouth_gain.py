"""Amplify the lip motion of a trained Wav2Lip to about that of true lips.

    python -m training.lip_sync.mouth_gain RUN/model.safetensors --packs PACKS [MORE_PACKS] -o model.safetensors

Speech determines only partly how far a mouth is open, and an uncertain audio encoder predicts a mean: the lips move
less than true ones, and noise is visible beside their motion. So the encoder's last layer is scaled to differ more from
its mean, by a factor, before its ReLU; this scales the predicted shape alike. Of a few factors it is the largest with
which generated lips, as measured by a landmarker, correlate with the true ones about as well as with any. They are
measured on held-out clips, each with the speech of another one. Nothing is trained here.
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

from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.models import Wav2Lip
from inference.settings import Settings
from inference.weights.architectures import WAV2LIP, load_module
from training.common.checkpoint import write_half_precision
from training.lip_sync.evaluate import MotionScore, score_motion
from training.lip_sync.samples import PreparedClip, prepare_clip
from training.lip_sync.train import LipSyncRecipe, split_clips

GAINS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
MAX_LOSS = 0.02  # correlation that may be lost for a larger motion
MAX_AMPLITUDE = 1.25  # motion of generated lips over that of true ones
FRAME_STEP = 5  # the layer's mean is taken over every fifth frame


@torch.no_grad()
def amplify(network: Wav2Lip, mean: Tensor, gain: float) -> None:
    """Scale how far the audio encoder's last layer differs from its mean (C,), before its ReLU."""
    norm = last_norm(network)
    norm.bias.copy_(norm.bias * gain + (1 - gain) * mean)
    norm.weight.mul_(gain)


@torch.no_grad()
def mean_audio_features(network: Wav2Lip, clips: Sequence[PreparedClip]) -> Tensor:
    """Return the mean (C,) of the audio encoder's last layer over the clips, before its ReLU."""
    features: list[Tensor] = []
    hook = last_norm(network).register_forward_hook(
        lambda _module, _inputs, output: features.append(output.mean((2, 3)))
    )
    try:
        for clip in clips:
            mels = np.stack([clip.audio.window(i) for i in range(0, clip.n_frames, FRAME_STEP)])
            network.audio_encoder(torch.from_numpy(mels[:, None]))
    finally:
        hook.remove()
    return torch.cat(features).mean(0)


def last_norm(network: Wav2Lip) -> nn.BatchNorm2d:
    block = cast(nn.Sequential, network.audio_encoder[-1].conv_block)
    return cast(nn.BatchNorm2d, block[1])


def find_gain(
    network: Wav2Lip, clips: Sequence[PreparedClip], landmarker: Landmarker
) -> tuple[float, dict[float, MotionScore]]:
    """Find the largest of GAINS that costs little correlation, and apply it to the network.

    It is 1 if the network generates no faces, as after a few steps.
    Returns: the gain, and the score of each gain tried.
    """
    mean, original = mean_audio_features(network, clips), copy.deepcopy(last_norm(network).state_dict())

    def apply(gain: float) -> None:
        last_norm(network).load_state_dict(original)
        amplify(network, mean, gain)

    scores: dict[float, MotionScore] = {}
    for gain in GAINS:
        apply(gain)
        score = score_motion(network, clips, landmarker)
        if score is None or (scores and score.amplitude > MAX_AMPLITUDE):
            break
        scores[gain] = score
    least = max((score.correlation for score in scores.values()), default=0.0) - MAX_LOSS
    best = max((gain for gain, score in scores.items() if score.correlation >= least), default=1.0)
    apply(best)
    return best, scores


def write_amplified(weights: Path, recipe: LipSyncRecipe, output: Path) -> None:
    """Amplify a checkpoint, write it, and print the score of each gain. recipe: determines the held-out clips."""
    cv2.setNumThreads(1)
    network = cast(Wav2Lip, load_module(weights, WAV2LIP)[1])
    clips = [prepare_clip(clip) for part in split_clips(recipe)[1].values() for clip in part]
    gain, scores = find_gain(network, clips, load_landmarker("mediapipe", Settings.from_env().weight_sources))
    for one, score in scores.items():
        print(f"gain {one:.2f}: correlation {score.correlation:.3f}, amplitude {score.amplitude:.2f}", flush=True)
    write_half_precision(network, output)
    result = f"gain {gain:.2f}" if scores else "no gain, as the generated images show no face"
    print(f"{output}: {result}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the amplified weights that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_sync.mouth_gain", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="model.safetensors of training.lip_sync.train")
    parser.add_argument("--packs", type=Path, nargs="+", required=True, help="the packs it was trained on")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the amplified weights")
    args = parser.parse_args(arguments)
    write_amplified(args.weights, LipSyncRecipe(tuple(args.packs), args.output.parent), args.output)


if __name__ == "__main__":
    main()
