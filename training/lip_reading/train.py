"""Train LipCoordNet from packs of mouth crops, from random or existing weights.

    python -m training.lip_reading.train --mouths PACKS [MORE_PACKS] [--start model.safetensors] -o RUN --epochs 20

The same command again resumes where it stopped. RUN/log.jsonl has a line per epoch, called a round.
RUN/model.safetensors has the best weights so far (float16): those with the lowest mean of the word error rates on the
held-out clips of each folder. What matters in the recipe: a warm restart of the learning rate, low dropout, windows cut
anywhere out of several clips beside whole clips, and characters spread over the aligned words as a second loss that
fades out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from inference.dimensions.lip_coord_net import CONV_WIDTHS
from inference.lip_reading.greedy_decoder import BLANK, FIRST_SYMBOL, decode_greedy, join_characters
from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from training.common.checkpoint import write_half_precision
from training.common.loop import (
    Progress,
    Training,
    clip_and_step,
    learning_rate_at,
    prepare_run,
    run_to_end,
    set_learning_rate,
    update_average,
)
from training.common.mouth_packs import MouthClip, load_packs
from training.common.options import Option, parse_options
from training.lip_reading.augmentation import Augmentation, MouthSample, transform_lips, warp_time
from training.lip_reading.cached_features import CachedViews, cache_views, convolve, drop_maps, load_sample
from training.lip_reading.concatenate import cut_window
from training.lip_reading.disguise import disguise
from training.lip_reading.initialise import initialise_network
from training.lip_reading.scoring import ErrorRates, measure_error_rates
from training.lip_reading.splice import N_HEAD_WORDS, splice_words
from training.lip_reading.targets import NO_TARGET, spread_characters, text_classes

SPREAD_WEIGHT = 0.3  # weight of the per-frame loss at the start
SPREAD_END = 0.6  # share of the run after which CTC is the only loss
EPOCH_SEED_STRIDE = 100_003  # keeps the random draws of an epoch apart from those of other seeds


@dataclass(frozen=True)
class LipReadingRecipe:
    """Options of one run."""

    mouths: Annotated[tuple[Path, ...], Option("folders of packs of mouth crops (.npz)")]
    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    start: Annotated[Path | None, Option("weights to start from; random by default")] = None
    epochs: Annotated[int, Option("passes over the clips")] = 20
    minutes: Annotated[float | None, Option("end of the learning-rate schedule, if epochs take longer")] = None
    peak_rate: Annotated[float, Option("highest learning rate")] = 6e-4
    batch: Annotated[int, Option("clips per step")] = 4
    dropout: Annotated[float, Option("dropout probability")] = 0.12
    views: Annotated[int, Option("freeze the convolutions and cache their output for this many views of each clip")] = 0
    joined: Annotated[float, Option("share of samples cut out of several concatenated clips")] = 0.35
    averaging: Annotated[float, Option("decay of the moving average of the weights, per step")] = 0.998
    held_out: Annotated[int, Option("clips of each folder kept for scoring")] = 40
    score_every: Annotated[int, Option("epochs between scorings; the last epoch is always scored")] = 1
    leave_out: Annotated[Path | None, Option("file of clip names to exclude, one a line")] = None
    shares: Annotated[tuple[float, ...], Option("share of samples from each folder; its people get equal parts")] = ()
    spliced: Annotated[
        tuple[float, ...], Option("share of each folder's samples spliced of words of several clips")
    ] = ()
    disguised: Annotated[float, Option("share of samples disguised as those of a random other person")] = 0.0
    frozen: Annotated[int, Option("convolutions, from the first one on, that keep their weights")] = 0
    unscored: Annotated[tuple[Path, ...], Option("folders too small to keep clips of for scoring")] = ()
    strangers: Annotated[tuple[str, ...], Option("people whose clips are all kept for scoring, not random ones")] = ()
    n_clips: Annotated[int | None, Option("use only this many clips of each folder, for a trial")] = None
    seed: Annotated[int, Option("random seed")] = 7
    threads: Annotated[int, Option("CPU threads")] = 2

    def __post_init__(self) -> None:
        for name, values in (("shares", self.shares), ("spliced", self.spliced)):
            if values and (len(values) != len(self.mouths) or not all(0 <= value <= 1 for value in values)):
                raise ValueError(f"{name}: expected {len(self.mouths)} values of 0..1, one for each folder: {values}")
        if not 0 <= self.disguised <= 1:
            raise ValueError(f"disguised: expected 0..1, found {self.disguised:g}")
        if not 0 <= self.frozen <= len(CONV_WIDTHS):
            raise ValueError(f"frozen: expected 0 to {len(CONV_WIDTHS)}, found {self.frozen}")
        if self.shares and not math.isclose(sum(self.shares), 1):
            raise ValueError(f"shares: expected a sum of 1, found {sum(self.shares):g}")
        if self.views and (any(self.spliced) or self.disguised):
            raise ValueError("spliced, disguised: not with views, which are features of whole clips")


@dataclass(frozen=True)
class ReadingBatch:
    """Tensors of a few clips."""

    frames: Tensor  # (B, 3, T, 64, 128) uint8, channels last in memory; or cached features (B, T, 3072)
    lips: Tensor  # (B, T, 20, 2) float
    frame_classes: Tensor  # (B, T)
    symbols: Tensor  # characters of all clips, one clip after another
    n_symbols: Tensor  # (B,)


@dataclass
class ReadingProgress(Progress):
    """A round is an epoch. best: negated word and character error rates. elapsed_s: time spent training."""

    elapsed_s: float = 0.0


ClipsByFolder = dict[str, list[MouthClip]]


class LipReadingTraining(Training):
    """LipCoordNet and the moving average of its weights, in training."""

    progress: ReadingProgress

    def __init__(self, recipe: LipReadingRecipe, trained: ClipsByFolder, held_out: ClipsByFolder) -> None:
        super().__init__(recipe.run, ReadingProgress(), "cuda" if torch.cuda.is_available() else "cpu")
        clips = [clip for of_folder in trained.values() for clip in of_folder]
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        self.network = LipCoordNet() if recipe.start else initialise_network(clips, recipe.seed)
        if recipe.start:
            load_into(self.network, recipe.start)
        self.average = LipCoordNet()
        self.average.load_state_dict(self.network.state_dict())
        for network in (self.network, self.average):
            network.to(self.device)
            network._drop.p = network._drop_maps.p = recipe.dropout
        # Sorted by name: an optimiser's state refers to parameters by position, and the order of layers may change.
        named = sorted(self.network.named_parameters())
        n_frozen = len(CONV_WIDTHS) if recipe.views else recipe.frozen
        frozen = tuple(f"conv{i + 1}." for i in range(n_frozen))
        self.weights = [weight for name, weight in named if not name.startswith(frozen)]
        self.optimiser = torch.optim.AdamW(self.weights, lr=recipe.peak_rate, betas=(0.9, 0.98))
        # A batch is split into shares, each for one thread: threads that share the small steps of a recurrent layer
        # wait for one another at each step, which costs several times the work on a busy machine.
        self.n_shares = recipe.threads if self.device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(self.n_shares, initializer=torch.set_num_threads, initargs=(1,))
        self.augmentation = Augmentation(recipe.seed)
        self.epoch_steps = math.ceil(len(clips) * max(1, recipe.views) / recipe.batch)
        self.views: CachedViews = {}
        if recipe.views:
            self.network.eval()
            self.views = cache_views(self.network, clips, recipe.views, self.augmentation, recipe.seed, self.pool)
        self.by_person = group_by_person(clips)
        self.folders = [list(group_by_person(of_folder).values()) for of_folder in trained.values()]
        spliced = recipe.spliced or (0.0,) * len(self.folders)
        self.spliced = {
            people[0].person: share for folder, share in zip(self.folders, spliced, strict=True) for people in folder
        }
        self.heads = [folder for folder, share in zip(self.folders, spliced, strict=True) if not share] or self.folders

    def part_done(self) -> float:
        """Return the share of the run that is over, 0..1.

        By steps or by the clock, whichever is further: so the learning rate ends low on a busy machine, too.
        """
        by_steps = self.progress.n_steps / (self.epoch_steps * self.recipe.epochs)
        by_clock = self.progress.elapsed_s / (60 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return min(max(by_steps, by_clock), 1.0)

    def describe_start(self) -> dict[str, object]:
        return {"start": as_dicts(self.score(self.network)), "n_clips": len(self.clips)}

    def run_round(self) -> dict[str, object]:
        """Train for an epoch, and score if it is due."""
        means = self.run_epoch()
        began = time.monotonic()
        is_due = self.progress.n_rounds % self.recipe.score_every == 0 or self.part_done() >= 1
        scores = self.keep_best() if is_due else {}
        self.progress.elapsed_s += time.monotonic() - began
        return {
            "rate": self.optimiser.param_groups[0]["lr"],
            **means,
            **{name: as_dicts(rates) for name, rates in scores.items()},
            "best_wer": -self.progress.best[0],
        }

    def run_epoch(self) -> dict[str, float]:
        """Train on every clip once, or until the clock runs out. Return the means of the losses."""
        self.network.train()
        torch.manual_seed(self.recipe.seed + EPOCH_SEED_STRIDE * self.progress.n_rounds)
        rng = np.random.default_rng((self.recipe.seed, self.progress.n_rounds))
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
        self.progress.n_rounds += 1
        return {key: round(value / n_steps, 4) for key, value in sums.items()}

    def batches(self, rng: np.random.Generator) -> Iterator[list[MouthClip]]:
        if self.recipe.shares:
            for first in range(0, len(self.clips), self.recipe.batch):
                folders = rng.choice(
                    len(self.folders), min(self.recipe.batch, len(self.clips) - first), p=self.recipe.shares
                )
                yield [draw_clip(self.folders[i], rng) for i in folders]
            return
        order = rng.permutation(np.repeat(np.arange(len(self.clips)), max(1, self.recipe.views)))
        for first in range(0, len(order), self.recipe.batch):
            yield [self.clips[i] for i in order[first : first + self.recipe.batch]]

    def draw_sample(self, clip: MouthClip, rng: np.random.Generator) -> MouthSample:
        """Draw an augmented copy of the clip, of a window of it and other clips, or of words of several clips."""
        of_person = self.by_person[clip.person]
        if rng.random() < self.spliced[clip.person]:
            sample = warp_time(self.draw_spliced(clip, of_person, rng), rng)
        elif len(of_person) > 1 and rng.random() < self.recipe.joined:
            sample = cut_window([self.draw_view(one, rng) for one in draw_parts(clip, of_person, rng)], rng)
        else:
            sample = warp_time(self.draw_view(clip, rng), rng)
        if rng.random() < self.recipe.disguised:
            sample = disguise(sample, load_sample(self.draw_other(clip.person, rng)), rng)
        if self.recipe.views:
            return replace(sample, lips=transform_lips(sample.lips, rng))
        return self.augmentation.augment(sample, rng)

    def draw_other(self, person: str, rng: np.random.Generator) -> MouthClip:
        """Draw a clip of somebody else; each folder is equally likely, and each person in it."""
        folders = [[of_one for of_one in folder if of_one[0].person != person] for folder in self.folders]
        others = [folder for folder in folders if folder]
        if not others:
            raise ValueError(f"disguised: expected clips of at least two people, found only those of {person}")
        return draw_clip(others[rng.integers(len(others))], rng)

    def draw_spliced(self, clip: MouthClip, of_person: Sequence[MouthClip], rng: np.random.Generator) -> MouthSample:
        """Splice words of the person's clips onto the first words of somebody of a folder that is not spliced."""
        head = draw_clip(self.heads[rng.integers(len(self.heads))], rng)
        n_others = len(clip.words) - N_HEAD_WORDS - 1
        tails = [clip, *(of_person[i] for i in rng.integers(0, len(of_person), n_others))]
        return splice_words(load_sample(head), [load_sample(tails[i]) for i in rng.permutation(len(tails))])

    def draw_view(self, clip: MouthClip, rng: np.random.Generator) -> MouthSample:
        """Return the clip, or a random one of its cached views."""
        return self.views[clip.name][rng.integers(self.recipe.views)] if self.recipe.views else load_sample(clip)

    def step(self, clips: Sequence[MouthClip]) -> dict[str, float]:
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        shares = [clips[i :: self.n_shares] for i in range(min(self.n_shares, len(clips)))]
        found = list(self.pool.map(self.find_gradients, shares, range(len(shares))))
        parts = [len(share) / len(clips) for share in shares]
        for weight, *gradients in zip(self.weights, *(gradients for gradients, _ in found), strict=True):
            weight.grad = sum((g * p for g, p in zip(gradients, parts, strict=True)), torch.zeros_like(weight))
        norm = clip_and_step(self.optimiser)
        self.progress.n_steps += 1
        update_average(self.average, self.network, self.recipe.averaging, self.progress.n_steps)
        means = {key: sum(losses[key] * p for (_, losses), p in zip(found, parts, strict=True)) for key in found[0][1]}
        return means | {"norm": norm}

    def find_gradients(self, clips: Sequence[MouthClip], share: int) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """Compute the gradient of each weight and the losses, for one share of a step."""
        rng = np.random.default_rng((self.recipe.seed, self.progress.n_steps, share))
        batch = collate([self.draw_sample(clip, rng) for clip in clips], self.device)
        ctc, spread = compute_losses(forward_mixed_precision(self.network, batch.frames, batch.lips), batch)
        loss = ctc + SPREAD_WEIGHT * max(0.0, 1 - self.part_done() / SPREAD_END) * spread
        return torch.autograd.grad(loss, self.weights), {
            "loss": loss.item(),
            "ctc": ctc.item(),
            "spread": spread.item(),
        }

    def keep_best(self) -> dict[str, dict[str, ErrorRates]]:
        """Score the network and its average on the held-out clips; write the weights if they are the best yet."""
        networks = {"network": self.network, "average": self.average}
        scores = dict(zip(networks, self.pool.map(self.score, networks.values()), strict=True))
        for name, network in networks.items():
            rates = scores[name].values()
            wer, cer = (float(np.mean([getattr(one, key) for one in rates])) for key in ("wer", "cer"))
            if self.is_best(-wer, -cer):
                write_half_precision(network, self.run / "model.safetensors")
        return scores

    def score(self, network: LipCoordNet) -> dict[str, ErrorRates]:
        """Measure error rates on the held-out clips of each folder, and on windows of several of them."""
        scores = {}
        for name, clips in self.held_out.items():
            scores[name] = score_samples(network, map(load_sample, clips), self.recipe.batch, self.device)
            if self.recipe.joined:
                windows = draw_windows(clips, self.recipe.seed)
                scores[f"{name}, joined"] = score_samples(network, windows, self.recipe.batch, self.device)
        return scores

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}


def forward_mixed_precision(network: LipCoordNet, frames: Tensor, lips: Tensor) -> Tensor:
    """Run LipCoordNet for training: (B, T, 28) float logits. Convolutions use mixed precision, the rest float32.

    frames: uint8 crops (B, 3, T, 64, 128), or features of the convolutions (B, T, 3072).
    """
    features = convolve(network, frames) if frames.dtype == torch.uint8 else frames.float()
    x = drop_maps(network, features).transpose(0, 1)
    x = network._drop(network.gru1(x)[0])
    x = network._drop(network.gru2(x)[0])
    points = network._drop(network.coord_gru(lips.permute(1, 0, 2, 3).flatten(2))[0])
    logits: Tensor = network.FC(torch.cat([x, points], dim=2))
    return logits.transpose(0, 1)


def compute_losses(logits: Tensor, batch: ReadingBatch) -> tuple[Tensor, Tensor]:
    """Compute CTC per character and cross-entropy per frame, of (B, T, 28) logits.

    The cross-entropy is among characters only: CTC decides which frames are blank, and a target in every frame would
    work against it.
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


def group_by_person(clips: Iterable[MouthClip]) -> dict[str, list[MouthClip]]:
    people: dict[str, list[MouthClip]] = {}
    for clip in clips:
        people.setdefault(clip.person, []).append(clip)
    return people


def draw_clip(people: Sequence[Sequence[MouthClip]], rng: np.random.Generator) -> MouthClip:
    """Draw a clip; each person is equally likely."""
    clips = people[int(rng.integers(len(people)))]
    return clips[int(rng.integers(len(clips)))]


def draw_parts(clip: MouthClip, of_person: Sequence[MouthClip], rng: np.random.Generator) -> list[MouthClip]:
    """Return the clip and one or two others of the same person, in random order."""
    parts = [clip, *(of_person[i] for i in rng.integers(0, len(of_person), rng.integers(1, 3)))]
    return [parts[i] for i in rng.permutation(len(parts))]


def draw_windows(clips: Sequence[MouthClip], seed: int) -> Iterator[MouthSample]:
    """Yield a window for each clip; the same for the same seed."""
    people = group_by_person(clips)
    for i, clip in enumerate(clips):
        rng = np.random.default_rng((seed, i))
        yield cut_window([load_sample(one) for one in draw_parts(clip, people[clip.person], rng)], rng)


def collate(samples: Sequence[MouthSample], device: torch.device) -> ReadingBatch:
    frames = torch.from_numpy(np.stack([sample.frames for sample in samples]))  # (B, T, H, W, 3) or (B, T, 3072)
    classes = [spread_characters(sample.words, sample.word_indices, sample.word_progress) for sample in samples]
    symbols = [text_classes(sample.text) for sample in samples]
    return ReadingBatch(
        frames=(frames.permute(0, 4, 1, 2, 3) if frames.ndim == 5 else frames).to(device),
        lips=torch.from_numpy(np.stack([sample.lips for sample in samples])).to(device),
        frame_classes=torch.from_numpy(np.stack(classes)).to(device),
        symbols=torch.from_numpy(np.concatenate(symbols)).to(device),
        n_symbols=torch.tensor([len(one) for one in symbols]),
    )


@torch.no_grad()
def score_samples(network: LipCoordNet, samples: Iterable[MouthSample], batch: int, device: torch.device) -> ErrorRates:
    """Measure error rates of greedy decoding. Dropout is off meanwhile; the training mode is restored."""
    was_training = network.training
    network.eval()
    pairs: list[tuple[str, str]] = []
    iterator = iter(samples)
    while chosen := list(islice(iterator, batch)):
        tensors = collate(chosen, device)
        labels = forward_mixed_precision(network, tensors.frames, tensors.lips).argmax(2).cpu().numpy()
        pairs += [(one.text, join_characters(decode_greedy(row))) for one, row in zip(chosen, labels, strict=True)]
    network.train(was_training)
    return measure_error_rates(pairs)


def split_clips(recipe: LipReadingRecipe) -> tuple[ClipsByFolder, ClipsByFolder]:
    """Return the clips to train on and the held-out clips of each folder; the same for the same seed.

    Excluded clips are in neither, and do not change which others are held out. Of a folder with clips of
    `recipe.strangers`, these are held out.
    """
    excluded = set(recipe.leave_out.read_text().split()) if recipe.leave_out else set()
    trained, held_out = ClipsByFolder(), ClipsByFolder()
    for folder in recipe.mouths:
        clips = load_packs(folder)
        order = np.random.default_rng(recipe.seed).permutation(len(clips))[: recipe.n_clips]
        if folder in recipe.unscored:
            trained[str(folder)] = [clips[i] for i in order if clips[i].name not in excluded]
            continue
        of_strangers = {i for i in order if clips[i].person in recipe.strangers}
        held = of_strangers or set(order[: min(recipe.held_out, len(order) // 4)])
        kept = [i for i in order if clips[i].name not in excluded]
        held_out[str(folder)] = [clips[i] for i in kept if i in held]
        trained[str(folder)] = [clips[i] for i in kept if i not in held]
    return trained, held_out


def as_dicts(rates: dict[str, ErrorRates]) -> dict[str, dict[str, float]]:
    return {name: asdict(one) for name, one in rates.items()}


def train(recipe: LipReadingRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, n_threads=1)  # LipReadingTraining has its own threads
    run_to_end(LipReadingTraining(recipe, *split_clips(recipe)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(LipReadingRecipe, "training.lip_reading.train", __doc__, arguments))


if __name__ == "__main__":
    main()
