"""Train LipCoordNet from packs of mouth crops, from nothing or on from weights.

    python -m training.lip_reading.train --mouths PACKS [MORE_PACKS] [--start model.safetensors] -o RUN --epochs 20

The same command again goes on where it stopped. RUN/log.jsonl has a line per epoch, RUN/model.safetensors
the best weights so far (float16): those with the lowest mean of the word error rates on each folder's held-out
clips. What matters in the recipe: a warm restart of the learning rate, low
dropout, windows cut anywhere out of several clips beside whole ones, and characters spread over the aligned words
as a second loss that fades.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.lip_reading.decode import BLANK, FIRST_SYMBOL, decode_greedy, text_of
from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from training.common.checkpoint import save_state, write_tensors
from training.lip_reading.augmentation import Augmentation, Sample, move_lips, warp_time
from training.lip_reading.cached_features import Views, drop_maps, sample_of, show_frames, show_views
from training.lip_reading.concatenate import cut_anywhere
from training.lip_reading.initialise import start_fresh
from training.lip_reading.mouth_packs import NO_TARGET, MouthClip, load_packs, spread_characters, symbols_of
from training.lip_reading.scoring import Score, score_texts

WARM_UP = 0.08  # part of the run in which the learning rate climbs
LOWEST_RATE = 0.002  # of the peak, at both ends
SPREAD_WEIGHT = 0.3  # of the per-frame loss at the start
SPREAD_ENDS = 0.6  # part of the run after which CTC is alone
GRADIENT_NORM = 1.0
EPOCH_SEED_STRIDE = 100_003  # keeps the draws of one epoch apart from the next one's


@dataclass(frozen=True)
class Recipe:
    """One run."""

    mouths: tuple[Path, ...]  # folders of packs
    start: Path | None  # weights to carry on from; None: from nothing
    run: Path  # where checkpoints and the log go
    epochs: int = 20
    minutes: float | None = None  # the schedule ends by then, however slow the machine
    peak_rate: float = 6e-4
    batch: int = 4
    dropout: float = 0.12
    views: int = 0  # of each clip that the convolutions, frozen, are asked for once; 0: all layers are trained
    joined: float = 0.35  # part of the samples that are cut anywhere out of several clips
    averaging: float = 0.998  # of the moving average of the weights, per step
    held_out: int = 40  # of each folder
    score_every: int = 1  # epochs; and after the last
    leave_out: Path | None = None  # names never trained on, one a line
    n_clips: int | None = None  # only this many, for a trial
    seed: int = 7
    threads: int = 2


@dataclass(frozen=True)
class Batch:
    """Tensors of a few clips."""

    pictures: Tensor  # (B, 3, T, 64, 128) uint8, channels last in memory; or of views (B, T, 3072)
    lips: Tensor  # (B, T, 20, 2) float
    frame_classes: Tensor  # (B, T)
    symbols: Tensor  # every clip's characters, one after another
    n_symbols: Tensor  # (B,)


@dataclass
class Progress:
    """How far a run is; kept with its checkpoint."""

    epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    best_wer: float = math.inf
    best_cer: float = math.inf


Parts = dict[str, list[MouthClip]]  # by the name of their folder


class Training:
    """The network under training, its average, its optimiser and how far it is."""

    def __init__(self, recipe: Recipe, clips: Sequence[MouthClip], held_out: Parts) -> None:
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = LipCoordNet() if recipe.start else start_fresh(clips, recipe.seed)
        if recipe.start:
            load_into(self.network, recipe.start)
        self.average = LipCoordNet()
        self.average.load_state_dict(self.network.state_dict())
        for network in (self.network, self.average):
            network.to(self.device)
            network._drop.p = network._drop_maps.p = recipe.dropout
        # By name: an optimiser's state knows its parameters by place, and the order of layers may change.
        named = sorted(self.network.named_parameters())
        self.weights = [weight for name, weight in named if not (recipe.views and name.startswith("conv"))]
        self.optimiser = torch.optim.AdamW(self.weights, lr=recipe.peak_rate, betas=(0.9, 0.98))
        # A batch in as many parts, each by one thread alone: threads that share the small steps of a recurrent
        # layer wait for one another at each, which costs several times the work where the machine is busy.
        self.n_shares = recipe.threads if self.device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(self.n_shares, initializer=torch.set_num_threads, initargs=(1,))
        self.augmentation = Augmentation(recipe.seed)
        self.progress = Progress()
        self.epoch_steps = math.ceil(len(clips) * max(1, recipe.views) / recipe.batch)
        self.views: Views = {}
        if recipe.views:
            self.network.eval()
            self.views = show_views(self.network, clips, recipe.views, self.augmentation, recipe.seed, self.pool)
        self.by_person = group_by_person(clips)

    def part_done(self) -> float:
        """0..1, by steps or by the clock, whichever is further: on a busy machine the rate still ends low."""
        by_steps = self.progress.step / (self.epoch_steps * self.recipe.epochs)
        by_clock = self.progress.elapsed_s / (60 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return min(max(by_steps, by_clock), 1.0)

    def run_epoch(self) -> dict[str, float]:
        """One pass over the clips, or less where the clock runs out; means of the losses."""
        self.network.train()
        torch.manual_seed(self.recipe.seed + EPOCH_SEED_STRIDE * self.progress.epoch)
        rng = np.random.default_rng((self.recipe.seed, self.progress.epoch))
        sums = {"loss": 0.0, "ctc": 0.0, "spread": 0.0, "norm": 0.0}
        n_steps = 0
        last = time.monotonic()
        for clips in self.batches(rng):
            losses = self.step(clips)
            n_steps += 1
            sums = {key: value + losses[key] for key, value in sums.items()}
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.part_done() >= 1:
                break
        self.progress.epoch += 1
        return {key: round(value / n_steps, 4) for key, value in sums.items()}

    def batches(self, rng: np.random.Generator) -> Iterator[list[MouthClip]]:
        order = rng.permutation(np.repeat(np.arange(len(self.clips)), max(1, self.recipe.views)))
        for first in range(0, len(order), self.recipe.batch):
            yield [self.clips[i] for i in order[first : first + self.recipe.batch]]

    def draw(self, clip: MouthClip, rng: np.random.Generator) -> Sample:
        """A changed copy of the clip, or of a window of it and others."""
        of_person = self.by_person[clip.person]
        if len(of_person) > 1 and rng.random() < self.recipe.joined:
            sample = cut_anywhere([self.show(one, rng) for one in draw_parts(clip, of_person, rng)], rng)
        else:
            sample = warp_time(self.show(clip, rng), rng)
        if self.recipe.views:
            return replace(sample, lips=move_lips(sample.lips, rng))
        return self.augmentation.vary(sample, rng)

    def show(self, clip: MouthClip, rng: np.random.Generator) -> Sample:
        """The clip, or any view of it."""
        return self.views[clip.name][rng.integers(self.recipe.views)] if self.recipe.views else sample_of(clip)

    def step(self, clips: Sequence[MouthClip]) -> dict[str, float]:
        part = self.part_done()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.peak_rate * rate_at(part)
        shares = [clips[i :: self.n_shares] for i in range(min(self.n_shares, len(clips)))]
        numbers = range(len(shares))
        found = list(self.pool.map(self.find_gradients, shares, numbers))
        parts = [len(share) / len(clips) for share in shares]
        for weight, *gradients in zip(self.weights, *(gradients for gradients, _ in found), strict=True):
            weight.grad = sum((g * p for g, p in zip(gradients, parts, strict=True)), torch.zeros_like(weight))
        norm = nn.utils.clip_grad_norm_(self.weights, GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.progress.step += 1
        follow(self.average, self.network, min(self.recipe.averaging, self.progress.step / (self.progress.step + 10)))
        means = {key: sum(losses[key] * p for (_, losses), p in zip(found, parts, strict=True)) for key in found[0][1]}
        return means | {"norm": norm.item()}

    def find_gradients(self, clips: Sequence[MouthClip], number: int) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """Of one share of a step, by its number: the gradient of each weight, and the losses."""
        rng = np.random.default_rng((self.recipe.seed, self.progress.step, number))
        batch = collate([self.draw(clip, rng) for clip in clips], self.device)
        ctc, spread = losses_of(forward_mixed(self.network, batch.pictures, batch.lips), batch)
        loss = ctc + SPREAD_WEIGHT * max(0.0, 1 - self.part_done() / SPREAD_ENDS) * spread
        return torch.autograd.grad(loss, self.weights), {
            "loss": loss.item(),
            "ctc": ctc.item(),
            "spread": spread.item(),
        }

    def keep_best(self) -> dict[str, dict[str, Score]]:
        """Score the network and its average on the held-out clips; write the weights where they are the best yet."""
        networks = {"network": self.network, "average": self.average}
        scores = dict(zip(networks, self.pool.map(self.score, networks.values()), strict=True))
        for name, network in networks.items():
            parts = scores[name]
            mean = Score(*(float(np.mean([getattr(one, key) for one in parts.values()])) for key in ("wer", "cer")))
            if (mean.wer, mean.cer) < (self.progress.best_wer, self.progress.best_cer):
                self.progress.best_wer, self.progress.best_cer = mean.wer, mean.cer
                write_weights(network, self.recipe.run / "model.safetensors")
        return scores

    def score(self, network: LipCoordNet) -> dict[str, Score]:
        """Error rates on the held-out clips of each folder, and on windows out of them."""
        scores = {}
        for name, clips in self.held_out.items():
            scores[name] = score_samples(network, map(sample_of, clips), self.recipe.batch, self.device)
            if self.recipe.joined:
                windows = draw_windows(clips, self.recipe.seed)
                scores[f"{name}, joined"] = score_samples(network, windows, self.recipe.batch, self.device)
        return scores

    def save(self) -> None:
        """Everything needed to go on."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        save_state(self.recipe.run, state)

    def resume(self) -> None:
        path = self.recipe.run / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])


def forward_mixed(network: LipCoordNet, pictures: Tensor, lips: Tensor) -> Tensor:
    """LipCoordNet.forward for training: (B, T, 28) float logits.

    pictures: uint8 crops (B, 3, T, 64, 128), or what the convolutions made of them (B, T, 3072). They run in
    bfloat16, the rest in float32.
    """
    shown = show_frames(network, pictures) if pictures.dtype == torch.uint8 else pictures.float()
    x = drop_maps(network, shown).transpose(0, 1)
    x = network._drop(network.gru1(x)[0])
    x = network._drop(network.gru2(x)[0])
    points = network._drop(network.coord_gru(lips.permute(1, 0, 2, 3).flatten(2))[0])
    logits: Tensor = network.FC(torch.cat([x, points], dim=2))
    return logits.transpose(0, 1)


def losses_of(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """CTC per character and cross-entropy per frame, of (B, T, 28) logits.

    The cross-entropy is among characters alone: which frames are blank is CTC's to choose, and asking for a
    character in every frame would work against it.
    """
    n_clips, n_frames = logits.shape[:2]
    log_p = functional.log_softmax(logits, dim=2)
    n_inputs = torch.full((n_clips,), n_frames, dtype=torch.long)
    ctc = functional.ctc_loss(
        log_p.transpose(0, 1), batch.symbols, n_inputs, batch.n_symbols, blank=BLANK, zero_infinity=True
    )
    characters = logits[..., FIRST_SYMBOL:].flatten(0, 1)
    spread = functional.cross_entropy(characters, batch.frame_classes.flatten(), ignore_index=NO_TARGET)
    return ctc, spread


def rate_at(part: float) -> float:
    """The learning rate as a part of its peak: a linear climb, then half a cosine down."""
    if part < WARM_UP:
        return LOWEST_RATE + (1 - LOWEST_RATE) * part / WARM_UP
    fall = (part - WARM_UP) / (1 - WARM_UP)
    return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * fall)) / 2


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the network: decay of it stays."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def group_by_person(clips: Iterable[MouthClip]) -> dict[str, list[MouthClip]]:
    people: dict[str, list[MouthClip]] = {}
    for clip in clips:
        people.setdefault(clip.person, []).append(clip)
    return people


def draw_parts(clip: MouthClip, of_person: Sequence[MouthClip], rng: np.random.Generator) -> list[MouthClip]:
    """The clip and one or two others of the same person, in any order."""
    parts = [clip, *(of_person[i] for i in rng.integers(0, len(of_person), rng.integers(1, 3)))]
    return [parts[i] for i in rng.permutation(len(parts))]


def draw_windows(clips: Sequence[MouthClip], seed: int) -> Iterator[Sample]:
    """A window for each clip, always the same."""
    people = group_by_person(clips)
    for i, clip in enumerate(clips):
        rng = np.random.default_rng((seed, i))
        yield cut_anywhere([sample_of(one) for one in draw_parts(clip, people[clip.person], rng)], rng)


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    frames = torch.from_numpy(np.stack([sample.frames for sample in samples]))  # (B, T, H, W, 3) or (B, T, 3072)
    classes = [spread_characters(sample.words, sample.slots, sample.within) for sample in samples]
    symbols = [symbols_of(sample.text) for sample in samples]
    return Batch(
        pictures=(frames.permute(0, 4, 1, 2, 3) if frames.ndim == 5 else frames).to(device),
        lips=torch.from_numpy(np.stack([sample.lips for sample in samples])).to(device),
        frame_classes=torch.from_numpy(np.stack(classes)).to(device),
        symbols=torch.from_numpy(np.concatenate(symbols)).to(device),
        n_symbols=torch.tensor([len(one) for one in symbols]),
    )


@torch.no_grad()
def score_samples(network: LipCoordNet, samples: Iterable[Sample], batch: int, device: torch.device) -> Score:
    """Greedy error rates; dropout is off, and comes back as it was."""
    was_training = network.training
    network.eval()
    pairs: list[tuple[str, str]] = []
    iterator = iter(samples)
    while chosen := list(islice(iterator, batch)):
        tensors = collate(chosen, device)
        labels = forward_mixed(network, tensors.pictures, tensors.lips).argmax(2).cpu().numpy()
        pairs += [(one.text, text_of(decode_greedy(row))) for one, row in zip(chosen, labels, strict=True)]
    network.train(was_training)
    return score_texts(pairs)


def write_weights(network: nn.Module, path: Path) -> None:
    """The network's tensors as float16 safetensors, replaced in one move."""
    tensors = {key: value.detach().half().cpu().contiguous() for key, value in network.state_dict().items()}
    write_tensors(tensors, path)


def split_clips(recipe: Recipe) -> tuple[list[MouthClip], Parts]:
    """Clips to train on, and clips held out of each folder: the same for the same seed. Clips to leave out
    are in neither.
    """
    banned = set(recipe.leave_out.read_text().split()) if recipe.leave_out else set()
    kept: list[MouthClip] = []
    held_out: Parts = {}
    for folder in recipe.mouths:
        clips = [clip for clip in load_packs(folder) if clip.name not in banned]
        order = np.random.default_rng(recipe.seed).permutation(len(clips))[: recipe.n_clips]
        n_held_out = min(recipe.held_out, len(order) // 4)
        held_out[str(folder)] = [clips[i] for i in order[:n_held_out]]
        kept += [clips[i] for i in order[n_held_out:]]
    return kept, held_out


def train(recipe: Recipe) -> None:
    """Run a recipe to its end, or on from its last checkpoint."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # its threads would only compete with torch's
    recipe.run.mkdir(parents=True, exist_ok=True)
    training = Training(recipe, *split_clips(recipe))
    training.resume()
    if training.progress.epoch == 0:
        start = training.score(training.network)
        log_line(recipe.run, {"epoch": 0, "start": plain(start), "n_clips": len(training.clips)})
    while training.part_done() < 1:
        began = time.monotonic()
        means = training.run_epoch()
        scored = time.monotonic()
        is_due = training.progress.epoch % recipe.score_every == 0 or training.part_done() >= 1
        scores = training.keep_best() if is_due else {}
        training.progress.elapsed_s += time.monotonic() - scored
        training.save()
        log_line(recipe.run, epoch_line(training, means, scores, time.monotonic() - began))


def epoch_line(
    training: Training, means: dict[str, float], scores: dict[str, dict[str, Score]], took_s: float
) -> dict[str, object]:
    return {
        "epoch": training.progress.epoch,
        "part_done": round(training.part_done(), 4),
        "rate": training.optimiser.param_groups[0]["lr"],
        **means,
        **{name: plain(parts) for name, parts in scores.items()},
        "best_wer": training.progress.best_wer,
        "took_s": round(took_s, 1),
    }


def plain(parts: dict[str, Score]) -> dict[str, dict[str, float]]:
    return {name: asdict(score) for name, score in parts.items()}


def log_line(run: Path, line: dict[str, object]) -> None:
    text = json.dumps(line)
    with (run / "log.jsonl").open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_reading.train", description=__doc__.splitlines()[0])
    parser.add_argument("--mouths", type=Path, nargs="+", required=True, help="folders of packs of mouth crops (.npz)")
    parser.add_argument("--start", type=Path, help="weights to carry on from; from nothing without them")
    parser.add_argument("-o", "--run", type=Path, required=True, help="folder for checkpoints, weights and log")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--minutes", type=float, help="end the schedule after this time, if epochs take longer")
    parser.add_argument("--peak-rate", type=float, default=Recipe.peak_rate)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--dropout", type=float, default=Recipe.dropout)
    parser.add_argument("--views", type=int, default=Recipe.views, help="freeze the convolutions, over views made once")
    parser.add_argument("--joined", type=float, default=Recipe.joined, help="part of the samples cut out of several")
    parser.add_argument("--averaging", type=float, default=Recipe.averaging)
    parser.add_argument("--held-out", type=int, default=Recipe.held_out, help="clips of each folder kept for scoring")
    parser.add_argument("--score-every", type=int, default=Recipe.score_every, help="epochs between two scorings")
    parser.add_argument("--leave-out", type=Path, help="file of clip names never to train on")
    parser.add_argument("--n-clips", type=int, help="use only so many clips, for a trial")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    asked = vars(parser.parse_args(words))
    return Recipe(**asked | {"mouths": tuple(asked["mouths"])})


if __name__ == "__main__":
    train(read_recipe())
