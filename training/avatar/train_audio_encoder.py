"""Train an avatar's ear: the encoder of the mel and the U-Net's audio branch, on the mouth that belongs to the sound.

    python -m training.avatar.train_audio_encoder -o EAR
    python -m training.avatar.train_audio_encoder -o EAR --clips ../shared/grid/talking --mouths ../shared/grid/mouths

Voices are those of espeak-ng, whose phonemes are known to the sample; with clips, real ones too, of which the gap
between the lips was measured. The same command again goes on where it stopped. EAR/log.jsonl has a line per round;
EAR/ear.safetensors is the best so far on voices that are never trained on. Each place of the branch's map has to tell
the whole mouth: the painting network then finds it wherever it paints.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.audio.features import ROWS
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.rendering.mouth_shape import MouthShape
from training.avatar.real_clips import load_filmed
from training.avatar.utterances import Heard, draw_utterances
from training.common.checkpoint import load_state, save_state, write_tensors
from training.lip_reading.train import follow, log_line, rate_at

UNET_WIDTHS = (8, 16, 32, 64, 128)
EAR_WIDTHS = (16, 32, 64, 128, 256)
N_SHAPES = len(MouthShape.__dataclass_fields__)
# How much an error of each part of the shape shows: open, wide, round, press, tuck, teeth, tongue.
WEIGHTS = (3.0, 1.0, 1.5, 2.0, 1.0, 1.0, 0.5)
SOFT = 0.15  # errors below it count by their square
GAP_WEIGHT = 3.0
PIECE = 32  # frames, of which every other one is asked for: neighbours hear much the same
STEP = 2
PLACES = (slice(1, 9), slice(1, 9))  # of the 10 x 10, that must tell the mouth
GRADIENT_NORM = 1.0
ROUND_STRIDE = 100_003  # keeps the draws of one round apart from the next one's


@dataclass(frozen=True)
class Recipe:
    """One run."""

    run: Path  # where the ear and the log go
    clips: Path | None = None  # filmed clips with sound
    mouths: Path | None = None  # packs of their mouths
    n_utterances: int = 1600
    n_held_out: int = 60
    steps: int = 600
    round_steps: int = 60
    batch: int = 8  # pieces
    peak_rate: float = 2e-3
    averaging: float = 0.99
    seed: int = 11
    threads: int = 2


class Ear(nn.Module):
    """What hears: of both networks of an avatar the parts before the picture, and a reading of their map.

    shape: a mouth for each place of the map.
    """

    def __init__(self) -> None:
        super().__init__()
        n_channels = EAR_WIDTHS[-1] // ROWS
        self.encoder = AudioVisualEncoder(EAR_WIDTHS)
        self.branch = AvatarUNet("ave", UNET_WIDTHS, n_channels).audio_model
        self.shape = nn.Conv2d(UNET_WIDTHS[-1], N_SHAPES, 1)

    def forward(self, mels: Tensor, step: int = 1) -> Tensor:
        """Mouths (B, T, 7, 10, 10) at each place, of windows (B, T + 15, 80, 16); of every `step`-th frame."""
        heard = self.hear(mels)[:, ::step]
        out: Tensor = self.shape(self.branch(heard.flatten(0, 1).contiguous(memory_format=torch.channels_last)))
        return out.float().reshape(*heard.shape[:2], *out.shape[1:])

    def hear(self, mels: Tensor) -> Tensor:
        """What each frame's branch takes: (B, T, 16, 16, 16)."""
        windows = mels.flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        rows: Tensor = self.encoder(windows).reshape(*mels.shape[:2], -1)  # (B, T + 15, 256)
        stacks = rows.unfold(1, ROWS, 1).transpose(2, 3)  # (B, T, 16, 256)
        return stacks.reshape(*stacks.shape[:2], rows.shape[2] // ROWS, ROWS, ROWS)


def read_mouth(places: Tensor) -> Tensor:
    """The mouth that all places agree on: (..., 7) of (..., 7, 10, 10), within what a mouth can do."""
    return places[..., PLACES[0], PLACES[1]].mean((-2, -1)).clamp_min(0)


def gap_of(mouths: Tensor) -> Tensor:
    """`training.avatar.utterances.gap_of` in torch, of (..., 7)."""
    is_open, _, _, press, _, teeth, tongue = mouths.clamp_min(0).unbind(-1)
    gap = (is_open**4 + (0.34 * teeth) ** 4 + (0.5 * tongue) ** 4 + 1e-6) ** 0.25
    return gap * (1 - press.clamp_max(1))


@dataclass(frozen=True)
class Batch:
    """Pieces of utterances: T frames, of which every other one is asked for."""

    mels: Tensor  # (B, T + 15, 80, 16)
    mouths: Tensor  # (B, T / 2, 7); zeros of those that were filmed
    gaps: Tensor  # (B, T / 2)
    is_drawn: Tensor  # (B,) float: 1 where the mouth is known


def cut_batch(utterances: Sequence[Heard], rng: np.random.Generator, n_pieces: int) -> Batch:
    pieces: list[tuple[npt.NDArray[np.generic], ...]] = []
    while len(pieces) < n_pieces:
        one = utterances[int(rng.integers(len(utterances)))]
        if one.n_frames < PIECE:
            continue
        at = int(rng.integers(one.n_frames - PIECE + 1))
        mouths = np.zeros((PIECE, N_SHAPES), np.float32) if one.mouths is None else one.mouths[at : at + PIECE]
        gaps = one.gaps[at : at + PIECE]
        is_drawn = np.float32(one.mouths is not None)
        pieces.append((one.mels[at : at + PIECE + ROWS - 1], mouths[::STEP], gaps[::STEP], np.array(is_drawn)))
    return Batch(*(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*pieces, strict=True)))


def loss_of(places: Tensor, batch: Batch) -> Tensor:
    """Of (B, T, 7, 10, 10): each place's error, and that of the gap between the lips."""
    seen = places[..., PLACES[0], PLACES[1]].flatten(-2)  # (B, T, 7, places)
    errors = functional.smooth_l1_loss(seen, batch.mouths[..., None].expand_as(seen), reduction="none", beta=SOFT)
    drawn = (errors.mean(-1) * torch.tensor(WEIGHTS)).sum(-1).mean(1) * batch.is_drawn
    gaps = functional.smooth_l1_loss(gap_of(seen.mean(-1)), batch.gaps, reduction="none", beta=SOFT).mean(1)
    return (drawn + GAP_WEIGHT * gaps).mean()


@dataclass
class Progress:
    """How far a run is; kept with its checkpoint."""

    n_rounds: int = 0
    step: int = 0
    best: float = -math.inf


class Training:
    """The ear under training, its average, its optimiser and how far it is."""

    def __init__(self, recipe: Recipe, utterances: Sequence[Heard], held_out: dict[str, list[Heard]]) -> None:
        self.recipe, self.utterances, self.held_out = recipe, utterances, held_out
        torch.manual_seed(recipe.seed)
        self.ear, self.average = (Ear().to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
        self.average.load_state_dict(self.ear.state_dict())
        self.optimiser = torch.optim.AdamW(self.ear.parameters(), lr=recipe.peak_rate, weight_decay=0.01)
        self.progress = Progress()

    def part_done(self) -> float:
        return min(self.progress.step / self.recipe.steps, 1.0)

    def run_round(self) -> float:
        """Some steps, or as many as are left; the mean of the losses."""
        self.ear.train()
        rng = np.random.default_rng((self.recipe.seed, ROUND_STRIDE + self.progress.n_rounds))
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.step)
        losses = [self.step(cut_batch(self.utterances, rng, self.recipe.batch)) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        return float(np.mean(losses))

    def step(self, batch: Batch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.peak_rate * rate_at(self.part_done())
        with torch.autocast("cpu", torch.bfloat16):
            places = self.ear(batch.mels, STEP)
        loss = loss_of(places, batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.ear.parameters(), GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.progress.step += 1
        follow(self.average, self.ear, min(self.recipe.averaging, self.progress.step / (self.progress.step + 10)))
        follow_levels(self.average, self.ear)
        return loss.item()

    def keep_best(self) -> dict[str, float]:
        """Score the average on each kind of held-out voices; write it where the mean is the best yet."""
        scores = {name: score(self.average, heard) for name, heard in self.held_out.items() if heard}
        mean = float(np.mean(list(scores.values())))
        if mean > self.progress.best:
            self.progress.best = mean
            write_ear(self.average, self.recipe.run / "ear.safetensors")
        return {name: round(value, 4) for name, value in scores.items()}

    def save(self) -> None:
        """Everything needed to go on."""
        state = {
            "ear": self.ear.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        save_state(self.recipe.run, state)

    def resume(self) -> None:
        state = load_state(self.recipe.run)
        if state is None:
            return
        self.ear.load_state_dict(state["ear"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])


@torch.no_grad()
def follow_levels(average: nn.Module, network: nn.Module) -> None:
    """The average takes over the levels that batch normalisation measured: they are means already."""
    for own, other in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(other)


@torch.no_grad()
def predict(ear: Ear, heard: Heard) -> npt.NDArray[np.float32]:
    """The mouth at each frame of an utterance: (T, 7) float32."""
    mels = torch.from_numpy(heard.mels.astype(np.float32))[None]
    return np.asarray(read_mouth(ear(mels))[0].numpy(), np.float32)


def score(ear: Ear, utterances: Sequence[Heard]) -> float:
    """The mean over utterances of how the gap that was heard goes with the true one (Pearson)."""
    ear.eval()
    found = []
    for heard in utterances:
        gap = gap_of(torch.from_numpy(predict(ear, heard))).numpy()
        if heard.gaps.std() > 0 and gap.std() > 0:
            found.append(float(np.corrcoef(gap, heard.gaps)[0, 1]))
    return float(np.mean(found)) if found else 0.0


def write_ear(ear: nn.Module, path: Path) -> None:
    write_tensors({key: value.contiguous() for key, value in ear.state_dict().items()}, path)


def draw_voices(recipe: Recipe) -> tuple[list[Heard], dict[str, list[Heard]]]:
    """Utterances to train on, and held-out ones of each kind."""
    drawn = draw_utterances(recipe.n_utterances, recipe.seed)
    unseen = draw_utterances(recipe.n_held_out, recipe.seed, held_out=True)
    if recipe.clips is None or recipe.mouths is None:
        return drawn, {"drawn": unseen}
    filmed = load_filmed(recipe.clips, recipe.mouths, recipe.seed)
    order = np.random.default_rng(recipe.seed).permutation(len(filmed))
    n_unseen = min(recipe.n_held_out, len(filmed) // 4)
    kept = [filmed[i] for i in order[n_unseen:]]
    return drawn + kept, {"drawn": unseen, "filmed": [filmed[i] for i in order[:n_unseen]]}


def train(recipe: Recipe) -> None:
    """Run a recipe to its end, or on from its last checkpoint."""
    torch.set_num_threads(recipe.threads)
    recipe.run.mkdir(parents=True, exist_ok=True)
    training = Training(recipe, *draw_voices(recipe))
    training.resume()
    while training.part_done() < 1:
        loss = training.run_round()
        scores = training.keep_best()
        training.save()
        line = {"round": training.progress.n_rounds, "part_done": round(training.part_done(), 4)}
        log_line(recipe.run, {**line, "step": training.progress.step, "loss": round(loss, 4), **scores})


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m training.avatar.train_audio_encoder", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--run", type=Path, required=True, help="folder for checkpoints, the ear and the log")
    parser.add_argument("--clips", type=Path, help="folder of filmed clips with sound, SPEAKER_NAME.mp4")
    parser.add_argument("--mouths", type=Path, help="folder of packs of their mouths (.npz)")
    parser.add_argument("--n-utterances", type=int, default=Recipe.n_utterances)
    parser.add_argument("--n-held-out", type=int, default=Recipe.n_held_out)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--round-steps", type=int, default=Recipe.round_steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--peak-rate", type=float, default=Recipe.peak_rate)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    return Recipe(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    train(read_recipe())
