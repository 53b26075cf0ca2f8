"""Join the two halves of a narrow Wav2Lip, and choose how far its lips open.

    python -m training.lip_sync.join_halves RUN/model.safetensors --encoder ENCODER --packs PACKS -o model.safetensors

ENCODER: encoder.safetensors of `training.lip_sync.train_audio`. RUN/model.safetensors: weights whose drawing half was
trained with the same seed; their audio half is replaced.
Speech determines only partly how far a mouth is open, and an uncertain encoder predicts a mean: the lips move less than
true ones, and do not quite shut. So the predicted opening is scaled, and lips that are expected to be nearly shut are
shut. Of a few factors the largest is taken with which generated lips, as measured by a landmarker, correlate with the
true ones about as well as with any; then, of a few offsets, the least with which mouths rest in silence. Both are
measured on clips of the packs, each with the speech of another one. Nothing is trained here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import torch

from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.models import Wav2Lip
from inference.settings import Settings
from inference.weights.architectures import WAV2LIP, load_module
from training.common.checkpoint import write_half_precision
from training.common.speech_encoder import SpeechEncoder
from training.lip_sync.evaluate import MotionScore, score_motion
from training.lip_sync.samples import PreparedClip, own_shapes, prepare_clip
from training.lip_sync.shape_encoding import TALL, OpeningMap, ShapeEncoding, set_audio_half
from training.lip_sync.train import LipSyncRecipe, split_clips
from training.lip_sync.train_audio import read_encoder

# As the encoding takes them: true openings are about -0.9 to 2.5. Less than shut is drawn as surely shut.
SHUT = -1.6
WIDEST = (2.5, 3.5, 5.0)
OFFSETS = (0.0, 0.03, 0.06, 0.1)
MAX_LOSS = 0.02  # correlation that may be lost for a larger motion
MAX_AMPLITUDE = 1.25  # motion of generated lips over that of true ones
MAX_REST = 0.1  # opening in silence over the widest


@dataclass(frozen=True)
class MapChoice:
    """A map from predicted openings to drawn ones, and how well the lips follow. score: None if no face is drawn."""

    opening: OpeningMap
    score: MotionScore | None


class HalfJoiner:
    """Tries maps of the opening on clips."""

    def __init__(
        self,
        network: Wav2Lip,
        encoder: SpeechEncoder,
        encoding: ShapeEncoding,
        clips: Sequence[PreparedClip],
        landmarker: Landmarker,
    ) -> None:
        self.network, self.encoder, self.encoding = network, encoder, encoding
        self.clips, self.landmarker = clips, landmarker

    def attempt(self, opening: OpeningMap) -> MapChoice:
        """Join the halves with a map, and score it."""
        set_audio_half(self.network, self.encoder, self.encoding, opening)
        return MapChoice(opening, score_motion(self.network, self.clips, self.landmarker))

    def choose(self) -> Iterator[MapChoice]:
        """Yield every map that is tried. The last one is the choice, and the network has it."""
        tried = []
        for widest in WIDEST:
            tried.append(self.attempt(OpeningMap(SHUT, widest, tall=TALL)))
            yield tried[-1]
        best = choose_widest(tried)
        offsets = [best]
        while not rests(offsets[-1]) and len(offsets) < len(OFFSETS):
            offsets.append(self.attempt(replace(best.opening, offset=OFFSETS[len(offsets)])))
            yield offsets[-1]
        yield self.attempt(choose_offset(offsets).opening)


def choose_widest(tried: Sequence[MapChoice]) -> MapChoice:
    """Return the widest map that costs little correlation and moves lips not too far; the first if none is scored."""
    scored = [(one, one.score) for one in tried if one.score is not None]
    calm = [(one, score) for one, score in scored if score.amplitude <= MAX_AMPLITUDE]
    least = max((score.correlation for _, score in calm), default=0.0) - MAX_LOSS
    return next((one for one, score in reversed(calm) if score.correlation >= least), tried[0])


def rests(choice: MapChoice) -> bool:
    return choice.score is None or choice.score.rest <= MAX_REST


def choose_offset(tried: Sequence[MapChoice]) -> MapChoice:
    """Return the first with which mouths rest; else the one with which they are open least."""
    at_rest = next((one for one in tried if rests(one)), None)
    return at_rest or min(tried, key=lambda one: one.score.rest if one.score else 0.0)


def join(weights: Path, encoder: Path, recipe: LipSyncRecipe, output: Path) -> None:
    """Join the halves, write the weights, and print the score of each map. recipe: its packs' held-out clips score."""
    cv2.setNumThreads(1)
    torch.set_num_threads(recipe.threads)
    network = cast(Wav2Lip, load_module(weights, WAV2LIP)[1]).float().eval()
    packed = [clip for part in split_clips(recipe)[1].values() for clip in part]
    shapes = own_shapes(packed)
    clips = [prepare_clip(clip, shapes[clip.name]) for clip in packed]
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    joiner = HalfJoiner(network, read_encoder(encoder), ShapeEncoding(recipe.seed), clips, landmarker)
    choice = None
    for choice in joiner.choose():
        score = {name: round(value, 3) for name, value in vars(choice.score).items()} if choice.score else "no face"
        print(f"widest {choice.opening.widest:.1f}, offset {choice.opening.offset:.2f}: {score}", flush=True)
    write_half_precision(network, output)
    assert choice is not None
    print(f"{output}: widest {choice.opening.widest:.1f}, offset {choice.opening.offset:.2f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the weights that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_sync.join_halves", description=__doc__.splitlines()[0]
    )
    parser.add_argument("weights", type=Path, help="model.safetensors of training.lip_sync.train")
    parser.add_argument("--encoder", type=Path, required=True, help="encoder.safetensors of the audio half")
    parser.add_argument("--packs", type=Path, nargs="+", required=True, help="the packs it was trained on")
    parser.add_argument("--max-scored", type=int, default=10, help="held-out clips of each folder")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the joined weights")
    args = parser.parse_args(arguments)
    recipe = LipSyncRecipe(
        tuple(args.packs), args.output.parent, args.encoder, max_scored=args.max_scored, threads=args.threads
    )
    join(args.weights, args.encoder, recipe, args.output)


if __name__ == "__main__":
    main()
