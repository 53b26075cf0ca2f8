"""Measure lip reading on rendered sentences, and the speed of rendering.

    python -m bench.rendered [--sentences 20] [--first-seed 100] [--decoder auto] [--size 360x288]

Each random GRID sentence is rendered with another seed (another person and room), encoded as H.264 and read. Prints
each sentence beside its transcription ("!" marks an error), and then

  - the word error rate, with and without the letter of each sentence;
  - correctly read letters, and the confusions;
  - the same if letters with equal mouth shapes (homophenes) count as correct, since lips alone cannot distinguish them;
  - the speed of rendering and encoding, in multiples of real time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.clip_table import word_error_rate
from inference.lip_reading import LipReader, ReadOptions
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.lexicon import PRONUNCIATIONS, phonemes_of
from inference.speaker.visemes import VISEMES
from training.common.synthetic_clips import FIRST_SEED, draw_sentence

LETTER_SLOT = 3  # index of the letter in a sentence


@dataclass(frozen=True)
class RenderedResult:
    """One rendered sentence and its transcription."""

    reference: str
    hypothesis: str
    render_s: float  # wall time of rendering and encoding
    length_s: float


def main() -> None:
    """Render and read the sentences, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--size", default="360x288")
    args = parser.parse_args()
    if args.first_seed + args.sentences > FIRST_SEED:
        raise SystemExit(f"seeds from {FIRST_SEED} on were trained on; expected lower ones")
    width, height = (int(side) for side in args.size.split("x"))
    reader = LipReader(weights=args.weights)
    options = ReadOptions(decoder=args.decoder)
    clip_options = SyntheticClipOptions(width=width, height=height)
    seeds = range(args.first_seed, args.first_seed + args.sentences)
    print_results([read_rendered(seed, reader, options, clip_options) for seed in seeds])


def read_rendered(
    seed: int, reader: LipReader, options: ReadOptions, clip_options: SyntheticClipOptions
) -> RenderedResult:
    clip = SyntheticClip(draw_sentence(seed), seed, clip_options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        started = time.perf_counter()
        clip.write(path, with_audio=False)
        render_s = time.perf_counter() - started
        return RenderedResult(clip.speech.text, reader.read(path, options).text, render_s, clip.speech.length_s)


def print_results(results: list[RenderedResult]) -> None:
    references, hypotheses = [one.reference for one in results], [one.hypothesis for one in results]
    for one in results:
        print(f"{'  ' if one.reference == one.hypothesis else '! '}{one.reference:38} {one.hypothesis}")
    other_words = word_error_rate(
        [without_letter(text) for text in references], [without_letter(h) for h in hypotheses]
    )
    letters = Counter((letter_of(a), letter_of(b)) for a, b in zip(references, hypotheses, strict=True))
    n_correct = sum(count for (a, b), count in letters.items() if a == b)
    wrong = ", ".join(f"{a} as {b}" + (f" x{n}" if n > 1 else "") for (a, b), n in letters.most_common() if a != b)
    print(f"\n{len(results)} sentences, WER {word_error_rate(references, hypotheses):.1%}")
    print(f"WER without the letters: {other_words:.1%}")
    print(f"correct letters: {n_correct} of {len(results)}" + (f"; confusions: {wrong}" if wrong else ""))
    n_alike = sum(count for (a, b), count in letters.items() if mouth_shapes_of(a) == mouth_shapes_of(b))
    print(f"correct letters, counting letters of equal mouth shapes: {n_alike} of {len(results)}")
    speed = sum(one.length_s for one in results) / sum(one.render_s for one in results)
    print(f"rendered and encoded at {speed:.1f} times real time")


def mouth_shapes_of(letter: str) -> tuple[object, ...]:
    """Return the mouth shapes of a letter: homophenes have the same."""
    return tuple(VISEMES[phoneme] for phoneme in phonemes_of(letter)) if letter in PRONUNCIATIONS else ()


def without_letter(text: str) -> str:
    words = text.split()
    return " ".join(words[:LETTER_SLOT] + words[LETTER_SLOT + 1 :])


def letter_of(text: str) -> str:
    words = text.split()
    return words[LETTER_SLOT] if len(words) > LETTER_SLOT else "(none)"


if __name__ == "__main__":
    main()
