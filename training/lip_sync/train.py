"""Train the drawing half of a narrow Wav2Lip from packs of faces with speech.

    python -m training.lip_sync.train --packs PACKS [MORE_PACKS] --encoder AUDIO/encoder.safetensors -o RUN

Speech determines a mouth only partly, and a network that is trained to draw an uncertain mouth draws one that hardly
moves. So each half is trained alone. `training.lip_sync.train_audio` trains the first, an encoder that predicts the
shape of the mouth from speech. The second learns here to draw the mouth of a given shape, the true one, from the upper
half of another frame of the clip and a third frame whole, as inference provides one face for as long as it fits. It is
trained to be close to the true image, most of all in the mouth, in levels and in structure, and to have the same lips.
The audio encoder's last layer is between the two: it is not trained but computed, as
`training.lip_sync.shape_encoding` explains.

Everything is counted in steps: the same seed, packs and threads give the same result. The same command again resumes
where it stopped. RUN/log.jsonl has a line per round, with scores of mouths on held-out faces as measured by a
landmarker; RUN/model.safetensors has the last weights of both halves (float16).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from inference.faces.load import load_landmarker
from inference.faces.ssim import SIGMA, STABILISERS, WINDOW
from inference.lip_sync.preprocess import FACE_SIZE, MASKED_FROM
from inference.models import Wav2Lip
from inference.settings import Settings
from inference.weights.checkpoint import load_into, read_tensors
from training.common.checkpoint import write_half_precision, write_tensors
from training.common.face_packs import FaceClip, load_packs
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
from training.common.mixed_precision import mixed_precision
from training.common.options import Option, parse_options
from training.lip_sync.drawn_clips import draw_clips
from training.lip_sync.evaluate import score_motion
from training.lip_sync.lip_regressor import LipRegressor, change_gap, point_error, train_lip_regressor
from training.lip_sync.samples import (
    FaceBatch,
    PreparedClip,
    add_mirrored,
    draw_batch,
    own_shapes,
    prepare_clip,
    prepare_stabilised,
)
from training.lip_sync.shape_encoding import OpeningMap, ShapeEncoding, set_audio_half, spread
from training.lip_sync.train_audio import read_encoder
from training.lip_sync.widths import WIDTHS

Module = TypeVar("Module", bound=nn.Module)

LUMA = (0.114, 0.587, 0.299)  # weights of blue, green and red
LOWER_WEIGHT, MOUTH_WEIGHT = 2.0, 8.0  # weights of errors in the lower half and the mouth, against 1 in the upper half
MOUTH_MARGIN = 6.0  # px around the lips that count as the mouth
EDGE_WEIGHT = 0.5  # weight of errors of the differences between neighbours, in which blur shows
SSIM_WEIGHT = 0.3  # weight of the structural dissimilarity of mouths
LIP_FACES = 48  # faces per step of that network's training
MIRROR_WEIGHT = 0.5  # weight of differences from the mirrored face's output: lips came out open on one side


ClipsByFolder = dict[str, list[FaceClip]]


@dataclass(frozen=True)
class LipSyncRecipe:
    """Options of one run."""

    packs: Annotated[tuple[Path, ...], Option("folders of packs of faces with speech (.npz)")]
    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    encoder: Annotated[Path, Option("weights of the audio half: encoder.safetensors")]
    start: Annotated[Path | None, Option("weights of a Wav2Lip of the same widths and seed to start from")] = None
    steps: Annotated[int, Option("training steps")] = 6000
    batch: Annotated[int, Option("samples per step, half of them mirrored")] = 24
    lip_steps: Annotated[int, Option("steps of the network that finds lips, trained first")] = 1500
    lips_weight: Annotated[float, Option("weight of errors of the lips it finds, px")] = 0.05
    round_steps: Annotated[int, Option("steps between checkpoints")] = 400
    peak_rate: Annotated[float, Option("highest learning rate")] = 1.5e-3
    held_out: Annotated[float, Option("share of the clips of each folder never trained on")] = 0.06
    max_scored: Annotated[int, Option("held-out clips of each folder scored during training")] = 10
    n_clips: Annotated[int | None, Option("use only this many clips of each folder, for a trial")] = None
    seed: Annotated[int, Option("random seed")] = 5
    threads: Annotated[int, Option("CPU threads")] = 2
    precision: Annotated[str, Option("bf16 is faster on a CPU with AMX", choices=("bf16", "f32"))] = "bf16"


class LipSyncTraining(Training):
    """Wav2Lip with a trained audio half, in training of the other."""

    def __init__(
        self, recipe: LipSyncRecipe, clips: Sequence[PreparedClip], held_out: dict[str, list[PreparedClip]]
    ) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        torch.manual_seed(recipe.seed)
        self.network = channels_last(make_network(recipe.start))
        self.shape_encoding = ShapeEncoding(recipe.seed)
        self.optimiser = make_optimiser(*generator_parts(self.network))
        set_audio_half(self.network, read_encoder(recipe.encoder), self.shape_encoding, OpeningMap())
        self.landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
        self.lip_regressor = self.prepare_lip_regressor()

    def prepare_lip_regressor(self) -> LipRegressor:
        """Return the network that finds lips, trained, or as a run that is resumed has it.

        If the network draws already, it learns from drawn faces as well.
        """
        path = self.run / "lips.safetensors"
        if path.exists():
            regressor = LipRegressor()
            regressor.load_state_dict(read_tensors(path))
            return regressor.eval().requires_grad_(False)
        clips = list(self.clips)
        if self.recipe.start is not None:
            drawn = draw_clips(self.network, self.shape_encoding, clips, self.landmarker, self.recipe.seed)
            clips = even_out([clips, drawn])
        regressor = train_lip_regressor(clips, self.recipe.lip_steps, LIP_FACES, self.recipe.seed)
        write_tensors(dict(regressor.state_dict()), path)
        return regressor

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or for as many as are left; write the weights and score them."""
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)
        losses = [self.step(rng) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        loss = round(float(np.mean(losses)), 5)
        return {"steps": self.progress.n_steps, "loss": loss, **self.write_and_score()}

    def step(self, rng: np.random.Generator) -> float:
        loss = self.generator_loss(add_mirrored(draw_batch(self.clips, self.recipe.batch // 2, rng)))
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        return loss.item()

    def autocast(self) -> torch.autocast:
        return mixed_precision() if self.recipe.precision == "bf16" else torch.autocast("cpu", enabled=False)

    def generator_loss(self, batch: FaceBatch) -> Tensor:
        self.network.train()
        self.network.audio_encoder.eval()  # its statistics stay those of its own training
        weights = error_weights(batch.lips)
        features = self.shape_encoding(spread(batch.shapes))
        with self.autocast():
            faces = batch.faces.contiguous(memory_format=torch.channels_last)
            output = self.network.draw(features, faces).float()
        pixels = (weights * (output - batch.targets).abs()).mean()
        loss: Tensor = pixels + EDGE_WEIGHT * edge_error(output, batch.targets, weights)
        lips = change_gap(self.lip_regressor(batch.targets), batch.gap_changes)
        loss = loss + self.recipe.lips_weight * point_error(self.lip_regressor(output), lips)
        loss = loss + SSIM_WEIGHT * (1 - structural_similarity(output, batch.targets, weights == MOUTH_WEIGHT))
        return loss + MIRROR_WEIGHT * mirror_error(output, weights)

    def write_and_score(self) -> dict[str, dict[str, float]]:
        """Write the network as it would be used now; return its scores on the held-out clips of each folder."""
        self.network.eval()
        write_half_precision(self.network, self.run / "model.safetensors")
        return {name: self.score(clips) for name, clips in self.held_out.items()}

    def score(self, clips: Sequence[PreparedClip]) -> dict[str, float]:
        """Return the fields of the motion score; empty if the network generates no faces yet."""
        score = score_motion(self.network, clips, self.landmarker)
        return {} if score is None else {name: round(value, 4) for name, value in vars(score).items()}

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"network": self.network, "optimiser": self.optimiser}


def make_network(start: Path | None) -> Wav2Lip:
    """Return a network of the narrow widths. start: weights to begin with."""
    network = Wav2Lip(WIDTHS)
    if start is not None:
        load_into(network, start)
    return network


def generator_parts(network: Wav2Lip) -> list[nn.Module]:
    """Return all parts of the network except its audio encoder."""
    return [part for name, part in network.named_children() if name != "audio_encoder"]


def channels_last(module: Module) -> Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_optimiser(*modules: nn.Module) -> torch.optim.AdamW:
    weights = [weight for module in modules for weight in module.parameters()]
    return torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)


def to_grey(images: Tensor) -> Tensor:
    """Convert BGR (B, 3, H, W) to grey (B, 1, H, W)."""
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def mirror_error(output: Tensor, weights: Tensor) -> Tensor:
    """Return the error of a batch's second half, which must be the mirror image of the first."""
    first, second = output.chunk(2)
    error: Tensor = (weights.chunk(2)[0] * (first - second.flip(3)).abs()).mean()
    return error


def error_weights(lips: Tensor) -> Tensor:
    """Return the weight of the error at each pixel: (B, 1, 96, 96) of (B, 20, 2)."""
    low, high = lips.amin(1) - MOUTH_MARGIN, lips.amax(1) + MOUTH_MARGIN
    positions = torch.arange(FACE_SIZE)
    in_columns = (positions >= low[:, :1]) & (positions <= high[:, :1])
    in_rows = (positions >= low[:, 1:]) & (positions <= high[:, 1:])
    mouth = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].float()
    lower = (positions >= MASKED_FROM).float()[None, None, :, None]
    return 1 + (LOWER_WEIGHT - 1) * lower + (MOUTH_WEIGHT - LOWER_WEIGHT) * mouth


def structural_similarity(output: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Return the mean SSIM of two images (B, 3, 96, 96) in grey, over the pixels of a mask (B, 1, 96, 96).

    As `inference.faces.ssim`, for levels 0..1.
    """
    one, other = to_grey(output), to_grey(target)
    mean_one, mean_other = blur(one), blur(other)
    var_one, var_other = blur(one * one) - mean_one.square(), blur(other * other) - mean_other.square()
    covariance = blur(one * other) - mean_one * mean_other
    light_term, structure_term = (constant / 255**2 for constant in STABILISERS)
    light = (2 * mean_one * mean_other + light_term) / (mean_one.square() + mean_other.square() + light_term)
    structure = (2 * covariance + structure_term) / (var_one + var_other + structure_term)
    counted = counted[..., WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]
    similarity: Tensor = (light * structure)[counted].mean()
    return similarity


def blur(images: Tensor) -> Tensor:
    """Blur (B, 1, H, W) with a Gaussian, without the borders that it does not cover fully."""
    kernel = torch.from_numpy(cv2.getGaussianKernel(WINDOW, SIGMA)).float().flatten()
    across = functional.conv2d(images, kernel.view(1, 1, 1, WINDOW))
    return functional.conv2d(across, kernel.view(1, 1, WINDOW, 1))


def edge_error(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    across = (output.diff(dim=3) - target.diff(dim=3)).abs() * weights[..., 1:]
    down = (output.diff(dim=2) - target.diff(dim=2)).abs() * weights[..., 1:, :]
    return across.mean() + down.mean()


def split_clips(recipe: LipSyncRecipe) -> tuple[ClipsByFolder, ClipsByFolder]:
    """Return the clips to train on and the held-out clips, of each folder.

    The split depends on the names only, so that it stays the same if packs are added.
    """
    trained: ClipsByFolder = {}
    held_out: ClipsByFolder = {}
    for folder in recipe.packs:
        clips = load_packs(folder)
        clips = sorted(clips, key=lambda clip: zlib.crc32(f"{recipe.seed} {clip.name}".encode()))[: recipe.n_clips]
        unseen = [clip for clip in clips if is_held_out(clip.name, recipe)] or clips[:1]
        held_out[str(folder)] = unseen[: recipe.max_scored]
        names = {clip.name for clip in unseen}
        trained[str(folder)] = [clip for clip in clips if clip.name not in names]
    return trained, held_out


def even_out(folders: Sequence[Sequence[PreparedClip]]) -> list[PreparedClip]:
    """Return the clips of all folders, repeated until each folder has about as many as the largest.

    One speaker with many clips would else outweigh all other people.
    """
    most = max(map(len, folders), default=0)
    return [clip for clips in folders if clips for _ in range(round(most / len(clips))) for clip in clips]


def is_held_out(name: str, recipe: LipSyncRecipe) -> bool:
    return zlib.crc32(f"{recipe.seed} {name}".encode()) / 2**32 < recipe.held_out


def train(recipe: LipSyncRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    trained, held_out = split_clips(recipe)
    shapes = own_shapes(clip for part in (*trained.values(), *held_out.values()) for clip in part)
    unseen = {name: [prepare_clip(clip, shapes[clip.name]) for clip in clips] for name, clips in held_out.items()}
    prepared = [[prepare_stabilised(clip, shapes[clip.name]) for clip in clips] for clips in trained.values()]
    run_to_end(LipSyncTraining(recipe, even_out(prepared), unseen))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(LipSyncRecipe, "training.lip_sync.train", __doc__, arguments))


if __name__ == "__main__":
    main()
