"""Train an avatar's audio networks, the mel encoder and the U-Net's audio branch, to predict the mouth from speech.

    python -m training.avatar.train_audio_encoder -o AUDIO --start model.safetensors
    python -m training.avatar.train_audio_encoder -o AUDIO --start model.safetensors --packs PACKS --speech KOKORO

Voices are those of espeak-ng and, with --speech, of Kokoro, with exact times of their phonemes; with --packs, real ones
too (PACKS: folders of packs of training.common.face_packs), of which the gap between the lips was measured. --start
takes weights of a speech encoder (`starter_visemes`), which knows phonemes: its layers are all but the last of the mel
encoder, and stay as they are. So each window of audio is encoded once (AUDIO/rows.npz), and a step takes milliseconds.

What is trained is small, too. The last layer of the mel encoder gives four numbers for a window, in a pattern of 2 x 2
that fills the 16 x 16 features; so every place of the branch's map computes the same function of 16 windows, and the
U-Net has the mouth wherever it draws. That function is trained by itself (`PlaceNetwork`) and then written into the
layers of the published layout (`fill_branch`). The same command again resumes where it stopped. AUDIO/log.jsonl has a
line per round; AUDIO/audio_network.safetensors has the best weights so far, on people and voices never trained on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from inference.audio.avatar_features import FEATURE_ROWS, LAST_WINDOW
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.models.wav2lip import Conv2d
from inference.rendering.mouth_shape import MouthShape
from inference.weights.checkpoint import read_tensors
from inference.weights.registry import STARTER_VISEMES
from training.avatar.place_network import PlaceNetwork, fill_branch, fill_last_layer
from training.avatar.utterances import LabelledUtterance, draw_utterances, label_clips, label_kokoro, make_silence
from training.common.arrays import Floats, Integers
from training.common.checkpoint import write_tensors
from training.common.correlation import correlate
from training.common.face_packs import FaceClip
from training.common.face_packs import load_packs as load_faces
from training.common.kokoro import load_packs as load_kokoro
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
from training.common.mouth_examples import BILABIALS, CLASS_NUMBERS
from training.common.options import Option, parse_options
from training.common.packs import write_arrays

UNET_WIDTHS = (8, 16, 32, 64, 128)
ENCODER_WIDTHS = (16, 32, 64, 128, 256)
N_SHAPES = len(MouthShape.__dataclass_fields__)  # numbers of a mouth
# Weight of an error in each number of the shape, by how visible it is: open, wide, round, press, tuck, teeth, tongue.
SHAPE_WEIGHTS = (3.0, 1.0, 1.5, 2.0, 1.0, 1.0, 0.5)
SMOOTH_L1_BETA = 0.5  # smaller errors count by their square
BILABIAL_WEIGHT = 3.0  # weight of a mouth on b, m, p, against 1
GAP_WEIGHT = 4.0
PLACE = 4  # row and column of the map's place at which mouths are read: those inside its edge are alike
SILENT_SHARE = 0.06  # share of the frames without speech
N_SILENCES = 8  # versions of silence: digital, and the noise of rooms
N_VARIED = 1  # varied copies of the audio of each utterance, besides that as recorded
WINDOWS_AT_ONCE = 256
ROW_NOISE = 0.1  # standard deviation of the noise on rows in training, over that of the rows
LAYERS = "layers."  # prefix of the layers in a speech encoder's weights
HELD_OUT_PEOPLE = ("s32",)  # never trained on, to choose weights by; not among those that the benchmarks measure
SILENCE = "silence"  # the kind of utterances without speech
OWN_KINDS = ("kokoro", "espeak", SILENCE, " ".join(HELD_OUT_PEOPLE))  # kinds that no folder of packs may be named like


@dataclass(frozen=True)
class AudioEncoderRecipe:
    """Options of one run."""

    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    start: Annotated[Path | None, Option("weights of a speech encoder; None: those that are bundled")] = None
    packs: Annotated[tuple[Path, ...], Option("folders of packs of faces with speech (.npz)")] = ()
    speech: Annotated[Path | None, Option("folder of packs of Kokoro's speech (.npz)")] = None
    held_out_speech: Annotated[Path | None, Option("folder of packs of Kokoro's speech to score on")] = None
    look_ahead: Annotated[int, Option("windows that a frame looks ahead, -1 to 6")] = LAST_WINDOW
    n_utterances: Annotated[int, Option("utterances of espeak-ng; 0 if it is not installed")] = 70
    n_clips: Annotated[int | None, Option("use only this many clips of each folder")] = 94
    n_speeds: Annotated[int, Option("copies of each clip with another speed")] = 0
    n_spoken: Annotated[int | None, Option("use only this many utterances of Kokoro")] = 200
    held_out: Annotated[float, Option("share of the utterances of each kind kept for scoring")] = 0.05
    steps: Annotated[int, Option("training steps")] = 1000
    round_steps: Annotated[int, Option("steps between checkpoints")] = 500
    batch: Annotated[int, Option("frames per step")] = 512
    peak_rate: Annotated[float, Option("highest learning rate")] = 2e-3
    averaging: Annotated[float, Option("decay of the moving average of the weights, per step")] = 0.995
    seed: Annotated[int, Option("random seed")] = 11
    threads: Annotated[int, Option("CPU threads")] = 2


Kinds = dict[str, list[LabelledUtterance]]


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

    def forward(self, mels: Tensor) -> Tensor:
        """Predict mouths (B, T, 7, 10, 10) at each place, of windows (B, T + 15, 80, 16)."""
        rows: Tensor = self.encoder(mels.flatten(0, 1)[:, None]).reshape(*mels.shape[:2], -1)
        stacks = rows.unfold(1, FEATURE_ROWS, 1).transpose(2, 3)  # (B, T, 16, 256)
        n_channels = rows.shape[2] // FEATURE_ROWS
        out: Tensor = self.shape(self.branch(stacks.reshape(-1, n_channels, FEATURE_ROWS, FEATURE_ROWS)))
        return out.float().reshape(*stacks.shape[:2], *out.shape[1:])


def load_layers(path: Path) -> nn.Sequential:
    """Return the layers of a speech encoder: those of the mel encoder except for the last one."""
    layers = AudioVisualEncoder(ENCODER_WIDTHS).audio_encoder[:-1]
    tensors = read_tensors(path)
    layers.load_state_dict(
        {key.removeprefix(LAYERS): value.float() for key, value in tensors.items() if key.startswith(LAYERS)}
    )
    return cast(nn.Sequential, layers.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]


@torch.no_grad()
def join_networks(layers: nn.Sequential, places: PlaceNetwork) -> AvatarAudioNetwork:
    """Return networks of the published layout that compute the same mouths."""
    network = AvatarAudioNetwork().eval()
    encoder = network.encoder.audio_encoder
    encoder[:-1].load_state_dict(layers.state_dict())
    fill_last_layer(places, cast(Conv2d, encoder[-1]))
    fill_branch(places, network.branch)
    network.shape.weight.copy_(places.shape.weight[:, :, None, None])
    cast(Tensor, network.shape.bias).copy_(places.shape.bias)
    return network


def differentiable_gap(mouths: Tensor) -> Tensor:
    """Return the gap between the lips as `training.common.lips.shape_gap`, with a finite gradient at 0: of (..., 7)."""
    is_open, _, _, press, _, teeth, tongue = mouths.clamp_min(0).unbind(-1)
    gap = (is_open**4 + (0.34 * teeth) ** 4 + (0.5 * tongue) ** 4 + 1e-6) ** 0.25
    return gap * (1 - press.clamp_max(1))


@dataclass(frozen=True)
class EncodedUtterances:
    """Rows of features and the mouths of frames, of several utterances after one another.

    rows: (N, 256) float16; a frame takes 16 rows from the one of `starts` on. starts, gaps, classes, has_mouths: (T,).
    mouths: (T, 7), zeros if only the gap is known. ends: of each utterance, in frames.
    """

    rows: npt.NDArray[np.float16]
    starts: Integers
    mouths: Floats
    gaps: Floats
    has_mouths: npt.NDArray[np.bool_]
    classes: Integers
    ends: Integers

    def stacks(self, frames: Integers) -> Tensor:
        """Return the rows of frames: (B, 16, 256) float32."""
        return torch.from_numpy(self.rows[self.starts[frames][:, None] + np.arange(FEATURE_ROWS)].astype(np.float32))

    def utterances(self) -> Iterator[Integers]:
        """Yield the frames of each utterance."""
        yield from np.split(np.arange(len(self.gaps)), self.ends[:-1])


@torch.no_grad()
def encode(
    layers: nn.Sequential, utterances: Sequence[LabelledUtterance], recipe: AudioEncoderRecipe, n_varied: int
) -> EncodedUtterances:
    """Encode utterances as recorded, and varied copies of them. Of silence every version is encoded instead."""
    rows, starts, labels = [], [], []
    n_rows = 0
    for one in utterances:
        rng, frames = np.random.default_rng((recipe.seed, zlib.crc32(one.name.encode()))), range(one.n_frames)
        is_silence = one.name == SILENCE
        copies = [one.windows(frames, recipe.look_ahead, k) for k in range(len(one.audio.mels) if is_silence else 1)]
        copies += [one.draw_windows(frames, recipe.look_ahead, rng) for _ in range(n_varied)]
        for windows in copies:
            mels = torch.from_numpy(windows)[:, None].contiguous(memory_format=torch.channels_last)
            parts = [layers(part).flatten(1) for part in torch.split(mels, WINDOWS_AT_ONCE)]
            rows.append(torch.cat(parts).numpy().astype(np.float16))
            starts.append(n_rows + np.arange(one.n_frames))
            n_rows += len(windows)
            labels.append(one)
    mouths = [np.zeros((one.n_frames, N_SHAPES), np.float32) if one.mouths is None else one.mouths for one in labels]
    return EncodedUtterances(
        np.concatenate(rows),
        np.concatenate(starts),
        np.concatenate(mouths),
        np.concatenate([one.gaps for one in labels]),
        np.concatenate([np.full(one.n_frames, one.mouths is not None) for one in labels]),
        np.concatenate([one.classes for one in labels]),
        np.cumsum([one.n_frames for one in labels]),
    )


@dataclass(frozen=True)
class FrameBatch:
    """stacks: (B, 16, 256). mouths: (B, 7). gaps, has_mouths, weights: (B,)."""

    stacks: Tensor
    mouths: Tensor
    gaps: Tensor
    has_mouths: Tensor
    weights: Tensor


def draw_batch(kinds: dict[str, EncodedUtterances], size: int, rng: np.random.Generator) -> list[FrameBatch]:
    """Draw frames, from each kind of speech equally often, and some silence. One part for each kind."""
    spoken = [name for name in kinds if name != SILENCE]
    counts = rng.multinomial(size, [(1 - SILENT_SHARE) / len(spoken)] * len(spoken) + [SILENT_SHARE])
    parts = []
    for name, count in zip((*spoken, SILENCE), counts, strict=True):
        one = kinds[name]
        frames = rng.integers(len(one.gaps), size=count)
        weights = np.where(np.isin(one.classes[frames], BILABIAL_CLASSES), BILABIAL_WEIGHT, 1).astype(np.float32)
        arrays = (one.mouths[frames], one.gaps[frames], one.has_mouths[frames].astype(np.float32), weights)
        parts.append(FrameBatch(one.stacks(frames), *map(torch.from_numpy, arrays)))
    return parts


BILABIAL_CLASSES = sorted(CLASS_NUMBERS[name] for name in BILABIALS)


def mouth_loss(found: Tensor, batch: FrameBatch) -> Tensor:
    """Return the error of mouths (B, 7), and of the gap between the lips."""
    errors = functional.smooth_l1_loss(found, batch.mouths, reduction="none", beta=SMOOTH_L1_BETA)
    shape_errors = (errors * torch.tensor(SHAPE_WEIGHTS)).sum(-1) * batch.has_mouths
    gap = differentiable_gap(found)
    gap_errors = functional.smooth_l1_loss(gap, batch.gaps, reduction="none", beta=SMOOTH_L1_BETA)
    return ((shape_errors + GAP_WEIGHT * gap_errors) * batch.weights).mean()


class AudioEncoderTraining(Training):
    """A PlaceNetwork and the moving average of its weights, in training. best: mean correlation of the gap."""

    def __init__(
        self,
        recipe: AudioEncoderRecipe,
        layers: nn.Sequential,
        kinds: dict[str, EncodedUtterances],
        held_out: dict[str, EncodedUtterances],
    ) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe, self.layers, self.kinds, self.held_out = recipe, layers, kinds, held_out
        torch.manual_seed(recipe.seed)
        self.network, self.average = (PlaceNetwork(ENCODER_WIDTHS[-1], UNET_WIDTHS, N_SHAPES) for _ in range(2))
        rows = np.concatenate([one.rows[:: max(len(one.rows) // 5000, 1)] for one in kinds.values()])
        self.noise = torch.from_numpy(rows.astype(np.float32).std(0)) * ROW_NOISE
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.peak_rate, weight_decay=0.02)

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or for as many as are left, and score."""
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        torch.manual_seed(int(rng.integers(2**31)))
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)
        losses = [self.step(draw_batch(self.kinds, self.recipe.batch, rng)) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        return {"step": self.progress.n_steps, "loss": round(float(np.mean(losses)), 4), **self.keep_best()}

    def step(self, parts: Sequence[FrameBatch]) -> float:
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        batch = FrameBatch(*(torch.cat([getattr(one, name) for one in parts]) for name in FrameBatch.__annotations__))
        stacks = batch.stacks + self.noise * torch.randn_like(batch.stacks)
        loss = mouth_loss(self.network(stacks), batch)
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        update_average(self.average, self.network, self.recipe.averaging, self.progress.n_steps)
        return loss.item()

    def keep_best(self) -> dict[str, float]:
        """Score the average on each kind of held-out voices; write the networks if the mean is the best yet."""
        scores = {name: score(self.average, encoded) for name, encoded in self.held_out.items()}
        if self.is_best(float(np.mean(list(scores.values())))):
            network = join_networks(self.layers, self.average)
            tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
            write_tensors(tensors, self.run / "audio_network.safetensors")
        return {name: round(value, 4) for name, value in scores.items()}

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}


@torch.no_grad()
def predict(network: AvatarAudioNetwork, utterance: LabelledUtterance, look_ahead: int) -> Floats:
    """Predict the mouth of each frame of an utterance: (T, 7) float32."""
    mels = torch.from_numpy(utterance.windows(range(utterance.n_frames), look_ahead))[None]
    return np.asarray(network.eval()(mels)[0, :, :, PLACE, PLACE].numpy(), np.float32)


@torch.no_grad()
def score(network: PlaceNetwork, encoded: EncodedUtterances) -> float:
    """Return the correlation of the predicted gap with the true one, averaged over utterances; silence is left out."""
    found = []
    for frames in encoded.utterances():
        gaps = differentiable_gap(network(encoded.stacks(frames))).numpy()
        correlation = correlate(gaps, encoded.gaps[frames])
        if correlation is not None:
            found.append(correlation)
    return float(np.mean(found)) if found else 0.0


def load_kinds(recipe: AudioEncoderRecipe) -> tuple[Kinds, Kinds]:
    """Return utterances to train on and held-out ones, by kind.

    Held out are the people of HELD_OUT_PEOPLE, the voices of `held_out_speech`, and other texts of the other voices.
    Raises: ValueError if two folders have the same name, or no speech is left to train on.
    """
    check_names(recipe.packs)
    kinds: Kinds = {}
    held_out: Kinds = {}
    unseen: list[FaceClip] = []
    for folder in recipe.packs:
        clips = take_evenly(load_faces(folder), recipe.n_clips)
        unseen += [one for one in clips if one.person in HELD_OUT_PEOPLE]
        if known := [one for one in clips if one.person not in HELD_OUT_PEOPLE]:
            kinds[folder.resolve().name] = label_clips(known, recipe.n_speeds)
    if unseen:
        held_out[" ".join(HELD_OUT_PEOPLE)] = label_clips(unseen)
    if recipe.speech is not None:
        kinds["kokoro"] = label_kokoro(load_kokoro(recipe.speech)[: recipe.n_spoken])
    if recipe.n_utterances:
        kinds["espeak"] = draw_utterances(recipe.n_utterances, recipe.seed)
    kinds = {kind: utterances for kind, utterances in kinds.items() if utterances}
    if not kinds:
        raise ValueError(
            f"no speech to train on: give --speech, --n-utterances, or --packs of people besides {HELD_OUT_PEOPLE[0]}"
        )
    for kind, utterances in kinds.items():
        unseen_names = {one.name for one in utterances if is_held_out(one.name, recipe)}
        first = {one.name: one for one in reversed(utterances) if one.name in unseen_names}  # as recorded
        held_out[kind] = list(first.values()) or utterances[:1]
        kinds[kind] = [one for one in utterances if one.name not in unseen_names] or utterances
    if recipe.held_out_speech is not None:
        held_out["kokoro"] = label_kokoro(load_kokoro(recipe.held_out_speech))
    return {**kinds, SILENCE: [make_silence(N_SILENCES, recipe.seed)]}, held_out


def check_names(folders: Sequence[Path]) -> None:
    """Check that folders of packs have names of their own, by which their kinds of speech are called."""
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1 or name in OWN_KINDS:
            raise ValueError(f"--packs: {name} names two kinds of speech; rename the folder")


def take_evenly(clips: list[FaceClip], n_clips: int | None) -> list[FaceClip]:
    """Return at most `n_clips`, spread evenly: the names of GRID's clips begin with their first words."""
    if n_clips is None or n_clips >= len(clips):
        return clips
    return [clips[i] for i in np.linspace(0, len(clips) - 1, n_clips).astype(int)]


def is_held_out(name: str, recipe: AudioEncoderRecipe) -> bool:
    return zlib.crc32(f"{recipe.seed} {name}".encode()) / 2**32 < recipe.held_out


def encode_kinds(
    layers: nn.Sequential, recipe: AudioEncoderRecipe
) -> tuple[dict[str, EncodedUtterances], dict[str, EncodedUtterances]]:
    """Return what `load_kinds` does, encoded. It is made once: AUDIO/rows.npz has it.

    Raises: ValueError if the file was made by another recipe, and the errors of `load_kinds`.
    """
    path = recipe.run / "rows.npz"
    if not path.exists():
        arrays: dict[str, Any] = {"recipe": json.dumps(describe_rows(recipe))}
        for part, kinds in zip(("trained", "held_out"), load_kinds(recipe), strict=True):
            for kind, utterances in kinds.items():
                n_varied = N_VARIED if part == "trained" and kind != SILENCE else 0
                encoded = encode(layers, utterances, recipe, n_varied)
                arrays |= {f"{part}/{kind}/{name}": value for name, value in vars(encoded).items()}
        write_arrays(arrays, path)
    found: dict[str, dict[str, dict[str, Any]]] = {"trained": {}, "held_out": {}}
    with np.load(path, allow_pickle=False) as saved:
        check_rows(path, json.loads(str(saved["recipe"])) if "recipe" in saved.files else {}, describe_rows(recipe))
        for key in saved.files:
            if key == "recipe":
                continue
            part, kind, name = key.split("/")
            found[part].setdefault(kind, {})[name] = saved[key]
    trained, held_out = ({kind: EncodedUtterances(**own) for kind, own in part.items()} for part in found.values())
    return trained, held_out


def describe_rows(recipe: AudioEncoderRecipe) -> dict[str, Any]:
    """Return the options that the rows depend on, as JSON has them."""
    numbers = ("look_ahead", "n_utterances", "n_clips", "n_speeds", "n_spoken", "held_out", "seed")
    return {
        "start": str((recipe.start or bundled_speech_encoder()).resolve()),
        "packs": [str(folder.resolve()) for folder in recipe.packs],
        "speech": None if recipe.speech is None else str(recipe.speech.resolve()),
        "held_out_speech": None if recipe.held_out_speech is None else str(recipe.held_out_speech.resolve()),
        **{name: getattr(recipe, name) for name in numbers},
    }


def check_rows(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that rows were made with the options of this run. Raises: ValueError."""
    for name, value in expected.items():
        if name not in found or found[name] != value:
            made = found.get(name, "not stated")
            raise ValueError(f"{path}: made with {name} {made}, but this run has {value}; remove it or give another -o")


def train(recipe: AudioEncoderRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    layers = load_layers(recipe.start or bundled_speech_encoder())
    run_to_end(AudioEncoderTraining(recipe, layers, *encode_kinds(layers, recipe)))


def bundled_speech_encoder() -> Path:
    assert STARTER_VISEMES.shipped_in is not None
    return STARTER_VISEMES.shipped_in / STARTER_VISEMES.files[0].name


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(AudioEncoderRecipe, "training.avatar.train_audio_encoder", __doc__, arguments))


if __name__ == "__main__":
    main()
