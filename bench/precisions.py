"""The precisions that a CPU can run lip reading in: their text beside float32's, their errors, their cost.

    python -m bench.precisions EVAL.csv CLIPS.csv [--write CARD.json]

The tables have the columns file, speaker, transcript. A precision may be what `auto` means where its greedy text
is float32's on every clip of EVAL, and its word error rate on CLIPS, of speakers that EVAL has not, is at most one
point over float32's. Of those the cheapest is chosen: CPU time of all threads of the network alone, a median over
the clips, the precisions in turn. The ranges that int8 needs are measured on rendered clips. --write puts them and
the precisions that fit, the cheapest first, into the card of the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jiwer

from bench.clips import SpokenClip, read_list
from container.samples import make_samples
from inference.backends import Device, has_int8
from inference.backends.openvino import has_bf16
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.decode import read_greedy
from inference.lip_reading.model import DEFAULT_LANDMARKS, JOB, run_by_best
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import Window, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, Network, run_windows, stitch
from inference.media import open_media
from inference.models import LipCoordNet
from inference.settings import Settings
from inference.weights.resolve import find_weights
from inference.conversion.int8_lip_coord_net import find_highest
from inference.weights.checkpoint import load_into

REFERENCE = "f32"
MOST_WORSE = 0.01  # of the word error rate on other speakers


@dataclass
class Measured:
    """One precision. texts: of each clip. seconds: of CPU time of the network, for each clip."""

    name: str
    network: Network
    texts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def read(self, windows: Sequence[Window]) -> None:
        """One more clip."""
        start = time.process_time()
        results = list(run_windows(windows, self.network, 1))
        self.seconds.append(time.process_time() - start)
        self.texts.append(read_greedy(stitch(results).logits, FPS).text)

    @property
    def cost(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    """Measure, print a table, and say which may be the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, metavar="EVAL.csv")
    parser.add_argument("others", type=Path, metavar="CLIPS.csv")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--write", type=Path, metavar="CARD", help="a card.json to put the choice into")
    asked = parser.parse_args()
    sources = Settings.from_env().weight_sources
    found = find_weights(asked.weights, JOB, sources)
    module = LipCoordNet()
    load_into(module, found.path)
    highest = find_highest(module, make_samples(sources, found.landmarks))
    print("highest inputs of the convolutions:", highest)
    networks = {name: run_by_best(module, Device("cpu", name), highest) for name in precisions()}
    own = read_list(asked.evaluation)
    known = {clip.speaker for clip in own}
    others = [clip for clip in read_list(asked.others) if clip.speaker not in known]
    measured = [Measured(name, network) for name, network in networks.items()]
    run_all(measured, [*own, *others], load_landmarker(found.landmarks or DEFAULT_LANDMARKS, sources))
    chosen = report(measured, own, others)
    if asked.write:
        write_card(asked.write, chosen, highest, found.sha256)


def precisions() -> list[str]:
    """Those of this CPU, the reference first."""
    return [REFERENCE] + ["bf16"] * has_bf16() + ["int8"] * has_int8()


def run_all(measured: list[Measured], clips: list[SpokenClip], landmarker: Landmarker) -> None:
    for i, clip in enumerate(clips):
        tracker = FaceTracker(landmarker)
        with open_media(clip.path) as media:
            tracked = track_faces(media.read_clips(FPS), tracker)
            windows = list(cut_windows(crop_mouths(tracked, media.name, tracker), HOP))
        for one in measured:
            if i == 0:
                list(run_windows(windows, one.network, 1))  # the first call prepares
            one.read(windows)


def report(measured: list[Measured], own: list[SpokenClip], others: list[SpokenClip]) -> list[str]:
    """Print a row for each precision; return those that fit, the cheapest first."""
    print(f"greedy text of {len(own)} clips; WER on them, and on {len(others)} of other speakers")
    print(f"{'precision':12}{'same text':>12}{'WER':>8}{'others':>8}{'CPU ms':>9}{'cost':>7}  may be the default")
    reference = measured[0]
    allowed = {}
    for one in measured:
        n_same = sum(a == b for a, b in zip(one.texts[: len(own)], reference.texts, strict=False))
        rates = [error_rate(clips, texts) for clips, texts in halves(one, own, others)]
        is_fit = n_same == len(own) and rates[1] <= error_rate(others, reference.texts[len(own) :]) + MOST_WORSE
        if is_fit:
            allowed[one.name] = one.cost
        print(
            f"{one.name:12}{n_same:6} of {len(own):<3}{rates[0]:7.1%}{rates[1]:8.1%}{one.cost * 1000:9.0f}"
            f"{one.cost / reference.cost:7.2f}  {'yes' if is_fit else 'no'}"
        )
    chosen = sorted(allowed, key=lambda name: allowed[name])
    print(f"auto on a CPU: the first it has of {', '.join(chosen)}")
    return chosen


def halves(
    one: Measured, own: list[SpokenClip], others: list[SpokenClip]
) -> Iterator[tuple[list[SpokenClip], list[str]]]:
    yield own, one.texts[: len(own)]
    yield others, one.texts[len(own) :]


def error_rate(clips: Sequence[SpokenClip], texts: list[str]) -> float:
    return float(jiwer.wer([clip.transcript for clip in clips], texts))


def write_card(path: Path, chosen: list[str], highest: dict[str, float], sha256: str) -> None:
    """Raises: SystemExit where the card is of other weights."""
    card = json.loads(path.read_text("utf-8"))
    if card["sha256"] != sha256:
        raise SystemExit(f"{path}: of the weights {card['sha256']}; measured were {sha256}")
    about = {"sha256": sha256, "measured_by": "python -m bench.precisions"}
    card["cpu_precision"] = about | {"precisions": chosen}
    card["int8"] = about | {"highest": highest}
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
