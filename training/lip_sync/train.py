"""Train a narrow Wav2Lip from packs of faces with speech.

    python -m training.lip_sync.train --packs PACKS [MORE_PACKS] -o RUN

Speech determines a mouth only partly, and a network that is trained to draw an uncertain mouth draws one that hardly
moves. So there are two stages. First the audio encoder learns to predict the shape of the mouth from speech, of the
clips and of espeak-ng's voices. Then the rest of the network learns to draw the mouth of a given shape, the true one,
from the upper half of another frame of the clip and a third frame whole, as inference provides one face for as long as
it fits. It is trained to be close to the true image, most of all in the mouth, in levels and in structure. The audio
encoder's last layer is between the two: it is not trained but computed, from the readout of the shape and from the way
shapes are encoded for the second stage.

Everything is counted in steps: the same seed, packs and threads give the same result. The same command again resumes
where it stopped. RUN/log.jsonl has a line per round, with scores of mouths on held-out faces as measured by a
landmarker; RUN/model.safetensors has the last weights (float16).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from inference.dimensions.wav2lip import Wav2LipWidths
from inference.faces.load import load_landmarker
from inference.faces.ssim import SIGMA, STABILISERS, WINDOW
from inference.lip_sync.preprocess import FACE_SIZE, MASKED_FROM
from inference.models import Wav2Lip
from inference.models.wav2lip import Conv2d
from inference.settings import Settings
from training.common.arrays import Floats
from training.common.checkpoint import write_half_precision
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
from training.lip_sync.audio_samples import N_SHAPES, AudioExample, draw_audio_batch, synthesise_examples
from training.lip_sync.evaluate import score_motion
from training.lip_sync.face_packs import FaceClip, load_packs
from training.lip_sync.samples import (
    FaceBatch,
    PreparedClip,
    add_mirrored,
    draw_batch,
    prepare_clip,
    prepare_stabilised,
)

Module = TypeVar("Module", bound=nn.Module)

WIDTHS = Wav2LipWidths(
    face_encoder=(8, 16, 32, 48, 64, 128, 128),
    audio_encoder=(16, 32, 64, 128, 256),
    face_decoder=(128, 128, 128, 96, 64, 48, 24),
    output=16,
)
N_FEATURES = WIDTHS.audio_encoder[-1]  # outputs of the audio encoder
LUMA = (0.114, 0.587, 0.299)  # weights of blue, green and red
LOWER_WEIGHT, MOUTH_WEIGHT = 2.0, 8.0  # weights of errors in the lower half and the mouth, against 1 in the upper half
MOUTH_MARGIN = 6.0  # px around the lips that count as the mouth
EDGE_WEIGHT = 0.5  # weight of errors of the differences between neighbours, in which blur shows
SSIM_WEIGHT = 0.3  # weight of the structural dissimilarity of mouths
MIRROR_WEIGHT = 0.5  # weight of differences from the mirrored face's output: lips came out open on one side
AUDIO_BATCHES = 5  # a step of the audio encoder takes this many batches, as it is much cheaper
MAX_KINK = 2.0  # deviations of a shape: range in which the numbers that encode it begin to rise
AUDIO_ENCODER, GENERATOR = "audio_encoder", "generator"
STAGES = (AUDIO_ENCODER, GENERATOR)


@dataclass(frozen=True)
class LipSyncRecipe:
    """Options of one run."""

    packs: Annotated[tuple[Path, ...], Option("folders of packs of faces with speech (.npz)")]
    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    audio_steps: Annotated[int, Option("training steps of the audio encoder")] = 3000
    steps: Annotated[int, Option("training steps of the rest of the network")] = 6000
    n_utterances: Annotated[
        int, Option("utterances of espeak-ng to add to the clips' audio; 0 if it is not installed")
    ] = 1600
    batch: Annotated[int, Option("samples per step, half of them mirrored")] = 24
    round_steps: Annotated[int, Option("steps between checkpoints")] = 400
    peak_rate: Annotated[float, Option("highest learning rate")] = 1.5e-3
    held_out: Annotated[float, Option("share of the clips of each folder never trained on")] = 0.06
    max_scored: Annotated[int, Option("held-out clips of each folder scored during training")] = 10
    n_clips: Annotated[int | None, Option("use only this many clips of each folder, for a trial")] = None
    seed: Annotated[int, Option("random seed")] = 5
    threads: Annotated[int, Option("CPU threads")] = 2
    precision: Annotated[str, Option("bf16 is faster on a CPU with AMX", choices=("bf16", "f32"))] = "bf16"


class AudioShapeEncoder(nn.Module):
    """The audio encoder without its last layer, and a linear readout of the mouth's standardised shape."""

    def __init__(self, encoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder[:-1]
        self.shape = nn.Linear(N_FEATURES, N_SHAPES)

    def forward(self, mels: Tensor) -> Tensor:
        """Predict shapes (B, 3) from mel windows (B, 1, 80, 16)."""
        shapes: Tensor = self.shape(self.encoder(mels).flatten(1))
        return shapes.float()


class ShapeEncoding(nn.Module):
    """A fixed encoding of a shape in the audio encoder's outputs.

    Each number is the ReLU of a random mixture of the shape, less a random offset.
    """

    mixture: Tensor  # (N_FEATURES, 3)
    kink: Tensor  # (N_FEATURES,)

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.register_buffer("mixture", torch.from_numpy(rng.normal(size=(N_FEATURES, N_SHAPES)).astype(np.float32)))
        kinks = rng.uniform(-MAX_KINK, MAX_KINK, N_FEATURES)
        self.register_buffer("kink", torch.from_numpy(kinks.astype(np.float32)))

    def forward(self, shapes: Tensor) -> Tensor:
        """Encode shapes (B, 3) as the audio encoder outputs them: (B, N_FEATURES, 1, 1)."""
        features: Tensor = torch.relu(shapes @ self.mixture.T - self.kink)[..., None, None]
        return features

    @torch.no_grad()
    def set_last_layer(self, encoder: nn.Sequential, readout: nn.Linear) -> None:
        """Set an encoder's last layer to encode the shape that is read out of the layer before it."""
        last = cast(Conv2d, encoder[-1]).conv_block
        conv, norm = cast(nn.Conv2d, last[0]), cast(nn.BatchNorm2d, last[1])
        conv.weight.copy_((self.mixture @ readout.weight)[..., None, None])
        cast(Tensor, conv.bias).copy_(self.mixture @ readout.bias - self.kink)
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.zero_()


@dataclass(frozen=True)
class ShapeScale:
    """Mean and standard deviation of shapes, px: (3,) each."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, clips: Sequence[PreparedClip]) -> ShapeScale:
        shapes = np.concatenate([clip.shapes for clip in clips])
        return cls(shapes.mean(0), shapes.std(0))

    def standardise(self, shapes: Floats) -> Floats:
        return np.asarray((shapes - self.mean) / self.deviation, np.float32)


@dataclass
class StagedProgress(Progress):
    """steps: taken in each stage."""

    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))


ClipsByFolder = dict[str, list[FaceClip]]


class LipSyncTraining(Training):
    """Wav2Lip in training: its audio encoder first, then the rest."""

    progress: StagedProgress

    def __init__(
        self, recipe: LipSyncRecipe, clips: Sequence[PreparedClip], held_out: dict[str, list[PreparedClip]]
    ) -> None:
        super().__init__(recipe.run, StagedProgress())
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        torch.manual_seed(recipe.seed)
        self.network = channels_last(Wav2Lip(WIDTHS))
        self.shape_encoder = AudioShapeEncoder(self.network.audio_encoder)
        self.shape_encoding = ShapeEncoding(recipe.seed)
        self.optimisers = {
            AUDIO_ENCODER: make_optimiser(self.shape_encoder),
            GENERATOR: make_optimiser(*generator_parts(self.network)),
        }
        self.budgets = dict(zip(STAGES, (recipe.audio_steps, recipe.steps), strict=True))
        self.scale = ShapeScale.of(clips)
        self.examples = [make_examples(clips, self.scale)]
        if recipe.n_utterances:
            self.examples.append(synthesise_examples(recipe.n_utterances, recipe.seed))
        self.landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)

    def part_done(self) -> float:
        done = sum(min(self.progress.steps[name], budget) for name, budget in self.budgets.items())
        return done / sum(self.budgets.values())

    def stage(self) -> tuple[str, float]:
        """Return the current stage, and the share of it that is over."""
        for name, budget in self.budgets.items():
            if self.progress.steps[name] < budget:
                return name, self.progress.steps[name] / budget
        return STAGES[-1], 1.0

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or to the end of a stage. In the second stage, write the weights and score them."""
        stage, _ = self.stage()
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        n_left = self.budgets[stage] - self.progress.steps[stage]
        losses = [self.step(stage, rng) for _ in range(min(self.recipe.round_steps, n_left))]
        self.progress.n_rounds += 1
        scores = self.write_and_score() if stage == GENERATOR else {}
        loss = round(float(np.mean(losses)), 5)
        return {"stage": stage, "steps": self.progress.steps[stage], "loss": loss, **scores}

    def step(self, stage: str, rng: np.random.Generator) -> float:
        if stage == AUDIO_ENCODER:
            loss = self.audio_loss(rng)
        else:
            batch = draw_batch(self.clips, self.recipe.batch // 2, rng)
            loss = self.generator_loss(add_mirrored(batch))
        set_learning_rate(self.optimisers[stage], self.recipe.peak_rate * learning_rate_at(self.stage()[1]))
        minimise(self.optimisers[stage], loss)
        self.progress.steps[stage] += 1
        self.progress.n_steps += 1
        return loss.item()

    def autocast(self) -> torch.autocast:
        return mixed_precision() if self.recipe.precision == "bf16" else torch.autocast("cpu", enabled=False)

    def audio_loss(self, rng: np.random.Generator) -> Tensor:
        self.shape_encoder.train()
        mels, targets, known = draw_audio_batch(self.examples, self.recipe.batch * AUDIO_BATCHES, rng)
        with self.autocast():
            shapes = self.shape_encoder(mels.contiguous(memory_format=torch.channels_last))
        errors = functional.smooth_l1_loss(shapes, targets, beta=0.5, reduction="none")
        return (errors * known).sum() / known.sum()

    def generator_loss(self, batch: FaceBatch) -> Tensor:
        self.network.train()
        weights = error_weights(batch.lips)
        features = self.shape_encoding(torch.from_numpy(self.scale.standardise(batch.shapes.numpy())))
        with self.autocast():
            faces = batch.faces.contiguous(memory_format=torch.channels_last)
            output = self.network.draw(features, faces).float()
        pixels = (weights * (output - batch.targets).abs()).mean()
        loss: Tensor = pixels + EDGE_WEIGHT * edge_error(output, batch.targets, weights)
        loss = loss + SSIM_WEIGHT * (1 - structural_similarity(output, batch.targets, weights == MOUTH_WEIGHT))
        return loss + MIRROR_WEIGHT * mirror_error(output, weights)

    def write_and_score(self) -> dict[str, dict[str, float]]:
        """Write the network as it would be used now; return its scores on the held-out clips of each folder."""
        self.shape_encoding.set_last_layer(self.network.audio_encoder, self.shape_encoder.shape)
        self.network.eval()
        write_half_precision(self.network, self.run / "model.safetensors")
        return {name: self.score(clips) for name, clips in self.held_out.items()}

    def score(self, clips: Sequence[PreparedClip]) -> dict[str, float]:
        """Return the fields of the motion score; empty if the network generates no faces yet."""
        score = score_motion(self.network, clips, self.landmarker)
        return {} if score is None else {name: round(value, 4) for name, value in vars(score).items()}

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        optimisers = {f"{name} optimiser": optimiser for name, optimiser in self.optimisers.items()}
        return {"network": self.network, "shape_encoder": self.shape_encoder, **optimisers}


def generator_parts(network: Wav2Lip) -> list[nn.Module]:
    """Return all parts of the network except its audio encoder."""
    return [part for name, part in network.named_children() if name != "audio_encoder"]


def make_examples(clips: Sequence[PreparedClip], scale: ShapeScale) -> list[AudioExample]:
    """Return the audio of the clips, with the shapes of their mouths."""
    known = np.ones(N_SHAPES, np.float32)
    return [AudioExample(clip.audio, scale.standardise(clip.shapes), known, clip.rest_frames) for clip in clips]


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


def split_clips(recipe: LipSyncRecipe) -> tuple[list[FaceClip], ClipsByFolder]:
    """Return the clips to train on and the held-out clips of each folder.

    The split depends on the names only, so that it stays the same if packs are added.
    """
    trained: list[FaceClip] = []
    held_out: ClipsByFolder = {}
    for folder in recipe.packs:
        clips = load_packs(folder)
        clips = sorted(clips, key=lambda clip: zlib.crc32(f"{recipe.seed} {clip.name}".encode()))[: recipe.n_clips]
        unseen = [clip for clip in clips if is_held_out(clip.name, recipe)] or clips[:1]
        held_out[str(folder)] = unseen[: recipe.max_scored]
        names = {clip.name for clip in unseen}
        trained += [clip for clip in clips if clip.name not in names]
    return trained, held_out


def is_held_out(name: str, recipe: LipSyncRecipe) -> bool:
    return zlib.crc32(f"{recipe.seed} {name}".encode()) / 2**32 < recipe.held_out


def train(recipe: LipSyncRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    trained, held_out = split_clips(recipe)
    unseen = {name: [prepare_clip(clip) for clip in clips] for name, clips in held_out.items()}
    run_to_end(LipSyncTraining(recipe, [prepare_stabilised(clip) for clip in trained], unseen))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(LipSyncRecipe, "training.lip_sync.train", __doc__, arguments))


if __name__ == "__main__":
    main()
