"""Train the painter of the avatar that is shipped: a narrow U-Net that gives a rendered sitter any mouth.

    python -m training.avatar.train_unet -o RUN

The network sees the sitter at rest and, where an avatar's audio branch joins it, the mouth as seven numbers, the same
at each place but for some noise; it learns to paint what the renderer draws. Nothing is left to chance, so images are
sharp, and no audio is needed: `training.avatar.assemble` puts an audio encoder in front, which predicts those numbers.
The same command again goes on where it stopped. RUN/log.jsonl has a line per round; RUN/painter.safetensors is the best so far.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inference.avatar.compose import CROP_SIDE, NETWORK_REGION
from inference.avatar.crop_box import crop_box_from_landmarks
from inference.faces import FaceBox
from inference.faces.paste import slices_of
from inference.models import AvatarUNet
from inference.models.avatar_unet import FACE_SIDE, MASKED_COLUMNS, MASKED_ROWS
from inference.rendering import Portrait
from inference.rendering.mouth_shape import MAX_OPEN, MouthShape
from inference.rendering.portrait import FPS, STARTER_FRAMES, STARTER_SEED, STARTER_SIDE
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.visemes import VISEMES
from training.avatar.identity_init import WIDEN, joint_of, paint, start_as_copy, weight_of
from training.avatar.train_audio_encoder import N_SHAPES, UNET_WIDTHS
from training.common.checkpoint import load_state, save_state, write_tensors
from training.lip_reading.train import follow, log_line, rate_at

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BRANCH = "audio_model."
CELL = 32  # px of the face to a place of the map at its bottom
WINDOW_CELLS = 4  # of the pieces of the face that most of the run paints alone
MOUTH_WINDOW = (2, 3)  # row and column, in cells, of the piece with the mouth
N_WINDOWS = FACE_SIDE // CELL - WINDOW_CELLS + 1  # places for one, down and across
WINDOWS_END = 0.88  # part of the run after which the whole face is painted
CHANGE_WEIGHT = 12.0  # of what the mouth moves, beside what stays
CHANGE = 0.06  # of full scale: a change that counts as one
EDGE_WEIGHT = 0.5
MOUTH_SPREAD = 0.5  # of the weights that take the mouth's numbers, at the start
AT_REST, ONE_SHAPE = 0.15, 0.4  # parts of the mouths: shut, and one shape more or less; the others are mixed of two
PLACE_NOISE = 0.04  # of the mouth's numbers, from place to place: an ear's places do not quite agree
SENTENCES = ("BIN BLUE AT F TWO NOW", "LAY GREEN WITH M NINE SOON", "PLACE WHITE BY O FOUR AGAIN")  # scored on
JITTER = 0.03  # of the box: so far its sides may be off
EXACT = 0.4  # part of the boxes that are not
GRADIENT_NORM = 1.0
ROUND_STRIDE = 100_003  # keeps the draws of one round apart from the next one's
UNSEEN_STREAM = 77
MOST = np.array([MAX_OPEN, *[1.0] * (N_SHAPES - 1)])


@dataclass(frozen=True)
class Recipe:
    """One run."""

    run: Path  # where weights and the log go
    n_scored: int = 16  # frames of sentences
    steps: int = 1600
    round_steps: int = 50
    batch: int = 6
    peak_rate: float = 2e-3
    averaging: float = 0.985
    seed: int = 5
    threads: int = 2


@dataclass(frozen=True)
class Batch:
    """Frames to paint. rest, target: (B, 3, 320, 320) float BGR 0..1. mouths: (B, 7)."""

    rest: Tensor
    target: Tensor
    mouths: Tensor


class Studio:
    """The sitter, at rest and with any mouth, as the network sees a face."""

    def __init__(self) -> None:
        self._sitter = Portrait(STARTER_SEED, STARTER_SIDE, STARTER_SIDE)
        self._rest: dict[int, tuple[Bytes, FaceBox]] = {}

    def pair(self, frame: int, mouth: npt.NDArray[np.float32], rng: np.random.Generator | None) -> tuple[Bytes, Bytes]:
        """A frame of the film at rest and with a mouth: (320, 320, 3) uint8 BGR each.

        rng: draws a box that is a little off; None takes the right one.
        """
        if frame not in self._rest:
            picture, landmarks = self._sitter.draw(frame / FPS, MouthShape(), frame)
            self._rest[frame] = picture, crop_box_from_landmarks(landmarks)
        rest, box = self._rest[frame]
        shape = MouthShape.from_row(np.clip(mouth, 0, MOST).astype(np.float64))
        drawn, _ = self._sitter.draw(frame / FPS, shape, frame)
        where = box if rng is None else jitter(box, rng)
        return cut(rest, where), cut(drawn, where)


def jitter(box: FaceBox, rng: np.random.Generator) -> FaceBox:
    left, top, side = (round(rng.uniform(-JITTER, JITTER) * box.width) for _ in range(3))
    side = min(int(box.width) + side, STARTER_SIDE)
    left = min(max(int(box.left) + left, 0), STARTER_SIDE - side)
    top = min(max(int(box.top) + top, 0), STARTER_SIDE - side)
    return FaceBox(left, top, left + side, top + side)


def cut(frame: Bytes, box: FaceBox) -> Bytes:
    crop = cv2.resize(frame[slices_of(box)], (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(crop, np.uint8)[NETWORK_REGION, NETWORK_REGION]


def draw_mouth(rng: np.random.Generator) -> Floats:
    """(7,) float32, as `MouthShape.row` has it: shapes of speech, more or less, and what lies between two."""
    shapes = [viseme.shape.row() for visemes in VISEMES.values() for viseme in visemes]
    one, other = (shapes[int(rng.integers(len(shapes)))] for _ in range(2))
    kind, share = rng.random(), rng.random()
    if kind < AT_REST:
        return np.zeros(N_SHAPES, np.float32)
    mixed = share * one if kind < AT_REST + ONE_SHAPE else share * one + (1 - share) * other
    return np.asarray(mixed, np.float32)


def make_batch(studio: Studio, mouths: Sequence[Floats], rng: np.random.Generator, *, exact: bool = False) -> Batch:
    """exact: boxes are not jittered."""
    unders = rng.integers(STARTER_FRAMES, size=len(mouths))
    off = [None if exact or rng.random() < EXACT else rng for _ in mouths]
    pairs = [studio.pair(int(under), mouth, by) for under, mouth, by in zip(unders, mouths, off, strict=True)]
    rest, target = (torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True))
    return Batch(to_numbers(rest), to_numbers(target), torch.from_numpy(np.stack(mouths)))


def draw_sentences(n_frames: int, seed: int) -> list[Floats]:
    """Mouths of sentences, all through them."""
    rows = [[shape.row() for shape in SynthesisedSpeech(text, seed).mouth_shapes(np.arange(75) / FPS)] for text in SENTENCES]
    whole = np.concatenate(rows).astype(np.float32)
    return list(whole[np.linspace(0, len(whole) - 1, n_frames).astype(int)])


def to_numbers(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255


def with_mask(rest: Tensor) -> Tensor:
    """(B, 6, 320, 320): the face, then what of it is not hidden."""
    masked = rest.clone()
    masked[:, :, MASKED_ROWS, MASKED_COLUMNS] = 0
    return torch.cat([rest, masked], dim=1).contiguous(memory_format=torch.channels_last)


def to_map(mouths: Tensor, noise: float = 0.0) -> Tensor:
    """The mouth at each place, in the first channels of what the audio branch would give: (B, 128, 10, 10)."""
    side = FACE_SIDE // CELL
    told = torch.zeros(len(mouths), UNET_WIDTHS[-1], side, side)
    told[:, :N_SHAPES] = mouths[:, :, None, None]
    if noise:
        told[:, :N_SHAPES] += noise * torch.randn(len(mouths), N_SHAPES, side, side)
    return told.contiguous(memory_format=torch.channels_last)


def weigh(rest: Tensor, target: Tensor) -> Tensor:
    """(B, 1, H, W): more where the mouth has moved something, and around it."""
    moved = ((target - rest).abs().mean(1, keepdim=True) / CHANGE).clamp_max(1)
    around = nn.functional.max_pool2d(moved, 9, 1, 4)
    return 1 + CHANGE_WEIGHT * nn.functional.avg_pool2d(around, 9, 1, 4)


def loss_of(painted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """How far levels and edges are off, by weight."""
    off = painted - target
    levels = (off.abs() * weights).sum() / (weights.sum() * 3)
    across = (off[..., 1:] - off[..., :-1]).abs() * weights[..., 1:]
    down = (off[..., 1:, :] - off[..., :-1, :]).abs() * weights[..., 1:, :]
    return levels + EDGE_WEIGHT * (across.sum() + down.sum()) / (weights.sum() * 6)


@dataclass
class Progress:
    """How far a run is; kept with its checkpoint."""

    n_rounds: int = 0
    step: int = 0
    best: float = math.inf


class Training:
    """The U-Net under training, its average, its optimiser and how far it is."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.studio = Studio()
        rng = np.random.default_rng((recipe.seed, UNSEEN_STREAM))
        self.scored = make_batch(self.studio, draw_sentences(recipe.n_scored, recipe.seed), rng, exact=True)
        self.unet, self.average = (make_unet() for _ in range(2))
        boost_mouth(self.unet)
        start_as_copy(self.unet, with_mask(self.scored.rest), to_map(self.scored.mouths), N_SHAPES)
        self.average.load_state_dict(self.unet.state_dict())
        self.optimiser = torch.optim.AdamW(learned(self.unet), lr=recipe.peak_rate, weight_decay=1e-4)
        self.progress = Progress()

    def part_done(self) -> float:
        return min(self.progress.step / self.recipe.steps, 1.0)

    def run_round(self) -> float:
        """Some steps, or as many as are left; the mean of the losses.

        Batch normalisation keeps the levels of the start: those of a piece of the face are others than the whole's, and
        colours that are to pass unchanged would follow them.
        """
        self.unet.eval()
        rng = np.random.default_rng((self.recipe.seed, ROUND_STRIDE + self.progress.n_rounds))
        losses = []
        for _ in range(min(self.recipe.round_steps, self.recipe.steps - self.progress.step)):
            mouths = [draw_mouth(rng) for _ in range(self.recipe.batch)]
            losses.append(self.step(make_batch(self.studio, mouths, rng), rng))
        self.progress.n_rounds += 1
        return float(np.mean(losses))

    def step(self, batch: Batch, rng: np.random.Generator) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.peak_rate * rate_at(self.part_done())
        face, told = with_mask(batch.rest), to_map(batch.mouths, PLACE_NOISE)
        weights, target = weigh(batch.rest, batch.target), batch.target
        if self.part_done() < WINDOWS_END:
            windows = [window_at(MOUTH_WINDOW), window_at(tuple(rng.integers(N_WINDOWS, size=2)))]
            face, target, weights = (torch.cat([x[at] for at, _ in windows]) for x in (face, target, weights))
            told = torch.cat([told[at] for _, at in windows])
        with torch.autocast("cpu", torch.bfloat16):
            painted = paint(self.unet, face, told)
        loss = loss_of(painted, target, weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(learned(self.unet), GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.progress.step += 1
        follow(self.average, self.unet, min(self.recipe.averaging, self.progress.step / (self.progress.step + 10)))
        return loss.item()

    def keep_best(self) -> dict[str, float]:
        """Score the average on sentences; write the weights where they are the best yet."""
        whole, mouth = self.score()
        if mouth < self.progress.best:
            self.progress.best = mouth
            write_painter(self.average, self.recipe.run / "painter.safetensors")
        return {"whole": round(whole, 3), "mouth": round(mouth, 3)}

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """Levels of 255 that a pixel is off, over the face and where the mouth moves something."""
        self.average.eval()
        off, moved = [], []
        for rest, target, mouth in zip(self.scored.rest, self.scored.target, self.scored.mouths, strict=True):
            painted = paint(self.average, with_mask(rest[None]), to_map(mouth[None]))
            off.append((painted[0] - target).abs().mean(0) * 255)
            moved.append((target - rest).abs().mean(0) > CHANGE)
        offs, is_moved = torch.stack(off), torch.stack(moved)
        return offs.mean().item(), offs[is_moved].mean().item() if is_moved.any() else 0.0

    def save(self) -> None:
        """Everything needed to go on."""
        state = {
            "unet": self.unet.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        save_state(self.recipe.run, state)

    def resume(self) -> None:
        state = load_state(self.recipe.run)
        if state is None:
            return
        self.unet.load_state_dict(state["unet"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])


def window_at(corner: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A piece of the face that begins at a row and column of cells: its pixels in (B, C, 320, 320), its places in
    (B, C, 10, 10).
    """
    places = tuple(slice(int(at), int(at) + WINDOW_CELLS) for at in corner)
    pixels = tuple(slice(one.start * CELL, one.stop * CELL) for one in places)
    every = (slice(None), slice(None))
    return (*every, *pixels), (*every, *places)


def make_unet() -> AvatarUNet:
    """Its audio branch is not used here: `training.avatar.assemble` brings another."""
    unet = AvatarUNet("ave", UNET_WIDTHS, 1)
    return unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def boost_mouth(unet: AvatarUNet) -> None:
    """Let seven numbers weigh as much as the hundred channels beside them, in place."""
    takes = weight_of(joint_of(unet)[WIDEN])
    first = takes.shape[1] - UNET_WIDTHS[-1]
    nn.init.normal_(takes[:, first : first + N_SHAPES], std=MOUTH_SPREAD)


def learned(unet: AvatarUNet) -> list[nn.Parameter]:
    return [weight for name, weight in sorted(unet.named_parameters()) if not name.startswith(BRANCH)]


def write_painter(unet: AvatarUNet, path: Path) -> None:
    """All but the audio branch, in float32, replaced in one move."""
    tensors = {key: value.contiguous() for key, value in unet.state_dict().items() if not key.startswith(BRANCH)}
    write_tensors(tensors, path)


def train(recipe: Recipe) -> None:
    """Run a recipe to its end, or on from its last checkpoint."""
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(1)  # its threads would only compete with torch's
    recipe.run.mkdir(parents=True, exist_ok=True)
    training = Training(recipe)
    training.resume()
    while training.part_done() < 1:
        loss = training.run_round()
        scores = training.keep_best()
        training.save()
        line = {"round": training.progress.n_rounds, "part_done": round(training.part_done(), 4)}
        log_line(recipe.run, {**line, "step": training.progress.step, "loss": round(loss, 5), **scores})


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.avatar.train_unet", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--run", type=Path, required=True, help="folder for checkpoints, weights and log")
    for name in ("n_scored", "steps"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Recipe, name))
    for name, kind in (("round_steps", int), ("batch", int), ("peak_rate", float), ("averaging", float)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(Recipe, name))
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    return Recipe(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    train(read_recipe())
