"""Recover the U-Net that takes seven numbers of a mouth from an assembled avatar, so that it gets another audio branch.

    python -m training.avatar.split_unet --network network.safetensors --encoder audio_encoder.safetensors -o UNET

`training.avatar.assemble` merges the readout of the mouth into the layer that takes it, so that only their product is
in an avatar. The product has rank 7: its columns span what the seven numbers add. Which combination belongs to which
number is 56 values, found by drawing: with all other weights unchanged, the U-Net has to draw what the renderer draws.
They start from the mouths of timed speech. The same command again resumes. UNET/unet.safetensors has the best so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inference.audio.avatar_features import LAST_WINDOW
from inference.avatar.network import read_encoder, read_unet
from inference.models import AudioVisualEncoder, AvatarUNet
from training.avatar.identity_init import WIDEN, fusion_layers, generate, weight_of
from training.avatar.train_audio_encoder import N_SHAPES, UNET_WIDTHS, AvatarAudioNetwork
from training.avatar.train_unet import (
    AUDIO_BRANCH,
    PLACE_NOISE,
    SCORING_STREAM,
    PortraitCrops,
    add_masked,
    change_weights,
    compute_loss,
    draw_mouth,
    make_batch,
    make_shape_map,
    make_unet,
    sentence_mouths,
    write_unet,
)
from training.avatar.utterances import draw_utterances
from training.common.loop import (
    Progress,
    Training,
    learning_rate_at,
    minimise,
    prepare_run,
    round_rng,
    run_to_end,
    set_learning_rate,
)
from training.common.options import Option, parse_options


@dataclass(frozen=True)
class SplitRecipe:
    """Options of one run."""

    network: Annotated[Path, Option("network.safetensors of an assembled avatar")]
    encoder: Annotated[Path, Option("audio_encoder.safetensors of the same avatar")]
    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    look_ahead: Annotated[int, Option("windows that the avatar's frames look ahead")] = LAST_WINDOW
    n_utterances: Annotated[int, Option("utterances of espeak-ng to start from")] = 24
    n_scored: Annotated[int, Option("frames of sentences to score on")] = 12
    steps: Annotated[int, Option("training steps")] = 160
    round_steps: Annotated[int, Option("steps between checkpoints")] = 40
    batch: Annotated[int, Option("frames per step")] = 4
    peak_rate: Annotated[float, Option("highest learning rate")] = 0.05
    seed: Annotated[int, Option("random seed")] = 5
    threads: Annotated[int, Option("CPU threads")] = 2


class ShapeBasis(nn.Module):
    """What the seven numbers of a mouth add to the widened map: (512,) of (7,), within the span of seven columns.

    columns: (512, 7), orthonormal. mixing: (7, 7). offset: (7,), moved into the mean of the batch norm.
    """

    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)
        self.mixing = nn.Parameter(torch.eye(N_SHAPES))
        self.offset = nn.Parameter(torch.zeros(N_SHAPES))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of the seven numbers, (512, 7), and the constant part, (512,)."""
        return self.columns @ self.mixing, self.columns @ self.offset


def find_basis(unet: AvatarUNet) -> tuple[ShapeBasis, Tensor]:
    """Return the span of the mouth's numbers in an assembled U-Net, and the merged weights (512, 128)."""
    merged = weight_of(fusion_layers(unet)[WIDEN])[:, -UNET_WIDTHS[-1] :, 0, 0].detach().clone()
    left, _, _ = torch.linalg.svd(merged, full_matrices=False)
    return ShapeBasis(left[:, :N_SHAPES].contiguous()), merged


@torch.no_grad()
def split(unet: AvatarUNet, basis: ShapeBasis) -> AvatarUNet:
    """Return a U-Net that takes the mouth's numbers in place of its audio branch, which is a stub."""
    network = make_unet()
    own = {key: value for key, value in unet.state_dict().items() if not key.startswith(AUDIO_BRANCH)}
    network.load_state_dict({**network.state_dict(), **own})
    layers = fusion_layers(network)
    widen, (weights, constant) = weight_of(layers[WIDEN]), basis.weights()
    first = widen.shape[1] - UNET_WIDTHS[-1]
    widen[:, first:] = 0
    widen[:, first : first + N_SHAPES, 0, 0] = weights
    cast(Tensor, layers[WIDEN + 1].running_mean).sub_(constant)
    return network


class SplitTraining(Training):
    """The 56 values in training. best: negated error of what is drawn."""

    def __init__(self, recipe: SplitRecipe) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.unet = cast(AvatarUNet, read_unet(recipe.network).make_module()).eval().requires_grad_(requires_grad=False)
        self.basis, self.merged = find_basis(self.unet)
        self.inverse = torch.linalg.pinv(self.merged, rtol=1e-2)  # (128, 512), of rank 7
        self.fit_to_speech()
        self.crops = PortraitCrops()
        rng = np.random.default_rng((recipe.seed, SCORING_STREAM))
        self.scored = make_batch(self.crops, sentence_mouths(recipe.n_scored, recipe.seed), rng, exact=True)
        self.optimiser = torch.optim.Adam(self.basis.parameters(), lr=recipe.peak_rate)

    @torch.no_grad()
    def fit_to_speech(self) -> None:
        """Fit the values to the mouths of timed speech, as the avatar's own audio networks predict them."""
        network = AvatarAudioNetwork()
        network.encoder = cast(AudioVisualEncoder, read_encoder(self.recipe.encoder).make_module())
        network.branch = self.unet.audio_model
        network.shape = nn.Conv2d(UNET_WIDTHS[-1], N_SHAPES, 1)
        weight_of(network.shape)[:, :, 0, 0] = self.basis.columns.T @ self.merged
        cast(Tensor, network.shape.bias).zero_()
        network.eval()
        mouths, found = [], []
        for one in draw_utterances(self.recipe.n_utterances, self.recipe.seed):
            assert one.mouths is not None
            windows = one.windows(range(one.n_frames), self.recipe.look_ahead)
            found.append(network(torch.from_numpy(windows)[None])[0].mean((-2, -1)))
            mouths.append(torch.from_numpy(one.mouths))
        inputs = torch.cat([torch.cat(mouths), torch.ones(sum(map(len, mouths)), 1)], dim=1)
        solution = torch.linalg.lstsq(inputs, torch.cat(found)).solution  # (8, 7)
        self.basis.mixing.copy_(solution[:N_SHAPES].T)
        self.basis.offset.copy_(solution[N_SHAPES])

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)
        losses = [self.step(rng) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        return {"step": self.progress.n_steps, "loss": round(float(np.mean(losses)), 5), "off": self.keep_best()}

    def step(self, rng: np.random.Generator) -> float:
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        batch = make_batch(self.crops, [draw_mouth(rng) for _ in range(self.recipe.batch)], rng)
        output = self.draw(batch.rest, make_shape_map(batch.mouths, PLACE_NOISE))
        loss = compute_loss(output, batch.target, change_weights(batch.rest, batch.target))
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        return loss.item()

    def draw(self, rest: Tensor, shape_map: Tensor) -> Tensor:
        """Draw faces: (B, 3, 320, 320) of faces at rest and the mouth at each place (B, 128, 10, 10)."""
        weights, constant = self.basis.weights()
        audio_map = torch.einsum("cs,bshw->bchw", self.inverse @ weights, shape_map[:, :N_SHAPES])
        return generate(self.unet, add_masked(rest), audio_map + (self.inverse @ constant)[:, None, None])

    @torch.no_grad()
    def keep_best(self) -> float:
        """Score on sentences, in levels of 255 where the mouth changes; write the U-Net if it is the best yet."""
        errors = []
        for rest, target, mouth in zip(self.scored.rest, self.scored.target, self.scored.mouths, strict=True):
            error = (self.draw(rest[None], make_shape_map(mouth[None]))[0] - target).abs()
            changed = change_weights(rest[None], target[None])[0, 0] > 2
            errors.append(error[:, changed].mean() * 255 if changed.any() else error.mean() * 255)
        off = float(torch.stack(errors).mean())
        if self.is_best(-off):
            write_unet(split(self.unet, self.basis), self.run / "unet.safetensors")
        return round(off, 3)

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"basis": self.basis, "optimiser": self.optimiser}


def train(recipe: SplitRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    run_to_end(SplitTraining(recipe))


def main(arguments: Sequence[str] | None = None) -> None:
    """Recover the U-Net that the command line names."""
    train(parse_options(SplitRecipe, "training.avatar.split_unet", __doc__, arguments))


if __name__ == "__main__":
    main()
