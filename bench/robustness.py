"""Measure whether lip reading survives changes of the video: rate, size, orientation, compression, black frames.

    python -m bench.robustness CLIPS.csv... [--speaker s1]

The tables have the columns file, speaker, transcript. Columns of the output, one row per change:

  still right  clips that are read correctly, of those that are read correctly unchanged
  same text    clips whose text equals that of the unchanged clip
  WER          word error rate
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.clip_table import LabelledClip, read_clip_table, word_error_rate
from bench.video_variants import (
    add_black_frames,
    change_fps,
    make_variable_rate,
    read_frames,
    reencode,
    rotate_by_metadata,
    scale_to_1080p,
)
from inference.lip_reading import LipReader
from inference.media import Frame

Change = Callable[[list[Frame], Path, np.random.Generator], Path]
CHANGES: dict[str, Change] = {
    "unchanged, H.264": lambda frames, out, _: reencode(frames, out),
    "compressed, crf 23": lambda frames, out, _: reencode(frames, out, crf=23),
    "30 fps": lambda frames, out, _: change_fps(frames, out, Fraction(30)),
    "60 fps": lambda frames, out, _: change_fps(frames, out, Fraction(60)),
    "variable rate": make_variable_rate,
    "turned by metadata": lambda frames, out, _: rotate_by_metadata(frames, out),
    "1080p": lambda frames, out, _: scale_to_1080p(frames, out),
    "10 black frames": add_black_frames,
}


def main() -> None:
    """Print one row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--speaker", default="s1")
    parser.add_argument("--weights", default="starter")
    args = parser.parse_args()
    clips = [clip for table in args.tables for clip in read_clip_table(table) if clip.speaker == args.speaker]
    reader = LipReader(weights=args.weights)
    references = [clip.transcript for clip in clips]
    unchanged = [reader.read(clip.path).text for clip in clips]
    correct = [i for i in range(len(clips)) if unchanged[i] == references[i]]
    wer = word_error_rate(references, unchanged)
    print(f"{len(clips)} clips of {args.speaker}, {len(correct)} read correctly; WER {wer:.1%}")
    print(f"{'change':20}{'still right':>13}{'same text':>12}{'WER':>8}")
    for name, change in CHANGES.items():
        texts = [read_changed(reader, clip, change) for clip in clips]
        n_still_correct = sum(texts[i] == references[i] for i in correct)
        n_same = sum(a == b for a, b in zip(texts, unchanged, strict=True))
        wer = word_error_rate(references, texts)
        row = f"{name:20}{n_still_correct:6} of {len(correct):<3}{n_same:6} of {len(clips):<3}{wer:7.1%}"
        print(row, flush=True)


def read_changed(reader: LipReader, clip: LabelledClip, change: Change) -> str:
    rng = np.random.default_rng(sum(clip.path.name.encode()))
    with tempfile.TemporaryDirectory() as folder:
        return reader.read(change(read_frames(clip.path), Path(folder) / "changed.mp4", rng)).text


if __name__ == "__main__":
    main()
