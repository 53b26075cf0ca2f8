"""Train a narrow Wav2Lip from packs of talking faces.

    python -m training.lip_sync --talking PACKS [MORE_PACKS] -o RUN

First a judge learns where the lips are in the lower half of a face, then the audio encoder what lips do with a sound,
of the clips' voices and of espeak-ng's; both take minutes. Then the whole network learns to draw the face that says
it, from the upper half of another frame of the clip and a third one whole, as one face is shown in use while it fits:
as close to the true one as it can be, most of all in the mouth, and so that the judge finds the lips where they were
(the loss that keeps them in step with the sound). At the end mouths are also to be like the true ones in structure,
which errors of single pixels leave soft; that costs strangers some of the step with their voice, and the mean of the
weights before and after has most of both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). The judge
is not shipped. All of it is counted in steps: the same seed, packs and threads give the same again. The same command
again goes on where it stopped. RUN/log.jsonl has a line per round, RUN/model.safetensors (float16) the best weights so
far by how the mouths of held-out clips go with theirs, and the last ones of the end.
"""

from __future__ import annotations

import argparse
import copy
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.faces.load import load_landmarker
from inference.faces.ssim import SIGMA, STABLE, WINDOW
from inference.lip_sync.preprocess import MASKED_FROM, SIDE, stack_faces
from inference.lip_sync.reference import SteadyReference
from inference.models import Wav2Lip, Wav2LipWidths
from inference.settings import Settings
from inference.weights.tensors import read_tensors
from training.checkpoint import load_state, save_state, write_tensors
from training.drawn_mouths import DrawnMouths
from training.lip_reading import log_line, rate_at
from training.sounds import N_SHAPE, Heard, draw_heard, speak_voices
from training.talking import TalkingClip, load_talking
from training.talking_samples import (
    INNER_BOTTOM,
    INNER_TOP,
    Batch,
    Talking,
    add_mirrored,
    cut_plain,
    draw_batch,
    gap_of,
    prepare,
    prepare_steady,
)

Module = TypeVar("Module", bound=nn.Module)

WIDTHS = Wav2LipWidths(
    face_encoder=(8, 16, 32, 48, 64, 128, 128),
    audio_encoder=(16, 32, 64, 128, 256),
    face_decoder=(128, 128, 128, 96, 64, 48, 24),
    output=16,
)
JUDGE_WIDTHS = (16, 32, 64, 96)
N_LIP_NUMBERS = 40
LUMA = (0.114, 0.587, 0.299)  # of blue, green and red
LOWER_WEIGHT, MOUTH_WEIGHT = 2.0, 8.0  # of errors, against 1 in the upper half
MOUTH_REACH = 6.0  # px around the lips that count as the mouth
EDGE_WEIGHT = 0.5  # of errors of the differences between neighbours, which blur shows in
# A px of error of the lips, against levels of 0..1: at first, so that it listens, and from then on.
FIRST_LIPS_WEIGHT, LIPS_WEIGHT = 0.2, 0.1
GAP_WEIGHT = 3.0  # of the gap between the lips, against a point
SOFT_PX, SOFT_GAP_PX = 1.0, 0.2  # errors of lips below it, and of the gap between them, count by their square
SPREAD_WEIGHT, LEAST_MOVED = 0.3, 0.75  # of lips that move less than so many times as far as theirs do
SHOWN_WEIGHT = 1.0  # of lips that go with those of the face that is shown
# Samples without a reference, at first and from then on: with one at hand it keeps the mouth shown before it listens.
FIRST_BLIND_SHARE, BLIND_SHARE = 0.5, 0.25
FIRST_PART = 0.3  # of the training, in which lips count for more
ALIKE_WEIGHT, SHARP_RATE = 1.0, 0.5  # at the end: of how unlike mouths are, and of the peak rate
SHARP_SHARE = 0.5  # of what the end changes in the weights
MIRROR_WEIGHT = 0.5  # of what is drawn otherwise on a mirrored face: lips were drawn open on one side
GRADIENT_NORM = 1.0
EAR_BATCHES = 5  # a step of the audio encoder alone takes so many times more, as it is so much cheaper
# While the whole is trained the audio encoder goes on learning from voices that have no face.
HEARD_BATCHES, HEARD_WEIGHT = 2, 0.15
COARSEST = 1.6  # the judge sees pictures with up to so many times fewer pixels a side, so that blur does not fool it
# While the whole is trained the judge goes on learning, from filmed faces and from as many of the last drawn ones.
LOOK_EVERY, LOOKED_AT, DRAWN_KEPT = 2, 12, 1500
LEAST_SHARE = 0.1  # of what true gaps and shown ones would differ by were they independent: less is not divided by
STAGES = ("judge", "ear", "whole", "sharp")
DRAWING = STAGES[2:]
NOTHING = 1e-6
ROUND_STRIDE = 100_003  # keeps the draws of one round apart from the next one's
SCORE_BATCH = 25


@dataclass(frozen=True)
class Recipe:
    """One run."""

    talking: tuple[Path, ...]  # folders of packs
    run: Path
    start: Path | None = None  # a run's checkpoint.pt, or weights, whose network is carried on from
    judge_steps: int = 600
    ear_steps: int = 1600  # of the audio encoder alone
    steps: int = 13_000  # of the whole
    sharp_steps: int = 1800  # of the whole, for sharper mouths
    n_voices: int = 1600  # utterances of espeak-ng beside the clips' own sound; 0 where it is not installed
    batch: int = 24
    round_steps: int = 400
    peak_rate: float = 1.5e-3
    held_out: float = 0.06  # of each folder, never trained on
    most_scored: int = 10  # of those, scored while it trains
    n_clips: int | None = None  # only so many of each folder, for a trial
    seed: int = 5
    threads: int = 2
    precision: str = "bf16"


class Judge(nn.Module):
    """Where the lips are in the lower half of a face: (B, 20, 2) px of 96, of (B, 3, 48, 96).

    It sees no colours, so that there is nothing to be had from lips of a wrong one.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 1
        for n_out in JUDGE_WIDTHS:
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [nn.Conv2d(n_out, n_out, 3, 1, 1), nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.points = nn.Linear(n_in * 3 * 6, N_LIP_NUMBERS)

    def forward(self, lower: Tensor) -> Tensor:
        found: Tensor = self.points(self.layers(grey_of(lower)).flatten(1)).float()
        middle = found.new_tensor([SIDE / 2, SIDE * 0.78])
        points: Tensor = found.view(-1, 20, 2) * 10 + middle
        return points


class Ear(nn.Module):
    """The audio encoder with a reading of the lips on top: gap, height and width of the mouth, standardised."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.shape = nn.Linear(WIDTHS.audio_encoder[-1], N_SHAPE)

    def forward(self, mels: Tensor) -> Tensor:
        heard: Tensor = self.shape(self.encoder(mels).flatten(1))
        return heard.float()


def shape_of(lips: Tensor) -> Tensor:
    """Gap, height and width of the mouth, (B, 3) px, of (B, 20, 2)."""
    gap = (lips[:, INNER_BOTTOM, 1] - lips[:, INNER_TOP, 1]).mean(1)
    height = lips[:, 9, 1] - lips[:, 3, 1]
    width = lips[:, 6, 0] - lips[:, 0, 0]
    return torch.stack([gap, height, width], dim=1)


@dataclass
class Progress:
    """How far a run is; kept with its checkpoint."""

    n_rounds: int = 0
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    best: float = -math.inf


Parts = dict[str, list[Talking]]  # by the name of their folder


class Training:
    """The networks under training, their optimisers and how far they are."""

    def __init__(self, recipe: Recipe, clips: Sequence[Talking], held_out: Parts) -> None:
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        torch.manual_seed(recipe.seed)
        self.network = channels_last(Wav2Lip(WIDTHS))
        self.judge = channels_last(Judge())
        self.ear = Ear(self.network.audio_encoder)
        self.optimisers = {
            "judge": optimiser_of(self.judge),
            "ear": optimiser_of(self.ear),
            "whole": optimiser_of(self.network),
            "sharp": optimiser_of(self.network),
        }
        self.progress = Progress()
        self.soft: dict[str, Tensor] = {}  # the network's weights when the last stage began
        each = (recipe.judge_steps, recipe.ear_steps, recipe.steps, recipe.sharp_steps)
        self.budgets = dict(zip(STAGES, each, strict=True))
        self.heard = [hear_clips(clips)]
        if recipe.n_voices:
            self.heard.append(speak_voices(recipe.n_voices, recipe.seed))
        self.drawn = DrawnMouths(load_landmarker("mediapipe", Settings.from_env().weight_sources), clips, DRAWN_KEPT)

    def part_done(self) -> float:
        done = sum(min(self.progress.steps[name], budget) for name, budget in self.budgets.items())
        return done / sum(self.budgets.values())

    def stage(self) -> tuple[str, float]:
        """What is being trained, and how much of it is over."""
        for name, budget in self.budgets.items():
            if self.progress.steps[name] < budget:
                return name, self.progress.steps[name] / budget
        return STAGES[-1], 1.0

    def is_first(self) -> bool:
        """Whether the network has yet to learn to listen."""
        stage, part_done = self.stage()
        return stage == "whole" and part_done < FIRST_PART and self.recipe.start is None

    def blind_share(self) -> float:
        """Of the samples: as in use, none has no face to look at in the end."""
        if self.stage()[0] == "sharp":
            return 0.0
        return FIRST_BLIND_SHARE if self.is_first() else BLIND_SHARE

    def run_round(self) -> tuple[str, float]:
        """Some steps, or fewer where a stage ends; its name and the mean of the losses."""
        stage, _ = self.stage()
        if stage == "sharp" and not self.soft:
            self.soft = {key: value.clone() for key, value in self.network.state_dict().items()}
        rng = np.random.default_rng((self.recipe.seed, ROUND_STRIDE + self.progress.n_rounds))
        n_left = self.budgets[stage] - self.progress.steps[stage]
        losses = []
        for _ in range(min(self.recipe.round_steps, n_left)):
            if stage in DRAWING and self.progress.steps[stage] % LOOK_EVERY == 0:
                self.look_at_drawn(rng)
            losses.append(self.step(stage, rng))
        self.progress.n_rounds += 1
        return stage, float(np.mean(losses))

    def step(self, stage: str, rng: np.random.Generator) -> float:
        if stage == "ear":
            loss = self.ear_loss(EAR_BATCHES, rng)
        else:
            batch = draw_batch(self.clips, self.recipe.batch // (2 if stage in DRAWING else 1), rng)
            if stage in DRAWING:
                hide_references(batch, self.blind_share())
                loss = self.whole_loss(add_mirrored(batch), rng)
            else:
                loss = self.judge_loss(batch.wanted, batch.lips, rng)
        self.learn(stage, loss, self.stage()[1])
        self.progress.steps[stage] += 1
        return loss.item()

    def learn(self, name: str, loss: Tensor, part_done: float) -> None:
        """One step of an optimiser."""
        optimiser = self.optimisers[name]
        peak = self.recipe.peak_rate * (SHARP_RATE if self.stage()[0] == "sharp" else 1)
        for group in optimiser.param_groups:
            group["lr"] = peak * rate_at(part_done)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            [weight for group in optimiser.param_groups for weight in group["params"]], GRADIENT_NORM
        )
        if torch.isfinite(norm):
            optimiser.step()

    def look_at_drawn(self, rng: np.random.Generator) -> None:
        """The judge learns where a landmarker finds the lips in what is drawn by now, beside those of filmed faces."""
        self.drawn.add(self.network, min(LOOKED_AT, self.recipe.batch), rng)
        if not len(self.drawn):
            return
        batch = draw_batch(self.clips, self.recipe.batch // 2, rng)
        faces, lips = self.drawn.draw_batch(self.recipe.batch // 2, rng)
        loss = self.judge_loss(torch.cat([batch.wanted, faces]), torch.cat([batch.lips, lips]), rng)
        self.learn("judge", loss, self.stage()[1])

    def judge_loss(self, faces: Tensor, lips: Tensor, rng: np.random.Generator) -> Tensor:
        self.judge.train()
        with self.autocast():
            found = self.judge(lower_half(coarsen(faces, rng)))
        return lips_error(found, lips)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def ear_loss(self, n_batches: int, rng: np.random.Generator) -> Tensor:
        self.ear.train()
        mels, shapes, known = draw_heard(self.heard, self.recipe.batch * n_batches, rng)
        with self.autocast():
            heard = self.ear(mels.contiguous(memory_format=torch.channels_last))
        errors = functional.smooth_l1_loss(heard, shapes, beta=0.5, reduction="none")
        return (errors * known).sum() / known.sum()

    def whole_loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        self.network.train()
        self.judge.eval()
        weights = weights_of(batch.lips)
        mouth = weights == MOUTH_WEIGHT
        with self.autocast():
            drawn = self.network(batch.mels, batch.faces.contiguous(memory_format=torch.channels_last)).float()
            found = self.judge(lower_half(coarsen(judged_in(drawn, mouth), rng)))
        pixels = (weights * (drawn - batch.wanted).abs()).mean()
        edges = edge_error(drawn, batch.wanted, weights)
        lips_weight = FIRST_LIPS_WEIGHT if self.is_first() else LIPS_WEIGHT
        loss: Tensor = pixels + EDGE_WEIGHT * edges + lips_weight * lips_error(found, batch.lips)
        loss = loss + SPREAD_WEIGHT * spread_error(found, batch) + SHOWN_WEIGHT * shown_error(found, batch)
        loss = loss + MIRROR_WEIGHT * mirror_error(drawn, weights)
        if self.stage()[0] == "sharp":
            loss = loss + ALIKE_WEIGHT * (1 - likeness(drawn, batch.wanted, mouth))
        return loss + HEARD_WEIGHT * self.ear_loss(HEARD_BATCHES, rng)

    def made(self) -> Wav2Lip:
        """The network as it would be shipped by now; its last stage is gone into only in part."""
        if not self.soft:
            return self.network
        network = copy.deepcopy(self.network)
        network.load_state_dict(between(self.soft, network.state_dict(), SHARP_SHARE))
        return network

    @torch.no_grad()
    def score(self, network: Wav2Lip) -> dict[str, dict[str, float]]:
        network.eval()
        self.judge.eval()
        return {name: score_clips(network, self.judge, clips) for name, clips in self.held_out.items()}

    def keep_best(self) -> dict[str, dict[str, float]]:
        """Score the network; write it where it is the best yet, or at the end."""
        network = self.made()
        scores = self.score(network)
        mean = float(np.mean([one["voice"] for one in scores.values()]))
        if mean > self.progress.best or self.soft:
            self.progress.best = mean
            write_weights(network, self.recipe.run / "model.safetensors")
        return scores

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        modules = {"network": self.network, "judge": self.judge, "ear": self.ear}
        return {**modules, **{f"{name} optimiser": one for name, one in self.optimisers.items()}}

    def save(self) -> None:
        """Everything needed to go on."""
        state = {name: one.state_dict() for name, one in self.parts().items()}
        save_state(self.recipe.run, {"state": state, "soft": self.soft, "progress": asdict(self.progress)})

    def resume(self) -> None:
        kept = load_state(self.recipe.run)
        if kept is None:
            if self.recipe.start is not None:
                self.carry_on_from(self.recipe.start)
            return
        for name, one in self.parts().items():
            one.load_state_dict(kept["state"][name])
        self.soft = kept["soft"]
        self.progress = Progress(**kept["progress"])

    def carry_on_from(self, checkpoint: Path) -> None:
        """Take another run's network; the schedule and the optimisers are new, and the judge learns from nothing."""
        if checkpoint.suffix == ".safetensors":
            self.network.load_state_dict(self.network.state_dict() | read_tensors(checkpoint))
            return
        kept = torch.load(checkpoint, map_location="cpu", weights_only=True)["state"]
        for name in ("network", "ear"):
            self.parts()[name].load_state_dict(kept[name])


def between(one: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights that are so much of the way from one to the other; counts are the other's."""
    return {key: one[key].lerp(value, share) if value.is_floating_point() else value for key, value in other.items()}


def hear_clips(clips: Sequence[Talking]) -> list[Heard]:
    """What the clips sound like, and the mouths beside it, standardised over all of them."""
    shapes = [shape_of(torch.from_numpy(clip.lips)).numpy() for clip in clips]
    every = np.concatenate(shapes)
    mean, spread = every.mean(0), every.std(0)
    known = np.ones(N_SHAPE, np.float32)
    return [
        Heard(clip.sound, (shape - mean) / spread, known, clip.quiet) for clip, shape in zip(clips, shapes, strict=True)
    ]


def coarsen(faces: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures (B, 3, 96, 96) with less detail, or in most draws as they are."""
    share = 1 / max(rng.uniform(0, COARSEST), 1)
    if share == 1:
        return faces
    small = functional.interpolate(faces, scale_factor=share, mode="bilinear", antialias=True)
    return functional.interpolate(small, faces.shape[2:], mode="bilinear")


def channels_last(module: Module) -> Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def optimiser_of(module: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)


def hide_references(batch: Batch, share: float) -> None:
    """Blacken the second face of the first so many samples, which are as good as any: they are drawn at random."""
    n_hidden = round(share * len(batch.faces))
    batch.faces[:n_hidden, 3:] = 0
    batch.shown[:n_hidden] = batch.usual[:n_hidden, 0]  # nothing that lips could follow


def grey_of(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) of (B, 3, H, W) BGR."""
    return (pictures * pictures.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def lower_half(faces: Tensor) -> Tensor:
    return faces[:, :, MASKED_FROM:]


def lips_error(found: Tensor, wanted: Tensor) -> Tensor:
    """px, of the points and of the gap between the lips."""
    points = functional.smooth_l1_loss(found, wanted, beta=SOFT_PX)
    gaps = functional.smooth_l1_loss(shape_of(found)[:, 0], shape_of(wanted)[:, 0], beta=SOFT_GAP_PX)
    error: Tensor = points + GAP_WEIGHT * gaps
    return error


def mirror_error(drawn: Tensor, weights: Tensor) -> Tensor:
    """Of the second half of a batch, which is the first one mirrored."""
    first, second = drawn.chunk(2)
    error: Tensor = (weights.chunk(2)[0] * (first - second.flip(3)).abs()).mean()
    return error


def spread_error(found: Tensor, batch: Batch) -> Tensor:
    """How far the gaps' deviation, in units of each clip's own, falls short of what is least asked for; squared."""
    drawn, true = (unusual(shape_of(lips)[:, 0], batch).square().mean().sqrt() for lips in (found, batch.lips))
    error: Tensor = (LEAST_MOVED - drawn / true).clamp(min=0).square()
    return error


def shown_error(found: Tensor, batch: Batch) -> Tensor:
    """How far drawn gaps go with those of the faces that are shown, beside with the true ones: the share, squared."""
    gaps = (shape_of(found)[:, 0], shape_of(batch.lips)[:, 0], batch.shown)
    drawn, true, shown = (unusual(one, batch) - unusual(one, batch).mean() for one in gaps)
    both = (true * shown).mean()
    # Where the two are alike nothing can be told; of one sample and its mirror image nothing at all.
    least = LEAST_SHARE * true.square().mean() * shown.square().mean() + NOTHING
    rest = (true.square().mean() * shown.square().mean() - both.square()).clamp(min=least)
    share = ((drawn * shown).mean() * true.square().mean() - (drawn * true).mean() * both) / rest
    error: Tensor = share.square()
    return error


def unusual(gaps: Tensor, batch: Batch) -> Tensor:
    """(B,) gaps in px, as deviations from what is usual in their clips."""
    mean, spread = batch.usual.unbind(1)
    deviations: Tensor = (gaps - mean) / spread
    return deviations


def weights_of(lips: Tensor) -> Tensor:
    """How much an error counts at each pixel: (B, 1, 96, 96)."""
    low, high = lips.amin(1) - MOUTH_REACH, lips.amax(1) + MOUTH_REACH
    places = torch.arange(SIDE)
    in_columns = (places >= low[:, :1]) & (places <= high[:, :1])
    in_rows = (places >= low[:, 1:]) & (places <= high[:, 1:])
    mouth = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].float()
    lower = (places >= MASKED_FROM).float()[None, None, :, None]
    return 1 + (LOWER_WEIGHT - 1) * lower + (MOUTH_WEIGHT - LOWER_WEIGHT) * mouth


def judged_in(drawn: Tensor, mouth: Tensor) -> Tensor:
    """The same pictures, of which only the mouth learns from what a judge says.

    A network that knows no lips yet comes to draw marks on chins and necks, which a judge takes for lips.
    """
    return torch.where(mouth, drawn, drawn.detach())


def likeness(drawn: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """The mean structural similarity of two pictures (B, 3, 96, 96) in grey, where (B, 1, 96, 96) says that it counts.

    As `inference.faces.ssim` has it, of levels 0..1.
    """
    one, other = grey_of(drawn), grey_of(wanted)
    mean_one, mean_other = smooth(one), smooth(other)
    var_one, var_other = smooth(one * one) - mean_one.square(), smooth(other * other) - mean_other.square()
    covariance = smooth(one * other) - mean_one * mean_other
    steady_light, steady_structure = (constant / 255**2 for constant in STABLE)
    light = (2 * mean_one * mean_other + steady_light) / (mean_one.square() + mean_other.square() + steady_light)
    structure = (2 * covariance + steady_structure) / (var_one + var_other + steady_structure)
    counted = counted[..., WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]
    found: Tensor = (light * structure)[counted].mean()
    return found


def smooth(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) under a Gaussian, only where all of it lies inside."""
    line = torch.from_numpy(cv2.getGaussianKernel(WINDOW, SIGMA)).float().flatten()
    across = functional.conv2d(pictures, line.view(1, 1, 1, WINDOW))
    return functional.conv2d(across, line.view(1, 1, WINDOW, 1))


def edge_error(drawn: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    across = (drawn.diff(dim=3) - wanted.diff(dim=3)).abs() * weights[..., 1:]
    down = (drawn.diff(dim=2) - wanted.diff(dim=2)).abs() * weights[..., 1:, :]
    return across.mean() + down.mean()


def score_clips(network: Wav2Lip, judge: Judge, clips: Sequence[Talking]) -> dict[str, float]:
    """How mouths go with a voice, drawn on the faces of other clips.

    voice: mean correlation of the drawn gap with that of the voice's own clip. face: with that of the clip drawn
    on, whose mouth is to be replaced. gain: how far drawn gaps vary, against true ones. error: mean levels of 255
    off in the mouth, where a face is drawn to its own voice.
    """
    figures: dict[str, list[float]] = {"voice": [], "face": [], "gain": [], "error": []}
    for i, clip in enumerate(clips):
        voice = clips[(i + 1) % len(clips)]
        drawn, _ = draw_clip(network, judge, clip, voice)
        said, shown = (gap_of(one.lips)[: len(drawn)] for one in (voice, clip))
        figures["voice"].append(correlate(drawn, said))
        figures["face"].append(correlate(drawn, shown))
        figures["gain"].append(float(drawn.std() / max(said.std(), 1e-6)))
        figures["error"].append(draw_clip(network, judge, clip, clip)[1])
    return {name: round(float(np.mean(found)), 4) for name, found in figures.items()}


def draw_clip(network: Wav2Lip, judge: Judge, clip: Talking, voice: Talking) -> tuple[np.ndarray, float]:
    """The gap of each frame as drawn to a voice, in use as it is, px, and the mean error in the mouth."""
    gaps, errors, reference = [], [], SteadyReference()
    n_frames = min(clip.n_frames, voice.n_frames)
    for first in range(0, n_frames, SCORE_BATCH):
        frames = range(first, min(first + SCORE_BATCH, n_frames))
        faces = stack_faces([cut_plain(clip.faces[i]) for i in frames])
        mels = torch.from_numpy(np.stack([voice.sound.window(i) for i in frames])[:, None])
        shown = torch.from_numpy(reference.show(faces))
        drawn = network(mels, shown.contiguous(memory_format=torch.channels_last))
        mouth = weights_of(torch.from_numpy(clip.lips[first : first + len(frames)])) == MOUTH_WEIGHT
        wrong = (drawn - torch.from_numpy(faces[:, 3:])).abs().mean(1, keepdim=True)[mouth]
        errors.append(float(wrong.mean()) * 255)
        gaps.append(shape_of(judge(lower_half(drawn)))[:, 0].numpy())
    return np.concatenate(gaps), float(np.mean(errors))


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    if one.std() < 1e-6 or other.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def write_weights(network: nn.Module, path: Path) -> None:
    """The network's tensors as float16 safetensors, replaced in one move."""
    tensors = {
        key: value.detach().half().contiguous() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    write_tensors(tensors, path)


def split_clips(recipe: Recipe) -> tuple[list[TalkingClip], dict[str, list[TalkingClip]]]:
    """Clips to train on, and clips held out of each folder. By their names: it stays so where packs are added."""
    kept: list[TalkingClip] = []
    held_out: dict[str, list[TalkingClip]] = {}
    for folder in recipe.talking:
        clips = load_talking(folder)
        clips = sorted(clips, key=lambda clip: zlib.crc32(f"{recipe.seed} {clip.name}".encode()))[: recipe.n_clips]
        unseen = [clip for clip in clips if is_held_out(clip.name, recipe)] or clips[:1]
        held_out[str(folder)] = unseen[: recipe.most_scored]
        names = {clip.name for clip in unseen}
        kept += [clip for clip in clips if clip.name not in names]
    return kept, held_out


def is_held_out(name: str, recipe: Recipe) -> bool:
    return zlib.crc32(f"{recipe.seed} {name}".encode()) / 2**32 < recipe.held_out


def train(recipe: Recipe) -> None:
    """Run a recipe to its end, or on from its last checkpoint."""
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(1)  # its threads would only compete with torch's
    recipe.run.mkdir(parents=True, exist_ok=True)
    kept, held_out = split_clips(recipe)
    unseen = {name: [prepare(clip) for clip in clips] for name, clips in held_out.items()}
    training = Training(recipe, [prepare_steady(clip) for clip in kept], unseen)
    training.resume()
    while training.part_done() < 1:
        stage, loss = training.run_round()
        scores = training.keep_best() if stage in DRAWING else {}
        training.save()
        line = {"round": training.progress.n_rounds, "stage": stage, "part_done": round(training.part_done(), 4)}
        log_line(recipe.run, {**line, "steps": training.progress.steps[stage], "loss": round(loss, 5), **scores})


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_sync", description=__doc__.splitlines()[0])
    parser.add_argument("--talking", type=Path, nargs="+", required=True, help="folders of packs of talking faces")
    parser.add_argument("-o", "--run", type=Path, required=True, help="folder for checkpoints, weights and log")
    parser.add_argument("--start", type=Path, help="checkpoint.pt or weights to carry on from")
    parser.add_argument("--judge-steps", type=int, default=Recipe.judge_steps)
    parser.add_argument("--ear-steps", type=int, default=Recipe.ear_steps)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--sharp-steps", type=int, default=Recipe.sharp_steps)
    parser.add_argument("--n-voices", type=int, default=Recipe.n_voices, help="utterances of espeak-ng; 0: none")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--round-steps", type=int, default=Recipe.round_steps)
    parser.add_argument("--peak-rate", type=float, default=Recipe.peak_rate)
    parser.add_argument("--held-out", type=float, default=Recipe.held_out, help="share of clips never trained on")
    parser.add_argument("--n-clips", type=int, help="use only so many clips of each folder, for a trial")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    parser.add_argument(
        "--precision", choices=("bf16", "f32"), default=Recipe.precision, help="f32 is faster on a CPU without AMX"
    )
    asked = vars(parser.parse_args(words))
    return Recipe(**asked | {"talking": tuple(asked["talking"])})


if __name__ == "__main__":
    train(read_recipe())
