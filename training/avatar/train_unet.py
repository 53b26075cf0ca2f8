"""Train the U-Net of the bundled avatar, a narrow one that draws any mouth on a rendered portrait.

    python -m training.avatar.train_unet -o UNET

Its inputs are the portrait at rest and, in place of the audio branch's map, the mouth as seven numbers, the same at
each place except for some noise; its target is what the renderer draws. The mouth is fully known, so images are sharp,
and no audio is needed: `training.avatar.assemble` adds audio networks that predict those numbers. The same command
again resumes where it stopped. UNET/log.jsonl has a line per round; UNET/unet.safetensors has the best weights so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inference.avatar.compose import CROP_SIDE, NETWORK_REGION
from inference.avatar.crop_box import crop_box_from_landmarks
from inference.dimensions.avatar import FACE_SIDE, MASKED_COLUMNS, MASKED_ROWS
from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.models import AvatarUNet
from inference.rendering import Portrait
from inference.rendering.mouth_shape import MAX_OPEN, MouthShape
from inference.rendering.portrait import FPS, STARTER_FRAMES, STARTER_SEED, STARTER_SIDE
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.visemes import VISEMES
from training.avatar.identity_init import WIDEN, fusion_layers, generate, initialise_as_identity, weight_of
from training.avatar.train_audio_encoder import N_SHAPES, UNET_WIDTHS
from training.common.arrays import Bytes, Floats
from training.common.checkpoint import write_tensors
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

AUDIO_BRANCH = "audio_model."  # prefix of the audio branch's tensors
CELL = 32  # px of the face to a place of the map at its bottom
WINDOW_CELLS = 4  # side of the windows of the face that most of the run trains on
MOUTH_WINDOW = (2, 3)  # row and column, in cells, of the window with the mouth
N_WINDOWS = FACE_SIDE // CELL - WINDOW_CELLS + 1  # places for a window, in each direction
WINDOWS_END = 0.88  # share of the run after which the whole face is trained on
CHANGE_WEIGHT = 12.0  # weight of what the mouth changes, over what stays
CHANGE = 0.06  # of full scale: a change that gets full weight
EDGE_WEIGHT = 0.5  # weight of the error of differences between neighbouring pixels
SHAPE_WEIGHT_DEVIATION = 0.5  # of the initial weights for the mouth's numbers
AT_REST, ONE_SHAPE = 0.15, 0.4  # shares of the mouths: at rest, and one scaled shape; the others mix two shapes
PLACE_NOISE = 0.04  # of the mouth's numbers, from place to place: predictions at different places differ slightly
SENTENCES = ("BIN BLUE AT F TWO NOW", "LAY GREEN WITH M NINE SOON", "PLACE WHITE BY O FOUR AGAIN")  # for scoring
JITTER = 0.03  # largest shift and resizing of a box, over its width
EXACT = 0.4  # share of boxes without jitter
SCORING_STREAM = 77  # keeps the random draws of the scored frames apart from those of training
MAX_SHAPE = np.array([MAX_OPEN, *[1.0] * (N_SHAPES - 1)])  # upper bounds of the mouth's numbers


@dataclass(frozen=True)
class UNetRecipe:
    """Options of one run."""

    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    n_scored: Annotated[int, Option("frames of sentences to score on")] = 16
    steps: Annotated[int, Option("training steps")] = 1600
    round_steps: Annotated[int, Option("steps between checkpoints")] = 50
    batch: Annotated[int, Option("frames per step")] = 6
    peak_rate: Annotated[float, Option("highest learning rate")] = 2e-3
    averaging: Annotated[float, Option("decay of the moving average of the weights, per step")] = 0.985
    seed: Annotated[int, Option("random seed")] = 5
    threads: Annotated[int, Option("CPU threads")] = 2


@dataclass(frozen=True)
class PortraitBatch:
    """Frames to draw. rest, target: (B, 3, 320, 320) float BGR 0..1. mouths: (B, 7)."""

    rest: Tensor
    target: Tensor
    mouths: Tensor


class PortraitCrops:
    """Crops of the portrait as the network gets them, at rest and with any mouth."""

    def __init__(self) -> None:
        self._portrait = Portrait(STARTER_SEED, STARTER_SIDE, STARTER_SIDE)
        self._rest: dict[int, tuple[Bytes, FaceBox]] = {}

    def render_pair(self, frame: int, mouth: Floats, rng: np.random.Generator | None) -> tuple[Bytes, Bytes]:
        """Return a frame of the idle video at rest and with a mouth: (320, 320, 3) uint8 BGR each.

        rng: draws a jittered box; None takes the exact one.
        """
        if frame not in self._rest:
            image, landmarks = self._portrait.draw(frame / FPS, MouthShape(), frame)
            self._rest[frame] = image, crop_box_from_landmarks(landmarks)
        rest, exact_box = self._rest[frame]
        shape = MouthShape.from_row(np.clip(mouth, 0, MAX_SHAPE).astype(np.float64))
        target, _ = self._portrait.draw(frame / FPS, shape, frame)
        box = exact_box if rng is None else jitter(exact_box, rng)
        return crop(rest, box), crop(target, box)


def jitter(box: FaceBox, rng: np.random.Generator) -> FaceBox:
    """Move and resize a square box slightly, within the frame."""
    left, top, side = (round(rng.uniform(-JITTER, JITTER) * box.width) for _ in range(3))
    side = min(int(box.width) + side, STARTER_SIDE)
    left = min(max(int(box.left) + left, 0), STARTER_SIDE - side)
    top = min(max(int(box.top) + top, 0), STARTER_SIDE - side)
    return FaceBox(left, top, left + side, top + side)


def crop(frame: Bytes, box: FaceBox) -> Bytes:
    resized = cv2.resize(frame[slices_of(box)], (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)[NETWORK_REGION, NETWORK_REGION]


def draw_mouth(rng: np.random.Generator) -> Floats:
    """Draw a mouth, a row of MouthShape (7,) float32: at rest, a scaled shape of speech, or a mix of two."""
    shapes = [viseme.shape.row() for visemes in VISEMES.values() for viseme in visemes]
    one, other = (shapes[int(rng.integers(len(shapes)))] for _ in range(2))
    kind, share = rng.random(), rng.random()
    if kind < AT_REST:
        return np.zeros(N_SHAPES, np.float32)
    mixed = share * one if kind < AT_REST + ONE_SHAPE else share * one + (1 - share) * other
    return np.asarray(mixed, np.float32)


def make_batch(
    crops: PortraitCrops, mouths: Sequence[Floats], rng: np.random.Generator, *, exact: bool = False
) -> PortraitBatch:
    """Render each mouth on a random frame. exact: do not jitter boxes."""
    frames = rng.integers(STARTER_FRAMES, size=len(mouths))
    jitters = [None if exact or rng.random() < EXACT else rng for _ in mouths]
    pairs = [
        crops.render_pair(int(frame), mouth, jitter_rng)
        for frame, mouth, jitter_rng in zip(frames, mouths, jitters, strict=True)
    ]
    rest, target = (torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True))
    return PortraitBatch(to_unit_range(rest), to_unit_range(target), torch.from_numpy(np.stack(mouths)))


def sentence_mouths(n_frames: int, seed: int) -> list[Floats]:
    """Return mouths spread evenly over all sentences."""
    times_s = np.arange(75) / FPS
    rows = [[shape.row() for shape in SynthesisedSpeech(text, seed).mouth_shapes(times_s)] for text in SENTENCES]
    mouths = np.concatenate(rows).astype(np.float32)
    return list(mouths[np.linspace(0, len(mouths) - 1, n_frames).astype(int)])


def to_unit_range(images: Tensor) -> Tensor:
    """Convert (B, H, W, 3) uint8 to (B, 3, H, W) float 0..1."""
    return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255


def add_masked(rest: Tensor) -> Tensor:
    """Return the network's input (B, 6, 320, 320): the face, then the face with its mouth region masked."""
    masked = rest.clone()
    masked[:, :, MASKED_ROWS, MASKED_COLUMNS] = 0
    return torch.cat([rest, masked], dim=1).contiguous(memory_format=torch.channels_last)


def make_shape_map(mouths: Tensor, noise: float = 0.0) -> Tensor:
    """Return the mouth at each place, in the first channels of the audio branch's map: (B, 128, 10, 10)."""
    side = FACE_SIDE // CELL
    shape_map = torch.zeros(len(mouths), UNET_WIDTHS[-1], side, side)
    shape_map[:, :N_SHAPES] = mouths[:, :, None, None]
    if noise:
        shape_map[:, :N_SHAPES] += noise * torch.randn(len(mouths), N_SHAPES, side, side)
    return shape_map.contiguous(memory_format=torch.channels_last)


def change_weights(rest: Tensor, target: Tensor) -> Tensor:
    """Return the weight of each pixel's error, (B, 1, H, W): higher in and around what the mouth changes."""
    change = ((target - rest).abs().mean(1, keepdim=True) / CHANGE).clamp_max(1)
    dilated = nn.functional.max_pool2d(change, 9, 1, 4)
    return 1 + CHANGE_WEIGHT * nn.functional.avg_pool2d(dilated, 9, 1, 4)


def compute_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Compute the weighted mean error of levels and of edges."""
    error = output - target
    levels = (error.abs() * weights).sum() / (weights.sum() * 3)
    across = (error[..., 1:] - error[..., :-1]).abs() * weights[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    return levels + EDGE_WEIGHT * (across.sum() + down.sum()) / (weights.sum() * 6)


class UNetTraining(Training):
    """The U-Net and the moving average of its weights, in training. best: negated error where the mouth changes."""

    def __init__(self, recipe: UNetRecipe) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.crops = PortraitCrops()
        rng = np.random.default_rng((recipe.seed, SCORING_STREAM))
        self.scored = make_batch(self.crops, sentence_mouths(recipe.n_scored, recipe.seed), rng, exact=True)
        self.unet, self.average = (make_unet() for _ in range(2))
        boost_shape_weights(self.unet)
        initialise_as_identity(self.unet, add_masked(self.scored.rest), make_shape_map(self.scored.mouths), N_SHAPES)
        self.average.load_state_dict(self.unet.state_dict())
        self.optimiser = torch.optim.AdamW(trained_parameters(self.unet), lr=recipe.peak_rate, weight_decay=1e-4)

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or for as many as are left, and score.

        Batch norms keep their initial statistics: those of a window differ from the whole face's, and colours that must
        pass unchanged would follow them.
        """
        self.unet.eval()
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        losses = []
        for _ in range(min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)):
            mouths = [draw_mouth(rng) for _ in range(self.recipe.batch)]
            losses.append(self.step(make_batch(self.crops, mouths, rng), rng))
        self.progress.n_rounds += 1
        return {"step": self.progress.n_steps, "loss": round(float(np.mean(losses)), 5), **self.keep_best()}

    def step(self, batch: PortraitBatch, rng: np.random.Generator) -> float:
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        face, shape_map = add_masked(batch.rest), make_shape_map(batch.mouths, PLACE_NOISE)
        weights, target = change_weights(batch.rest, batch.target), batch.target
        if self.part_done() < WINDOWS_END:
            windows = [window_at(MOUTH_WINDOW), window_at(tuple(rng.integers(N_WINDOWS, size=2)))]
            face, target, weights = (torch.cat([x[pixels] for pixels, _ in windows]) for x in (face, target, weights))
            shape_map = torch.cat([shape_map[places] for _, places in windows])
        with mixed_precision():
            output = generate(self.unet, face, shape_map)
        loss = compute_loss(output, target, weights)
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        update_average(self.average, self.unet, self.recipe.averaging, self.progress.n_steps)
        return loss.item()

    def keep_best(self) -> dict[str, float]:
        """Score the average on sentences; write the weights if they are the best yet."""
        whole, mouth = self.score()
        if self.is_best(-mouth):
            write_unet(self.average, self.run / "unet.safetensors")
        return {"whole": round(whole, 3), "mouth": round(mouth, 3)}

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """Return the mean error in levels of 255: of the whole face, and where the mouth changes it."""
        self.average.eval()
        errors, changes = [], []
        for rest, target, mouth in zip(self.scored.rest, self.scored.target, self.scored.mouths, strict=True):
            output = generate(self.average, add_masked(rest[None]), make_shape_map(mouth[None]))
            errors.append((output[0] - target).abs().mean(0) * 255)
            changes.append((target - rest).abs().mean(0) > CHANGE)
        error, is_changed = torch.stack(errors), torch.stack(changes)
        return error.mean().item(), error[is_changed].mean().item() if is_changed.any() else 0.0

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"unet": self.unet, "average": self.average, "optimiser": self.optimiser}


def window_at(corner: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the indices of a window of the face that begins at a row and column of cells.

    Returns: its pixels in (B, C, 320, 320), and its places in (B, C, 10, 10).
    """
    places = tuple(slice(int(at), int(at) + WINDOW_CELLS) for at in corner)
    pixels = tuple(slice(one.start * CELL, one.stop * CELL) for one in places)
    every = (slice(None), slice(None))
    return (*every, *pixels), (*every, *places)


def make_unet() -> AvatarUNet:
    """Return a U-Net whose audio branch is a stub: `training.avatar.assemble` adds the trained one."""
    unet = AvatarUNet("ave", UNET_WIDTHS, 1)
    return unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def boost_shape_weights(unet: AvatarUNet) -> None:
    """Make seven numbers count as much as the hundred channels beside them, in place."""
    widen = weight_of(fusion_layers(unet)[WIDEN])
    first = widen.shape[1] - UNET_WIDTHS[-1]
    nn.init.normal_(widen[:, first : first + N_SHAPES], std=SHAPE_WEIGHT_DEVIATION)


def trained_parameters(unet: AvatarUNet) -> list[nn.Parameter]:
    return [weight for name, weight in sorted(unet.named_parameters()) if not name.startswith(AUDIO_BRANCH)]


def write_unet(unet: AvatarUNet, path: Path) -> None:
    """Write all tensors except those of the audio branch, in float32."""
    tensors = {
        name: value.contiguous() for name, value in unet.state_dict().items() if not name.startswith(AUDIO_BRANCH)
    }
    write_tensors(tensors, path)


def train(recipe: UNetRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    run_to_end(UNetTraining(recipe))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(UNetRecipe, "training.avatar.train_unet", __doc__, arguments))


if __name__ == "__main__":
    main()
