"""Does a clip read the same at another rate, size and turn, and with frames missing?

    python -m bench.robustness CLIPS.csv... [--speaker s1]

For each change: how many of the clips that are read right unchanged still are, how many of all clips give
the same text as unchanged, and the word error rate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import jiwer
import numpy as np

from bench import films
from bench.clips import SpokenClip, read_list
from inference.lip_reading import LipReader
from inference.media import Frame

Change = Callable[[list[Frame], Path, np.random.Generator], Path]
CHANGES: dict[str, Change] = {
    "unchanged, H.264": lambda frames, out, _: films.as_it_is(frames, out),
    "compressed, crf 23": lambda frames, out, _: films.as_it_is(frames, out, crf=23),
    "30 fps": lambda frames, out, _: films.at_fps(frames, out, Fraction(30)),
    "60 fps": lambda frames, out, _: films.at_fps(frames, out, Fraction(60)),
    "variable rate": films.at_variable_rate,
    "turned by metadata": lambda frames, out, _: films.turned(frames, out),
    "1080p": lambda frames, out, _: films.at_1080p(frames, out),
    "10 black frames": films.with_black_frames,
}


def main() -> None:
    """Measure and print a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--speaker", default="s1")
    parser.add_argument("--weights", default="starter")
    asked = parser.parse_args()
    clips = [clip for table in asked.tables for clip in read_list(table) if clip.speaker == asked.speaker]
    reader = LipReader(weights=asked.weights)
    said = [clip.transcript for clip in clips]
    plain = [reader.read(clip.path).text for clip in clips]
    right = [i for i in range(len(clips)) if plain[i] == said[i]]
    print(f"{len(clips)} clips of {asked.speaker}, {len(right)} read right; WER {jiwer.wer(said, plain):.1%}")
    print(f"{'change':20}{'still right':>13}{'same text':>12}{'WER':>8}")
    for name, change in CHANGES.items():
        read = [read_changed(reader, clip, change) for clip in clips]
        kept = sum(read[i] == said[i] for i in right)
        same = sum(a == b for a, b in zip(read, plain, strict=True))
        print(
            f"{name:20}{kept:6} of {len(right):<3}{same:6} of {len(clips):<3}{jiwer.wer(said, read):7.1%}", flush=True
        )


def read_changed(reader: LipReader, clip: SpokenClip, change: Change) -> str:
    rng = np.random.default_rng(sum(clip.path.name.encode()))
    with tempfile.TemporaryDirectory() as folder:
        return reader.read(change(films.frames_of(clip.path), Path(folder) / "film.mp4", rng)).text


if __name__ == "__main__":
    main()
