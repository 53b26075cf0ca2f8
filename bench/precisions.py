"""Compare the precisions that a CPU supports for lip reading: text, error rates and cost.

    python -m bench.precisions EVAL.csv CLIPS.csv [--write CARD.json]

The tables have the columns file, speaker, transcript. Clips of CLIPS whose speaker is in EVAL are left out. The ranges
that int8 needs are measured on rendered clips. Columns of the output:

  same text           clips of EVAL whose greedy text equals that of float32
  WER                 word error rate on EVAL
  others              word error rate on CLIPS
  CPU ms              CPU time of the network, all threads: median over the clips, the precisions in turn
  cost                CPU ms / CPU ms of float32
  may be the default  yes if the text is the same on all of EVAL, and WER on CLIPS is at most one point above float32

The last line lists these precisions, the cheapest first; `auto` means the first that the CPU supports. --write stores
them and the ranges for int8 in the card of the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clip_table import LabelledClip, read_clip_table, word_error_rate
from container.commands.calibration_data import make_lip_reading_samples
from inference.backends import Device, has_int8
from inference.backends.openvino_network import has_bf16
from inference.conversion.int8_lip_coord_net import measure_input_ranges
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.greedy_decoder import read_greedy
from inference.lip_reading.model import DEFAULT_LANDMARKS, compile_fastest
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import MouthWindow, crop_mouths, cut_windows, track_faces
from inference.lip_reading.staged_network import Network
from inference.lip_reading.windows import WINDOW_HOP, run_windows, stitch
from inference.media import open_media
from inference.models import LipCoordNet
from inference.settings import Settings
from inference.weights.architectures import weights_of
from inference.weights.checkpoint import load_into
from inference.weights.registry import LIP_READING
from inference.weights.resolve import find_weights

REFERENCE = "f32"
MAX_WER_INCREASE = 0.01  # on other speakers, over the reference


@dataclass
class PrecisionRun:
    """The results of one precision. texts, seconds: greedy text, and CPU time of the network, for each clip."""

    name: str
    network: Network
    texts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add_clip(self, windows: Sequence[MouthWindow]) -> None:
        """Run the network on one more clip."""
        start = time.process_time()
        results = list(run_windows(windows, self.network, 1))
        self.seconds.append(time.process_time() - start)
        self.texts.append(read_greedy(stitch(results).logits, FPS).text)

    @property
    def cost(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    """Print a table, and the precisions that may be the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, metavar="EVAL.csv")
    parser.add_argument("others", type=Path, metavar="CLIPS.csv")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--write", type=Path, metavar="CARD", help="the card.json to store the results in")
    args = parser.parse_args()
    sources = Settings.from_env().weight_sources
    weights = find_weights(args.weights, LIP_READING, sources)
    module = LipCoordNet()
    load_into(module, weights.path)
    input_ranges = measure_input_ranges(module, make_lip_reading_samples(sources, weights.landmarks))
    print("highest inputs of the convolutions:", input_ranges)
    loaded = weights_of(module)
    networks = {
        name: compile_fastest(lambda: loaded, weights.sha256, Device("cpu", name), input_ranges)
        for name in supported_precisions()
    }
    own = read_clip_table(args.evaluation)
    speakers = {clip.speaker for clip in own}
    others = [clip for clip in read_clip_table(args.others) if clip.speaker not in speakers]
    runs = [PrecisionRun(name, network) for name, network in networks.items()]
    run_all(runs, [*own, *others], load_landmarker(weights.landmarks or DEFAULT_LANDMARKS, sources))
    accepted = report(runs, own, others)
    if args.write:
        write_card(args.write, accepted, input_ranges, weights.sha256)


def supported_precisions() -> list[str]:
    """Return the precisions of this CPU, the reference first."""
    return [REFERENCE] + ["bf16"] * has_bf16() + ["int8"] * has_int8()


def run_all(runs: list[PrecisionRun], clips: list[LabelledClip], landmarker: Landmarker) -> None:
    for i, clip in enumerate(clips):
        tracker = FaceTracker(landmarker)
        with open_media(clip.path) as media:
            faces = track_faces(media.read_clips(FPS), tracker)
            windows = list(cut_windows(crop_mouths(faces, media.name, tracker), WINDOW_HOP))
        for run in runs:
            if i == 0:
                list(run_windows(windows, run.network, 1))  # the first call initialises the network
            run.add_clip(windows)


def report(runs: list[PrecisionRun], own: list[LabelledClip], others: list[LabelledClip]) -> list[str]:
    """Print one row per precision; return those that may be the default, the cheapest first."""
    print(f"greedy text of {len(own)} clips; WER on them, and on {len(others)} of other speakers")
    print(f"{'precision':12}{'same text':>12}{'WER':>8}{'others':>8}{'CPU ms':>9}{'cost':>7}  may be the default")
    own_transcripts, other_transcripts = ([clip.transcript for clip in clips] for clips in (own, others))
    n_own, reference = len(own), runs[0]
    max_wer = word_error_rate(other_transcripts, reference.texts[n_own:]) + MAX_WER_INCREASE
    accepted = {}
    for run in runs:
        n_same = sum(a == b for a, b in zip(run.texts[:n_own], reference.texts, strict=False))
        own_wer = word_error_rate(own_transcripts, run.texts[:n_own])
        other_wer = word_error_rate(other_transcripts, run.texts[n_own:])
        is_accepted = n_same == n_own and other_wer <= max_wer
        if is_accepted:
            accepted[run.name] = run.cost
        print(
            f"{run.name:12}{n_same:6} of {n_own:<3}{own_wer:7.1%}{other_wer:8.1%}{run.cost * 1000:9.0f}"
            f"{run.cost / reference.cost:7.2f}  {'yes' if is_accepted else 'no'}"
        )
    cheapest_first = sorted(accepted, key=lambda name: accepted[name])
    print(f"auto on a CPU: the first that it supports of {', '.join(cheapest_first)}")
    return cheapest_first


def write_card(path: Path, precisions: list[str], input_ranges: dict[str, float], sha256: str) -> None:
    """Store the results in a card. Raises: SystemExit if the card describes other weights."""
    card = json.loads(path.read_text("utf-8"))
    if card["sha256"] != sha256:
        raise SystemExit(f"{path}: describes weights with SHA-256 {card['sha256']}, but {sha256} were measured")
    about = {"sha256": sha256, "measured_by": "python -m bench.precisions"}
    card["cpu_precision"] = about | {"precisions": precisions}
    card["int8"] = about | {"highest": input_ranges}
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
