"""The precisions that a CPU can run lip reading in: their text beside float32's, their errors, their cost.

    python -m bench.precisions EVAL.csv CLIPS.csv [--int8 DIR/NAME-int8.xml] [--write CARD.json]

The tables have the columns file, speaker, transcript. A precision may be what `auto` means where its greedy text
is float32's on every clip of EVAL, and its word error rate on CLIPS, of speakers that EVAL has not, is at most one
point over float32's. Of those the cheapest is chosen: CPU time of all threads of the network alone, a median over
the clips, the precisions in turn. --write puts it into the card of the weights. int8 is measured where a file of
it is named ('viseme weights convert NAME --to openvino --precision int8' makes one); it is a file of its own, so
that `auto` of other weights cannot mean it.
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
from inference.backends import Device
from inference.backends.openvino import has_bf16
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading.decode import read_greedy
from inference.lip_reading.model import DEFAULT_LANDMARKS, ReadingModel, load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import Window, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, Network, run_windows, stitch
from inference.media import open_media
from inference.settings import Settings
from inference.weights.sources import WeightSources

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
    parser.add_argument("--int8", type=Path, metavar="XML")
    parser.add_argument("--write", type=Path, metavar="CARD", help="a card.json to put the choice into")
    asked = parser.parse_args()
    sources = Settings.from_env().weight_sources
    models = load_all(asked.weights, asked.int8, sources)
    own = read_list(asked.evaluation)
    known = {clip.speaker for clip in own}
    others = [clip for clip in read_list(asked.others) if clip.speaker not in known]
    measured = [Measured(name, model.network) for name, model in models.items()]
    run_all(measured, [*own, *others], models[REFERENCE], sources)
    chosen = report(measured, own, others)
    if asked.write:
        write_card(asked.write, chosen, models[REFERENCE].info.sha256)


def load_all(weights: str, int8: Path | None, sources: WeightSources) -> dict[str, ReadingModel]:
    """The reference first."""
    named = [REFERENCE] + ["bf16"] * has_bf16()
    models = {name: load_model(weights, Device("cpu", name), sources) for name in named}
    return models | ({"int8": load_model(int8, Device("cpu", "int8"), sources)} if int8 else {})


def run_all(measured: list[Measured], clips: list[SpokenClip], model: ReadingModel, sources: WeightSources) -> None:
    landmarker = load_landmarker(model.landmarks or DEFAULT_LANDMARKS, sources)
    for i, clip in enumerate(clips):
        tracker = FaceTracker(landmarker)
        with open_media(clip.path) as media:
            tracked = track_faces(media.read_clips(FPS), tracker)
            windows = list(cut_windows(crop_mouths(tracked, media.name, tracker), HOP))
        for one in measured:
            if i == 0:
                list(run_windows(windows, one.network, 1))  # the first call prepares
            one.read(windows)


def report(measured: list[Measured], own: list[SpokenClip], others: list[SpokenClip]) -> str:
    """Print a row for each precision; return the one to choose."""
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
    chosen = min((name for name in allowed if name != "int8"), key=lambda name: allowed[name])
    print(f"auto on a CPU: {chosen}")
    return chosen


def halves(
    one: Measured, own: list[SpokenClip], others: list[SpokenClip]
) -> Iterator[tuple[list[SpokenClip], list[str]]]:
    yield own, one.texts[: len(own)]
    yield others, one.texts[len(own) :]


def error_rate(clips: Sequence[SpokenClip], texts: list[str]) -> float:
    return float(jiwer.wer([clip.transcript for clip in clips], texts))


def write_card(path: Path, precision: str, sha256: str) -> None:
    """Raises: SystemExit where the card is of other weights."""
    card = json.loads(path.read_text("utf-8"))
    if card["sha256"] != sha256:
        raise SystemExit(f"{path}: of the weights {card['sha256']}; measured were {sha256}")
    card["cpu_precision"] = {"sha256": sha256, "measured_by": "python -m bench.precisions", "precision": precision}
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
