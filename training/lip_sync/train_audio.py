"""Train the audio half of a narrow Wav2Lip to predict the mouth, on real lips and on timed speech.

    python -m training.lip_sync.train_audio --packs PACKS [MORE_PACKS] --speech KOKORO -o RUN

PACKS: folders of packs of faces with speech. KOKORO: folder of packs of `training.common.kokoro`. espeak-ng's voices
are added if it is installed. The same command again resumes where it stopped. RUN/log.jsonl has a line per round, with
correlations of the opening on held-out clips of each kind; RUN/encoder.safetensors has the last weights, which
`training.lip_sync.join_halves` makes part of a Wav2Lip.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from inference.models import Wav2Lip
from inference.weights.checkpoint import load_into, read_tensors
from training.common.arrays import Floats
from training.common.checkpoint import write_tensors
from training.common.correlation import correlate
from training.common.face_packs import load_packs
from training.common.kokoro import load_packs as load_speech
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
from training.common.mouth_examples import (
    MouthExample,
    RecordedLips,
    draw_batch,
    label_speech,
    measure_examples,
    speaker_examples,
    synthesise_examples,
)
from training.common.options import Option, parse_options
from training.common.speech_encoder import SpeechEncoder, prediction_loss
from training.lip_sync.widths import N_FEATURES, WIDTHS

MIN_DEVIATION = 1e-6  # of an opening; below it, the lips count as still


@dataclass(frozen=True)
class AudioHalfRecipe:
    """Options of one run."""

    packs: Annotated[tuple[Path, ...], Option("folders of packs of faces with speech (.npz)")]
    run: Annotated[Path, Option("folder for checkpoints, weights and log", short="-o")]
    speech: Annotated[Path | None, Option("folder of packs of Kokoro's speech (.npz)")] = None
    start: Annotated[Path | None, Option("weights of a Wav2Lip of the same widths to start from")] = None
    n_utterances: Annotated[int, Option("utterances of espeak-ng; 0 if it is not installed")] = 500
    n_sentences: Annotated[int, Option("sentences of the synthetic speaker")] = 150
    steps: Annotated[int, Option("training steps; after 10,000 it fits the people it knows, and strangers less")] = 1500
    batch: Annotated[int, Option("windows per step")] = 64
    round_steps: Annotated[int, Option("steps between checkpoints")] = 400
    peak_rate: Annotated[float, Option("highest learning rate")] = 1.5e-3
    held_out: Annotated[float, Option("share of the clips of each kind never trained on")] = 0.06
    n_clips: Annotated[int | None, Option("use only this many clips of each folder, for a trial")] = None
    seed: Annotated[int, Option("random seed")] = 5
    threads: Annotated[int, Option("CPU threads")] = 2


class AudioHalfTraining(Training):
    """The speech encoder in training."""

    def __init__(
        self,
        recipe: AudioHalfRecipe,
        kinds: dict[str, list[MouthExample]],
        held_out: dict[str, list[MouthExample]],
    ) -> None:
        super().__init__(recipe.run, Progress())
        self.recipe, self.kinds, self.held_out = recipe, list(kinds.values()), held_out
        torch.manual_seed(recipe.seed)
        self.encoder = make_encoder(recipe.start)
        self.optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.02)

    def part_done(self) -> float:
        return min(self.progress.n_steps / self.recipe.steps, 1.0)

    def run_round(self) -> dict[str, object]:
        """Train for some steps, or for as many as are left; write the weights and score them."""
        rng = round_rng(self.recipe.seed, self.progress.n_rounds)
        n_steps = min(self.recipe.round_steps, self.recipe.steps - self.progress.n_steps)
        losses = [self.step(rng) for _ in range(n_steps)]
        self.progress.n_rounds += 1
        write_encoder(self.encoder, self.run / "encoder.safetensors")
        scores = {name: round(score_opening(self.encoder, examples), 4) for name, examples in self.held_out.items()}
        return {"step": self.progress.n_steps, "loss": round(float(np.mean(losses)), 4), **scores}

    def step(self, rng: np.random.Generator) -> float:
        self.encoder.train()
        batch = draw_batch(self.kinds, self.recipe.batch, rng)
        set_learning_rate(self.optimiser, self.recipe.peak_rate * learning_rate_at(self.part_done()))
        loss = prediction_loss(self.encoder(batch.mels), batch)
        minimise(self.optimiser, loss)
        self.progress.n_steps += 1
        return loss.item()

    def stateful_parts(self) -> dict[str, nn.Module | Optimizer]:
        return {"encoder": self.encoder, "optimiser": self.optimiser}


def make_encoder(start: Path | None = None) -> SpeechEncoder:
    """Return an encoder with the widths of the narrow Wav2Lip. start: weights of one to begin with."""
    network = Wav2Lip(WIDTHS)
    if start is not None:
        load_into(network, start)
    layers: nn.Sequential = channels_last(network.audio_encoder[:-1])
    return SpeechEncoder(layers, N_FEATURES)


def channels_last(module: nn.Module) -> Any:
    """Return the module in the memory format in which convolutions are fastest on a CPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def write_encoder(encoder: SpeechEncoder, path: Path) -> None:
    """Write an encoder's tensors as safetensors (float32)."""
    write_tensors({name: value.detach().contiguous() for name, value in encoder.state_dict().items()}, path)


def read_encoder(path: Path) -> SpeechEncoder:
    """Read an encoder that `write_encoder` wrote."""
    encoder = make_encoder()
    encoder.load_state_dict(read_tensors(path))
    return encoder.eval()


@torch.no_grad()
def predict_shapes(encoder: SpeechEncoder, example: MouthExample) -> Floats:
    """Predict the shapes (T, 3) of an example's mouths from its audio as recorded."""
    encoder.eval()
    mels = torch.from_numpy(example.audio.windows(example.n_frames))
    return np.asarray(encoder(mels).shapes.numpy(), np.float32)


def score_opening(encoder: SpeechEncoder, examples: Sequence[MouthExample]) -> float:
    """Return the correlation of the predicted opening with the true one, not below 0, averaged over examples."""
    found = []
    for one in examples:
        opening = predict_shapes(encoder, one)[:, 0]
        found.append(correlate(np.maximum(opening, 0), one.shapes[:, 0], MIN_DEVIATION) or 0.0)
    return float(np.mean(found)) if found else 0.0


def load_kinds(recipe: AudioHalfRecipe) -> tuple[dict[str, list[MouthExample]], dict[str, list[MouthExample]]]:
    """Return examples to train on and held-out ones, by kind."""
    kinds = {str(folder): load_lips(folder, recipe.n_clips) for folder in recipe.packs}
    if recipe.speech is not None:
        spoken = load_speech(recipe.speech)[: recipe.n_clips]
        kinds["kokoro"] = [label_speech(f"kokoro {i}", one.samples, one.phonemes) for i, one in enumerate(spoken)]
    if recipe.n_utterances:
        kinds["espeak"] = synthesise_examples(recipe.n_utterances, recipe.seed)
    if recipe.n_sentences:
        kinds["speaker"] = speaker_examples(recipe.n_sentences)
    trained, held_out = {}, {}
    for kind, examples in kinds.items():
        unseen = {one.name for one in examples if is_held_out(one.name, recipe)}
        trained[kind] = [one for one in examples if one.name not in unseen] or examples
        first = {one.name: one for one in reversed(examples) if one.name in unseen}  # as recorded
        held_out[kind] = list(first.values())
    return trained, held_out


def load_lips(folder: Path, n_clips: int | None) -> list[MouthExample]:
    clips = load_packs(folder)[:n_clips]
    return measure_examples([RecordedLips(one.name, one.person, one.lips, one.samples) for one in clips])


def is_held_out(name: str, recipe: AudioHalfRecipe) -> bool:
    return zlib.crc32(f"{recipe.seed} {name}".encode()) / 2**32 < recipe.held_out


def train(recipe: AudioHalfRecipe) -> None:
    """Train to the end of a recipe, from its last checkpoint if there is one."""
    prepare_run(recipe.run, recipe.threads)
    run_to_end(AudioHalfTraining(recipe, *load_kinds(recipe)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the recipe on the command line."""
    train(parse_options(AudioHalfRecipe, "training.lip_sync.train_audio", __doc__, arguments))


if __name__ == "__main__":
    main()
