"""Train a narrow Wav2Lip from packs of talking faces.

    python -m training.lip_sync.train --talking PACKS [MORE_PACKS] -o RUN

Sound tells a mouth only in part, and a network that is to draw what it is unsure of draws a mouth that hardly moves.
So the two are learnt apart. First the audio encoder learns what shape a mouth has with a sound, of the clips' voices
and of espeak-ng's. Then the rest of the network learns to draw the mouth of a shape that it is told, the true one, from
the upper half of another frame of the clip and a third one whole, as one face is shown in use while it fits: as close
to the true one as it can be, most of all in the mouth, in levels and in structure. In between lies the audio encoder's
last layer: it is made, not learnt, of the reading of the shape and of the way in which shapes are told. All of it is
counted in steps: the same seed, packs and threads give the same again. The same command again goes on where it
stopped. RUN/log.jsonl has a line per round, with how mouths drawn on held-out faces go with their voices as a
landmarker sees them; RUN/model.safetensors (float16) the last weights.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.faces.load import load_landmarker
from inference.faces.ssim import SIGMA, STABLE, WINDOW
from inference.lip_sync.preprocess import MASKED_FROM, SIDE
from inference.models import Wav2Lip, Wav2LipWidths
from inference.models.wav2lip import Conv2d
from inference.settings import Settings
from training.common.checkpoint import load_state, save_state, write_tensors
from training.lip_reading.train import log_line, rate_at
from training.lip_sync.audio_samples import N_SHAPE, Heard, draw_heard, speak_voices
from training.lip_sync.evaluate import measure
from training.lip_sync.face_packs import Floats, TalkingClip, load_talking
from training.lip_sync.samples import Batch, Talking, add_mirrored, draw_batch, prepare, prepare_steady

Module = TypeVar("Module", bound=nn.Module)

WIDTHS = Wav2LipWidths(
    face_encoder=(8, 16, 32, 48, 64, 128, 128),
    audio_encoder=(16, 32, 64, 128, 256),
    face_decoder=(128, 128, 128, 96, 64, 48, 24),
    output=16,
)
N_HEARD = WIDTHS.audio_encoder[-1]
LUMA = (0.114, 0.587, 0.299)  # of blue, green and red
LOWER_WEIGHT, MOUTH_WEIGHT = 2.0, 8.0  # of errors, against 1 in the upper half
MOUTH_REACH = 6.0  # px around the lips that count as the mouth
EDGE_WEIGHT = 0.5  # of errors of the differences between neighbours, which blur shows in
ALIKE_WEIGHT = 0.3  # of how unlike mouths are in structure
MIRROR_WEIGHT = 0.5  # of what is drawn otherwise on a mirrored face: lips were drawn open on one side
GRADIENT_NORM = 1.0
EAR_BATCHES = 5  # a step of the audio encoder takes so many times more, as it is so much cheaper
FURTHEST_KINK = 2.0  # deviations of a shape: where the numbers that tell it begin to rise
STAGES = ("ear", "drawing")
ROUND_STRIDE = 100_003  # keeps the draws of one round apart from the next one's


@dataclass(frozen=True)
class Recipe:
    """One run."""

    talking: tuple[Path, ...]  # folders of packs
    run: Path
    ear_steps: int = 3000  # of the audio encoder
    steps: int = 6000  # of the rest
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


class Ear(nn.Module):
    """The audio encoder but for its last layer, with a reading of the lips on top: a mouth's shape, standardised."""

    def __init__(self, encoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder[:-1]
        self.shape = nn.Linear(N_HEARD, N_SHAPE)

    def forward(self, mels: Tensor) -> Tensor:
        """(B, 3) of (B, 1, 80, 16)."""
        heard: Tensor = self.shape(self.encoder(mels).flatten(1))
        return heard.float()


class Telling(nn.Module):
    """How a shape is told: in numbers that each rise with another mixture of it, from another point on."""

    mixture: Tensor  # (N_HEARD, 3)
    kink: Tensor  # (N_HEARD,)

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.register_buffer("mixture", torch.from_numpy(rng.normal(size=(N_HEARD, N_SHAPE)).astype(np.float32)))
        kinks = rng.uniform(-FURTHEST_KINK, FURTHEST_KINK, N_HEARD)
        self.register_buffer("kink", torch.from_numpy(kinks.astype(np.float32)))

    def forward(self, shapes: Tensor) -> Tensor:
        """(B, N_HEARD, 1, 1) of (B, 3), as the audio encoder gives them."""
        told: Tensor = torch.relu(shapes @ self.mixture.T - self.kink)[..., None, None]
        return told

    @torch.no_grad()
    def end(self, encoder: nn.Sequential, reading: nn.Linear) -> None:
        """Have an encoder's last layer tell what is read from the layer before."""
        last = cast(Conv2d, encoder[-1]).conv_block
        conv, norm = cast(nn.Conv2d, last[0]), cast(nn.BatchNorm2d, last[1])
        conv.weight.copy_((self.mixture @ reading.weight)[..., None, None])
        cast(Tensor, conv.bias).copy_(self.mixture @ reading.bias - self.kink)
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.zero_()


@dataclass(frozen=True)
class Scale:
    """Shapes of mouths, standardised: mean and deviation (3,) of them all, px."""

    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, clips: Sequence[Talking]) -> Scale:
        every = np.concatenate([clip.shapes for clip in clips])
        return cls(every.mean(0), every.std(0))

    def standardise(self, shapes: Floats) -> Floats:
        return np.asarray((shapes - self.mean) / self.spread, np.float32)


@dataclass
class Progress:
    """How far a run is; kept with its checkpoint."""

    n_rounds: int = 0
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))


Parts = dict[str, list[Talking]]  # by the name of their folder


class Training:
    """The networks under training, their optimisers and how far they are."""

    def __init__(self, recipe: Recipe, clips: Sequence[Talking], held_out: Parts) -> None:
        self.recipe, self.clips, self.held_out = recipe, clips, held_out
        torch.manual_seed(recipe.seed)
        self.network = channels_last(Wav2Lip(WIDTHS))
        self.ear = Ear(self.network.audio_encoder)
        self.telling = Telling(recipe.seed)
        self.optimisers = {"ear": optimiser_of(self.ear), "drawing": optimiser_of(*drawing_parts(self.network))}
        self.progress = Progress()
        self.budgets = dict(zip(STAGES, (recipe.ear_steps, recipe.steps), strict=True))
        self.scale = Scale.of(clips)
        self.heard = [hear_clips(clips, self.scale)]
        if recipe.n_voices:
            self.heard.append(speak_voices(recipe.n_voices, recipe.seed))
        self.landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)

    def part_done(self) -> float:
        done = sum(min(self.progress.steps[name], budget) for name, budget in self.budgets.items())
        return done / sum(self.budgets.values())

    def stage(self) -> tuple[str, float]:
        """What is being trained, and how much of it is over."""
        for name, budget in self.budgets.items():
            if self.progress.steps[name] < budget:
                return name, self.progress.steps[name] / budget
        return STAGES[-1], 1.0

    def run_round(self) -> tuple[str, float]:
        """Some steps, or fewer where a stage ends; its name and the mean of the losses."""
        stage, _ = self.stage()
        rng = np.random.default_rng((self.recipe.seed, ROUND_STRIDE + self.progress.n_rounds))
        n_left = self.budgets[stage] - self.progress.steps[stage]
        losses = [self.step(stage, rng) for _ in range(min(self.recipe.round_steps, n_left))]
        self.progress.n_rounds += 1
        return stage, float(np.mean(losses))

    def step(self, stage: str, rng: np.random.Generator) -> float:
        if stage == "ear":
            loss = self.ear_loss(rng)
        else:
            batch = draw_batch(self.clips, self.recipe.batch // 2, rng)
            loss = self.drawing_loss(add_mirrored(batch))
        self.learn(stage, loss)
        self.progress.steps[stage] += 1
        return loss.item()

    def learn(self, stage: str, loss: Tensor) -> None:
        """One step of an optimiser."""
        optimiser = self.optimisers[stage]
        for group in optimiser.param_groups:
            group["lr"] = self.recipe.peak_rate * rate_at(self.stage()[1])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            [weight for group in optimiser.param_groups for weight in group["params"]], GRADIENT_NORM
        )
        if torch.isfinite(norm):
            optimiser.step()

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def ear_loss(self, rng: np.random.Generator) -> Tensor:
        self.ear.train()
        mels, shapes, known = draw_heard(self.heard, self.recipe.batch * EAR_BATCHES, rng)
        with self.autocast():
            heard = self.ear(mels.contiguous(memory_format=torch.channels_last))
        errors = functional.smooth_l1_loss(heard, shapes, beta=0.5, reduction="none")
        return (errors * known).sum() / known.sum()

    def drawing_loss(self, batch: Batch) -> Tensor:
        self.network.train()
        weights = weights_of(batch.lips)
        told = self.telling(torch.from_numpy(self.scale.standardise(batch.shapes.numpy())))
        with self.autocast():
            drawn = self.network.draw(told, batch.faces.contiguous(memory_format=torch.channels_last)).float()
        pixels = (weights * (drawn - batch.wanted).abs()).mean()
        loss: Tensor = pixels + EDGE_WEIGHT * edge_error(drawn, batch.wanted, weights)
        loss = loss + ALIKE_WEIGHT * (1 - likeness(drawn, batch.wanted, weights == MOUTH_WEIGHT))
        return loss + MIRROR_WEIGHT * mirror_error(drawn, weights)

    def write(self) -> dict[str, dict[str, float]]:
        """The network as it would be shipped by now; its scores on clips that are held out."""
        self.telling.end(self.network.audio_encoder, self.ear.shape)
        self.network.eval()
        write_weights(self.network, self.recipe.run / "model.safetensors")
        return {name: self.score(clips) for name, clips in self.held_out.items()}

    def score(self, clips: Sequence[Talking]) -> dict[str, float]:
        """Correlation of the gap between the lips with the voice's own, and its reach over theirs."""
        moved = measure(self.network, clips, self.landmarker)
        return {} if moved is None else {name: round(value, 4) for name, value in vars(moved).items()}

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        modules = {"network": self.network, "ear": self.ear}
        return {**modules, **{f"{name} optimiser": one for name, one in self.optimisers.items()}}

    def save(self) -> None:
        """Everything needed to go on."""
        state = {name: one.state_dict() for name, one in self.parts().items()}
        save_state(self.recipe.run, {"state": state, "progress": asdict(self.progress)})

    def resume(self) -> None:
        kept = load_state(self.recipe.run)
        if kept is None:
            return
        for name, one in self.parts().items():
            one.load_state_dict(kept["state"][name])
        self.progress = Progress(**kept["progress"])


def drawing_parts(network: Wav2Lip) -> list[nn.Module]:
    """All of it but what listens."""
    return [part for name, part in network.named_children() if name != "audio_encoder"]


def hear_clips(clips: Sequence[Talking], scale: Scale) -> list[Heard]:
    """What the clips sound like, and the mouths beside it."""
    known = np.ones(N_SHAPE, np.float32)
    return [Heard(clip.sound, scale.standardise(clip.shapes), known, clip.quiet) for clip in clips]


def channels_last(module: Module) -> Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def optimiser_of(*modules: nn.Module) -> torch.optim.AdamW:
    weights = [weight for module in modules for weight in module.parameters()]
    return torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)


def grey_of(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) of (B, 3, H, W) BGR."""
    return (pictures * pictures.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def mirror_error(drawn: Tensor, weights: Tensor) -> Tensor:
    """Of the second half of a batch, which is the first one mirrored."""
    first, second = drawn.chunk(2)
    error: Tensor = (weights.chunk(2)[0] * (first - second.flip(3)).abs()).mean()
    return error


def weights_of(lips: Tensor) -> Tensor:
    """How much an error counts at each pixel: (B, 1, 96, 96)."""
    low, high = lips.amin(1) - MOUTH_REACH, lips.amax(1) + MOUTH_REACH
    places = torch.arange(SIDE)
    in_columns = (places >= low[:, :1]) & (places <= high[:, :1])
    in_rows = (places >= low[:, 1:]) & (places <= high[:, 1:])
    mouth = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].float()
    lower = (places >= MASKED_FROM).float()[None, None, :, None]
    return 1 + (LOWER_WEIGHT - 1) * lower + (MOUTH_WEIGHT - LOWER_WEIGHT) * mouth


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
        scores = training.write() if stage == "drawing" else {}
        training.save()
        line = {"round": training.progress.n_rounds, "stage": stage, "part_done": round(training.part_done(), 4)}
        log_line(recipe.run, {**line, "steps": training.progress.steps[stage], "loss": round(loss, 5), **scores})


def read_recipe(words: Sequence[str] | None = None) -> Recipe:
    """The command line as a recipe."""
    parser = argparse.ArgumentParser(prog="python -m training.lip_sync.train", description=__doc__.splitlines()[0])
    parser.add_argument("--talking", type=Path, nargs="+", required=True, help="folders of packs of talking faces")
    parser.add_argument("-o", "--run", type=Path, required=True, help="folder for checkpoints, weights and log")
    parser.add_argument("--ear-steps", type=int, default=Recipe.ear_steps)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
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
