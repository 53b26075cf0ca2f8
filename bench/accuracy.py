"""Word and character error rates of lip reading by speaker, for each decoder, and what the grammar is worth alone.

    python -m bench.accuracy CLIPS.csv...

Each table has the columns file, speaker, transcript.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer
import numpy as np

from bench.clips import SpokenClip, read_list
from inference.lip_reading import LipReader, ReadOptions
from inference.lip_reading.grammar import GRID, N_HEAD
from inference.lip_reading.lattice import weigh_sentences
from inference.lip_reading.options import DECODERS


def main() -> None:
    """Measure and print a row for each table's first speaker and all its others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--show", action="store_true", help="print each clip's two sentences")
    asked = parser.parse_args()
    reader = LipReader(weights=asked.weights)
    print(f"{'clips':36}{'n':>4}{'WER':>9}{'CER':>9}{'whole sentences':>17}")
    for table in asked.tables:
        clips = read_list(table)
        for name, chosen in by_speaker(clips).items():
            report(f"{table.name} {name}", chosen, reader, show=asked.show)


def by_speaker(clips: list[SpokenClip]) -> dict[str, list[SpokenClip]]:
    first = clips[0].speaker
    groups = {first: [c for c in clips if c.speaker == first], "others": [c for c in clips if c.speaker != first]}
    return {name: chosen for name, chosen in groups.items() if chosen}


def report(name: str, clips: list[SpokenClip], reader: LipReader, *, show: bool) -> None:
    said = [clip.transcript for clip in clips]
    for decoder in DECODERS[1:]:
        asked = ReadOptions(decoder=decoder)
        print_row(f"{name} {decoder}", said, [reader.read(clip.path, asked).text for clip in clips], show=show)
    print_row(f"{name} grammar, logits zero", said, [guess_blindly()] * len(said), show=False)


def print_row(name: str, said: list[str], read: list[str], *, show: bool) -> None:
    right = sum(a == b for a, b in zip(said, read, strict=True))
    print(f"{name:36}{len(said):4}{jiwer.wer(said, read):9.1%}{jiwer.cer(said, read):9.1%}{right:11} of {len(said)}")
    if show:
        for a, b in zip(said, read, strict=True):
            print(f"    {a:36} {b}")


def guess_blindly() -> str:
    """What the grammar says of 75 frames that say nothing, where it has to say a sentence: the one with most paths."""
    weights = weigh_sentences(GRID, N_HEAD, np.full((75, 28), 1 / 28))
    best = np.unravel_index(int(weights.argmax()), weights.shape)
    return " ".join(words[i] for words, i in zip(GRID, best, strict=True))


if __name__ == "__main__":
    main()
