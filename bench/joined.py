"""Measure lip reading on videos of several sentences: clips of one speaker, joined.

    python -m bench.joined CLIPS.csv WORDS.csv [--sentences 4] [--weights starter]

CLIPS.csv has the columns file, speaker, transcript; WORDS.csv has file, word, start_s, end_s. The clips of the first
speaker are joined in the order of the table; the image jumps at each join, like at a cut. Each row of the output is
for one length of the pauses between sentences, in frames; "unchanged" keeps the clips whole. Columns:

  WER, grammar  word error rate, sentence by sentence with the grammar
  WER, greedy   word error rate of greedy decoding
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.clip_table import LabelledClip, read_clip_table, word_error_rate
from inference.backends import choose_device
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.grammar_decoder import join_spans
from inference.lip_reading.greedy_decoder import read_greedy
from inference.lip_reading.long_video import decode_by_sentence
from inference.lip_reading.model import DEFAULT_LANDMARKS, ReadingModel, load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import MouthCrop, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import WINDOW_HOP, run_windows, stitch
from inference.media import open_media
from inference.settings import Settings

PAUSES = (None, 20, 10, 4)  # frames between two sentences; None: unchanged
SpeechSpans = dict[str, tuple[float, float]]  # file -> seconds at which the first word starts and the last one ends


def main() -> None:
    """Print the word error rates for each length of the pauses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, metavar="CLIPS.csv")
    parser.add_argument("words", type=Path, metavar="WORDS.csv")
    parser.add_argument("--sentences", type=int, default=4, help="number of sentences in a video")
    parser.add_argument("--weights", default="starter")
    args = parser.parse_args()
    sources = Settings.from_env().weight_sources
    model = load_model(args.weights, choose_device("cpu"), sources)
    clips = read_clip_table(args.clips)
    own = [clip for clip in clips if clip.speaker == clips[0].speaker]
    spans = read_speech_spans(args.words)
    landmarks = model.landmarks or DEFAULT_LANDMARKS
    mouths = [extract_mouths(clip, load_landmarker(landmarks, sources)) for clip in own]
    print(f"{len(own)} sentences, {args.sentences} per video, in {model.device.precision}")
    print(f"{'frames between them':24}{'WER, grammar':>14}{'WER, greedy':>14}")
    for pause in PAUSES:
        references, hypotheses = [], []
        for first in range(0, len(own), args.sentences):
            group = slice(first, first + args.sentences)
            references.append(" ".join(clip.transcript for clip in own[group]))
            parts = [trim_pauses(m, spans[c.path.name], pause) for m, c in zip(mouths[group], own[group], strict=True)]
            hypotheses.append(decode_video([mouth for part in parts for mouth in part], model))
        grammar, greedy = (word_error_rate(references, texts) for texts in zip(*hypotheses, strict=True))
        print(f"{'unchanged' if pause is None else pause:<24}{grammar:14.1%}{greedy:14.1%}")


def read_speech_spans(table: Path) -> SpeechSpans:
    spans: SpeechSpans = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            start, _ = spans.get(row["file"], (float(row["start_s"]), 0.0))
            spans[row["file"]] = (start, float(row["end_s"]))
    return spans


def extract_mouths(clip: LabelledClip, landmarker: Landmarker) -> list[MouthCrop]:
    tracker = FaceTracker(landmarker)
    with open_media(clip.path) as media:
        return list(crop_mouths(track_faces(media.read_clips(FPS), tracker), media.name, tracker))


def trim_pauses(mouths: Sequence[MouthCrop], span: tuple[float, float], pause: int | None) -> Iterator[MouthCrop]:
    """Yield the frames of the words, with half of the pause before and after them. None: yield all frames."""
    if pause is None:
        yield from mouths
        return
    start, end = (round(seconds * FPS) for seconds in span)
    yield from mouths[max(start - pause // 2, 0) : end + pause // 2]


def decode_video(mouths: Sequence[MouthCrop], model: ReadingModel) -> tuple[str, str]:
    """Decode with the grammar, and greedily; return both texts."""
    spans = list(decode_by_sentence(mouths, model.network, 1, model.calibration))
    logits = stitch(run_windows(cut_windows(mouths, WINDOW_HOP), model.network, 1)).logits
    return join_spans(spans, 1).text, read_greedy(logits, FPS).text


if __name__ == "__main__":
    main()
