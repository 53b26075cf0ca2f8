"""Word and character error rates of greedy lip reading, by speaker.

    python -m bench.accuracy CLIPS.csv...

Each table has the columns file, speaker, transcript.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer

from bench.clips import SpokenClip, read_list
from inference.lip_reading import LipReader


def main() -> None:
    """Measure and print a row for each table's first speaker and all its others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--show", action="store_true", help="print each clip's two sentences")
    asked = parser.parse_args()
    reader = LipReader(weights=asked.weights)
    print(f"{'clips':28}{'n':>4}{'WER':>9}{'CER':>9}{'whole sentences':>17}")
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
    read = [reader.read(clip.path).text for clip in clips]
    right = sum(a == b for a, b in zip(said, read, strict=True))
    print(f"{name:28}{len(clips):4}{jiwer.wer(said, read):9.1%}{jiwer.cer(said, read):9.1%}{right:11} of {len(clips)}")
    if show:
        for a, b in zip(said, read, strict=True):
            print(f"    {a:36} {b}")


if __name__ == "__main__":
    main()
