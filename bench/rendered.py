"""How well rendered sentences are read, and how fast they are rendered.

    python -m bench.rendered [--sentences 20] [--first-seed 100] [--decoder auto] [--size 360x288]

Sentences of the GRID language are drawn at random, each is filmed with another seed (another person and room),
written as H.264 and read back. Homophenes share their shapes, so nobody could tell all letters apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jiwer

from inference.lip_reading import LipReader, ReadOptions
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.lexicon import PRONUNCIATIONS, phonemes_of
from inference.speaker.visemes import VISEMES
from training.lip_reading.render_clips import FIRST_SEED, draw_sentence

LETTER = 3  # its slot in a sentence


@dataclass(frozen=True)
class Read:
    """One sentence, what was read of it, and what making it took."""

    said: str
    read: str
    wall_s: float  # to draw and encode it
    length_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--size", default="360x288")
    asked = parser.parse_args()
    if asked.first_seed + asked.sentences > FIRST_SEED:
        raise SystemExit(f"seeds from {FIRST_SEED} on were trained on; choose lower ones")
    width, height = (int(side) for side in asked.size.split("x"))
    reader = LipReader(weights=asked.weights)
    options = ReadOptions(decoder=asked.decoder)
    seeds = range(asked.first_seed, asked.first_seed + asked.sentences)
    show([read_rendered(seed, reader, options, SyntheticClipOptions(width=width, height=height)) for seed in seeds])


def read_rendered(seed: int, reader: LipReader, options: ReadOptions, filmed: SyntheticClipOptions) -> Read:
    film = SyntheticClip(draw_sentence(seed), seed, filmed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        began = time.perf_counter()
        film.write(path, with_audio=False)
        wall_s = time.perf_counter() - began
        return Read(film.speech.text, reader.read(path, options).text, wall_s, film.speech.length_s)


def show(results: list[Read]) -> None:
    said, read = [one.said for one in results], [one.read for one in results]
    for one in results:
        print(f"{'  ' if one.said == one.read else '! '}{one.said:38} {one.read}")
    rest = jiwer.wer([without_letter(text) for text in said], [without_letter(text) or "-" for text in read])
    letters = Counter((letter_of(a), letter_of(b)) for a, b in zip(said, read, strict=True))
    n_right = sum(count for (a, b), count in letters.items() if a == b)
    wrong = ", ".join(f"{a} as {b}" + (f" x{n}" if n > 1 else "") for (a, b), n in letters.most_common() if a != b)
    print(f"\n{len(results)} sentences, WER {jiwer.wer(said, [text or '-' for text in read]):.1%}")
    print(f"WER outside the letter: {rest:.1%}")
    print(f"letters right: {n_right} of {len(results)}" + (f"; wrong: {wrong}" if wrong else ""))
    n_alike = sum(count for (a, b), count in letters.items() if shapes_of(a) == shapes_of(b))
    print(f"letters right but for those that look the same: {n_alike} of {len(results)}")
    speed = sum(one.length_s for one in results) / sum(one.wall_s for one in results)
    print(f"rendered and encoded {speed:.1f} times as fast as real time")


def shapes_of(letter: str) -> tuple[object, ...]:
    """What the mouth does for a letter: homophenes have it in common."""
    return tuple(VISEMES[phoneme] for phoneme in phonemes_of(letter)) if letter in PRONUNCIATIONS else ()


def without_letter(text: str) -> str:
    words = text.split()
    return " ".join(words[:LETTER] + words[LETTER + 1 :])


def letter_of(text: str) -> str:
    words = text.split()
    return words[LETTER] if len(words) > LETTER else "(none)"


if __name__ == "__main__":
    main()
