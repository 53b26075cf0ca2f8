"""Train an avatar's audio networks, the mel encoder and the U-Net's audio branch, to predict the mouth from speech.

    python -m training.avatar.train_audio_encoder -o AUDIO
    python -m training.avatar.train_audio_encoder -o AUDIO --clips GRID/talking --mouths GRID/mouths

Voices are those of espeak-ng, with exact times of their phonemes; with --clips, real ones too (GRID: folder of the GRID
clips), of which the gap between the lips was measured. The same command again resumes where it stopped. AUDIO/log.jsonl
has a line per round; AUDIO/audio_network.safetensors has the best weights so far, on voices that are never trained on.
Each place of the branch's map has to predict the whole mouth, so that the U-Net has it wherever it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from inference.audio.avatar_features import FEATURE_ROWS
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.rendering.mouth_shape import MouthShape
from training.avatar.real_clips import load_real_utterances
from training.avatar.utterances import LabelledUtterance, draw_utterances
from training.common.checkpoint import write_tensors
from training.common.correlation import correlate
from training.common.loop import (
    Progress,
    Training,
    learning_rate_at,
    minimise,
    prepare_run,
    round_rng,
    run_to_end,
    set_learning_rate,
    update_average,
)
from training.common.mixed_precision import mixed_precision
from training.common.options import Option, parse_options

UNET_WIDTHS = (8, 16, 32, 64, 128)
ENCODER_WIDTHS = (16, 32, 64, 128, 256)
N_SHAPES = len(MouthShape.__dataclass_fields__)  # numbers of a mouth
# Weight of an error in each number of the shape, by how visible it is: open, wide, round, press, tuck, teeth, tongue.
SHAPE_WEIGHTS = (3.0, 1.0, 1.5, 2.0, 1.0, 1.0, 0.5)
SMOOTH_L1_BETA = 0.15  # smaller errors count by their square
GAP_WEIGHT = 3.0
PIECE_FRAMES = 32
STEP = 2  # every other frame of a piece is predicted: neighbours have nearly the same audio
INNER_PLACES = (slice(1, 9), slice(1, 9))  # of the 10 x 10: the places that must predict the mouth


@dataclass(frozen=True)
class AudioEncoderRecipe:
    """Options of one run."""

    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    clips: Annotated[Path | None, Option("folder of real video clips with audio, SPEAKER_NAME.mp4")] = None
    mouths: Annotated[Path | None, Option("folder of packs of their mouths (.npz)")] = None
    n_utterances: Annotated[int, Option("utterances of espeak-ng")] = 1600
    n_held_out: Annotated[int, Option("utterances of each kind kept for scoring")] = 60
    steps: Annotated[int, Option("training steps")] = 600
    round_steps: Annotated[int, Option("steps between checkpoints")] = 60
    batch: Annotated[int, Option("pieces of 32 frames per step")] = 8
    peak_rate: Annotated[float, Option("highest learning rate")] = 2e-3
    averaging: Annotated[float, Option("decay of the moving average of the weights, per step")] = 0.99
    seed: Annotated[int, Option("random seed")] = 11
    threads: Annotated[int, Option("CPU threads")] = 2


class AvatarAudioNetwork(nn.Module):
    """The parts of an avatar's two networks that process audio, and a linear readout of the mouth from their map.

    shape: predicts a mouth at each place of the map.
    """

    def __init__(self) -> None:
        super().__init__()
        n_channels = ENCODER_WIDTHS[-1] // FEATURE_ROWS
        self.encoder = AudioVisualEncoder(ENCODER_WIDTHS)
        self.branch = AvatarUNet("ave", UNET_WIDTHS, n_channels).audio_model
        self.shape = nn.Conv2d(UNET_WIDTHS[-1], N_SHAPES, 1)

    def forward(self, mels: Tensor, step: int = 1) -> Tensor:
        """Predict mouths (B, T, 7, 10, 10) at each place, for every `step`-th frame of windows (B, T + 15, 80, 16)."""
        features = self.encode(mels)[:, ::step]
        out: Tensor = self.shape(self.branch(features.flatten(0, 1).contiguous(memory_format=torch.channels_last)))
        return out.float().reshape(*features.shape[:2], *out.shape[1:])

    def encode(self, mels: Tensor) -> Tensor:
        """Return the input of each frame's audio branch: (B, T, 16, 16, 16)."""
        windows = mels.flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        rows: Tensor = self.encoder(windows).reshape(*mels.shape[:2], -1)  # (B, T + 15, 256)
        stacks = rows.unfold(1, FEATURE_ROWS, 1).transpose(2, 3)  # (B, T, 16, 256)
        return stacks.reshape(*stacks.shape[:2], rows.shape[2] // FEATURE_ROWS, FEATURE_ROWS, FEATURE_ROWS)


def mean_mouth(places: Tensor) -> Tensor:
    """Average the mouths of the inner places: (..., 7) of (..., 7, 10, 10), not below 0."""
    return places[..., INNER_PLACES[0], INNER_PLACES[1]].mean((-2, -1)).clamp_min(0)


def differentiable_gap(mouths: Tensor) -> Tensor:
    """Return the gap between the lips as `training.common.lips.shape_gap`, with a finite gradient at 0: of (..., 7)."""
    is_open, _, _, press, _, teeth, tongue = mouths.clamp_min(0).unbind(-1)
    gap = (is_open**4 + (0.34 * teeth) ** 4 + (0.5 * tongue) ** 4 + 1e-6) ** 0.25
    return gap * (1 - press.clamp_max(1))


@dataclass(frozen=True)
class UtteranceBatch:
    """Pieces of utterances: T frames, of which every other one is predicted."""

    mels: Tensor  # (B, T + 15, 80, 16)
    mouths: Tensor  # (B, T / 2, 7); zeros for real voices
    gaps: Tensor  # (B, T / 2)
    has_mouths: Tensor  # (B,) float: 0 for real voices


def draw_batch(utterances: Sequence[LabelledUtterance], rng: np.random.Generator, n_pieces: int) -> UtteranceBatch:
    pieces: list[tuple[npt.NDArray[np.generic], ...]] = []
    while len(pieces) < n_pieces:
        one = utterances[int(rng.integers(len(utterances)))]
        if one.n_frames < PIECE_FRAMES:
            continue
        start = int(rng.integers(one.n_frames - PIECE_FRAMES + 1))
        frames = slice(start, start + PIECE_FRAMES)
        mouths = np.zeros((PIECE_FRAMES, N_SHAPES), np.float32) if one.mouths is None else one.mouths[frames]
        has_mouths = np.float32(one.mouths is not None)
        mels = one.mels[start : start + PIECE_FRAMES + FEATURE_ROWS - 1]
        pieces.append((mels, mouths[::STEP], one.gaps[frames][::STEP], np.array(has_mouths)))
    return UtteranceBatch(
        *(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*pieces, strict=True))
    )


def compute_loss(places: Tensor, batch: UtteranceBatch) -> Tensor:
    """Compute the loss of (B, T, 7, 10, 10): the error at each place, and that of the gap between the lips."""
    inner = places[..., INNER_PLACES[0], INNER_PLACES[1]].flatten(-2)  # (B, T, 7, places)
    targets = batch.mouths[..., None].expand_as(inner)
    errors = functional.smooth_l1_loss(inner, targets, reduction="none", beta=SMOOTH_L1_BETA)
    shape_loss = (errors.mean(-1) * torch.tensor(SHAPE_WEIGHTS)).sum(-1).mean(1) * batch.has_mouths
    gaps = differentiable_gap(inner.mean(-1))
    gap_loss = functional.smooth_l1_loss(gaps, batch.gaps, reduction="none", beta=SMOOTH_L1_BETA).mean(1)
    return (shape_loss + GAP_WEIGHT * gap_loss).mean()


class AudioEncoderTraining(Training):
    """An AvatarAudioNetwork and the moving average of its weights, in training. best: mean correlation of the gap."""

    def __init__(
        self,
        recipe: AudioEncoderRecipe,
        utterances: Sequence[LabelledUtterance],
        held_out: dict[str, list[LabelledUtterance]],
    ) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe, self.utterances, self.held_out = recipe, utterances, held_out
        torch.manual_seed(recipe.seed)
        self.network, self.average = (
            AvatarAudioNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for _ in range(2)
        )
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.peak_rate, weight_decay=0.01)

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or for as many as are left, and score."""
        self.network.train()
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)
        losses = [self.step(draw_batch(self.utterances, rng, self.recipe.batch)) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        return {"step": self.progress.n_steps, "loss": round(float(np.mean(losses)), 4), **self.keep_best()}

    def step(self, batch: UtteranceBatch) -> float:
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        with mixed_precision():
            places = self.network(batch.mels, STEP)
        loss = compute_loss(places, batch)
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        update_average(self.average, self.network, self.recipe.averaging, self.progress.n_steps)
        copy_buffers(self.average, self.network)
        return loss.item()

    def keep_best(self) -> dict[str, float]:
        """Score the average on each kind of held-out voices; write the weights if the mean is the best yet."""
        scores = {name: score(self.average, utterances) for name, utterances in self.held_out.items() if utterances}
        if self.is_best(float(np.mean(list(scores.values())))):
            tensors = {name: value.contiguous() for name, value in self.average.state_dict().items()}
            write_tensors(tensors, self.run / "audio_network.safetensors")
        return {name: round(value, 4) for name, value in scores.items()}

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}


@torch.no_grad()
def copy_buffers(average: nn.Module, network: nn.Module) -> None:
    """Copy the statistics of batch norms to the average: they are moving averages already."""
    for own, other in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(other)


@torch.no_grad()
def predict(network: AvatarAudioNetwork, utterance: LabelledUtterance) -> npt.NDArray[np.float32]:
    """Predict the mouth of each frame of an utterance: (T, 7) float32."""
    mels = torch.from_numpy(utterance.mels.astype(np.float32))[None]
    return np.asarray(mean_mouth(network(mels))[0].numpy(), np.float32)


def score(network: AvatarAudioNetwork, utterances: Sequence[LabelledUtterance]) -> float:
    """Return the correlation of the predicted gap with the true one, averaged over utterances; silence is left out."""
    network.eval()
    found = []
    for utterance in utterances:
        gaps = differentiable_gap(torch.from_numpy(predict(network, utterance))).numpy()
        correlation = correlate(gaps, utterance.gaps)
        if correlation is not None:
            found.append(correlation)
    return float(np.mean(found)) if found else 0.0


def load_utterances(
    recipe: AudioEncoderRecipe,
) -> tuple[list[LabelledUtterance], dict[str, list[LabelledUtterance]]]:
    """Return utterances to train on, and the held-out ones of each kind."""
    synthetic = draw_utterances(recipe.n_utterances, recipe.seed)
    held_out = draw_utterances(recipe.n_held_out, recipe.seed, held_out=True)
    if recipe.clips is None or recipe.mouths is None:
        return synthetic, {"synthetic": held_out}
    real = load_real_utterances(recipe.clips, recipe.mouths, recipe.seed)
    order = np.random.default_rng(recipe.seed).permutation(len(real))
    n_held_out = min(recipe.n_held_out, len(real) // 4)
    trained = [real[i] for i in order[n_held_out:]]
    return synthetic + trained, {"synthetic": held_out, "real": [real[i] for i in order[:n_held_out]]}


def train(recipe: AudioEncoderRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    run_to_end(AudioEncoderTraining(recipe, *load_utterances(recipe)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(AudioEncoderRecipe, "training.avatar.train_audio_encoder", __doc__, arguments))


if __name__ == "__main__":
    main()
