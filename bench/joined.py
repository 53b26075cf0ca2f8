"""How well films of several sentences are read: clips of one speaker, one after another.

    python -m bench.joined CLIPS.csv WORDS.csv [--sentences 4] [--weights starter]

The tables of clips have the columns file, speaker, transcript; those of words file, word, start_s, end_s. Clips follow
one another in the table's order, so many to a film; with the pauses that they have, and with pauses cut to so many
frames. The pictures jump where clips meet, as they do in a film that is cut.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import jiwer

from bench.clips import SpokenClip, read_list
from inference.backends import choose_device
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.decode import read_greedy
from inference.lip_reading.grammar import join_passages
from inference.lip_reading.model import DEFAULT_LANDMARKS, ReadingModel, load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import Mouth, crop_mouths, cut_windows, track_faces
from inference.lip_reading.sentences import read_by_sentence
from inference.lip_reading.windows import HOP, run_windows, stitch
from inference.media import open_media
from inference.settings import Settings

PAUSES = (None, 20, 10, 4)  # frames between two sentences; None: as they are
Spans = dict[str, tuple[float, float]]  # file -> seconds in which it speaks


def main() -> None:
    """Measure and print a row for each length of the pauses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, metavar="CLIPS.csv")
    parser.add_argument("words", type=Path, metavar="WORDS.csv")
    parser.add_argument("--sentences", type=int, default=4, help="in a film")
    parser.add_argument("--weights", default="starter")
    asked = parser.parse_args()
    sources = Settings.from_env().weight_sources
    model = load_model(asked.weights, choose_device("cpu"), sources)
    clips = read_list(asked.clips)
    own = [clip for clip in clips if clip.speaker == clips[0].speaker]
    spans = read_spans(asked.words)
    mouths = [see(clip, load_landmarker(model.landmarks or DEFAULT_LANDMARKS, sources)) for clip in own]
    print(f"{len(own)} sentences, {asked.sentences} to a film, in {model.device.precision}")
    print(f"{'frames between them':24}{'WER, grammar':>14}{'WER, greedy':>14}")
    for pause in PAUSES:
        said, read = [], []
        for first in range(0, len(own), asked.sentences):
            chosen = slice(first, first + asked.sentences)
            said.append(" ".join(clip.transcript for clip in own[chosen]))
            parts = [trim(m, spans[c.path.name], pause) for m, c in zip(mouths[chosen], own[chosen], strict=True)]
            read.append(read_film([mouth for part in parts for mouth in part], model))
        rates = [jiwer.wer(said, list(texts)) for texts in zip(*read, strict=True)]
        print(f"{'as they are' if pause is None else pause:<24}{rates[0]:14.1%}{rates[1]:14.1%}")


def read_spans(table: Path) -> Spans:
    spans: Spans = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            start, _ = spans.get(row["file"], (float(row["start_s"]), 0.0))
            spans[row["file"]] = (start, float(row["end_s"]))
    return spans


def see(clip: SpokenClip, landmarker: Landmarker) -> list[Mouth]:
    tracker = FaceTracker(landmarker)
    with open_media(clip.path) as media:
        return list(crop_mouths(track_faces(media.read_clips(FPS), tracker), media.name, tracker))


def trim(mouths: Sequence[Mouth], span: tuple[float, float], pause: int | None) -> Iterator[Mouth]:
    """A clip with half of the pause before its words, and half after them."""
    if pause is None:
        yield from mouths
        return
    first, end = (round(seconds * FPS) for seconds in span)
    yield from mouths[max(first - pause // 2, 0) : end + pause // 2]


def read_film(mouths: Sequence[Mouth], model: ReadingModel) -> tuple[str, str]:
    """By the grammar, and greedily."""
    passages = list(read_by_sentence(mouths, model.network, 1, model.calibration))
    logits = stitch(run_windows(cut_windows(mouths, HOP), model.network, 1)).logits
    return join_passages(passages, 1).text or "-", read_greedy(logits, FPS).text or "-"


if __name__ == "__main__":
    main()
