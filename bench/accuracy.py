"""Measure error rates of lip reading for each speaker and decoder.

    python -m bench.accuracy CLIPS.csv... [--phrases 20 [--shared-words 2]] [--speakers s20 s33] [--weights A B]

Each table has the columns file, speaker, transcript. Each table is split into the clips of its first speaker and those
of all others; with --speakers, only clips of these are used, as one group of each table. Columns of the output:

  n                number of clips
  WER, CER         word and character error rate
  whole sentences  clips that are transcribed without an error

--phrases N: a row "among N" for the share of clips whose sentence is chosen among N, itself and others drawn at random
from the language, the same for each clip in every run. --shared-words K: the others begin with the same K words, which
is harder, and fair to a table whose sentences all begin alike.

The row "grammar, logits zero" is a baseline: what the grammar outputs for 75 frames that carry no information.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.clip_table import LabelledClip, read_clip_table, word_error_rate
from inference.lip_reading import LipReader, ReadOptions
from inference.lip_reading.evaluation import error_rate
from inference.lip_reading.grammar_decoder import GRID, N_PREFIX_SLOTS
from inference.lip_reading.lattice import compute_sentence_weights
from inference.lip_reading.options import DECODERS


def main() -> None:
    """Print the error rates of each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--weights", nargs="+", default=["starter"], help="each is measured in the same run")
    parser.add_argument("--speakers", nargs="+", metavar="SPEAKER", help="use only their clips")
    parser.add_argument("--phrases", type=int, metavar="N", help="also choose among N sentences")
    parser.add_argument(
        "--shared-words", type=int, default=0, metavar="K", help="first words that the N have in common"
    )
    parser.add_argument("--show", action="store_true", help="print the transcript and the output for each clip")
    args = parser.parse_args()
    if not 0 <= args.shared_words < len(GRID):
        parser.error(f"--shared-words: expected 0 to {len(GRID) - 1}, found {args.shared_words}")
    if args.shared_words and not args.phrases:
        parser.error("--shared-words: expected --phrases as well")
    n_sentences = math.prod(len(words) for words in GRID[args.shared_words :])
    if args.phrases is not None and not 1 <= args.phrases <= n_sentences:
        parser.error(f"--phrases: expected 1 to {n_sentences}, as many sentences exist, found {args.phrases}")
    groups = read_groups(args.tables, args.speakers)
    for weights in args.weights:
        print(f"weights: {weights}")
        print(f"{'clips':36}{'n':>4}{'WER':>9}{'CER':>9}{'whole sentences':>17}")
        reader = LipReader(weights=weights)
        for name, group in groups.items():
            report(name, group, reader, show=args.show)
            if args.phrases:
                report_phrases(name, group, reader, args.phrases, args.shared_words, show=args.show)


def read_groups(tables: Sequence[Path], speakers: Sequence[str] | None) -> dict[str, list[LabelledClip]]:
    """Return the groups of clips of all tables by their names. Raises: SystemExit if a speaker has no clip."""
    n_of_name = Counter(table.name for table in set(tables))
    clips = {str(table) if n_of_name[table.name] > 1 else table.name: read_clip_table(table) for table in tables}
    if speakers is None:
        return {f"{table} {name}": group for table in clips for name, group in group_by_speaker(clips[table]).items()}
    missing = set(speakers) - {clip.speaker for of_table in clips.values() for clip in of_table}
    if missing:
        raise SystemExit(f"no clips of {', '.join(sorted(missing))} in {', '.join(clips)}")
    groups = {}
    for table, of_table in clips.items():
        if chosen := [clip for clip in of_table if clip.speaker in speakers]:
            names = [speaker for speaker in speakers if any(clip.speaker == speaker for clip in chosen)]
            groups[f"{table} {' '.join(names)}"] = chosen
    return groups


def group_by_speaker(clips: list[LabelledClip]) -> dict[str, list[LabelledClip]]:
    """Split into the clips of the first speaker and those of the others; leave out an empty group."""
    first = clips[0].speaker
    groups = {first: [c for c in clips if c.speaker == first], "others": [c for c in clips if c.speaker != first]}
    return {name: group for name, group in groups.items() if group}


def report(name: str, clips: list[LabelledClip], reader: LipReader, *, show: bool) -> None:
    """Print one row for each decoder, and one for the baseline."""
    references = [clip.transcript for clip in clips]
    for decoder in DECODERS[1:]:  # without auto
        options = ReadOptions(decoder=decoder)
        hypotheses = [reader.read(clip.path, options).text for clip in clips]
        print_row(f"{name} {decoder}", references, hypotheses, show=show)
    baseline = [decode_without_evidence()] * len(references)
    print_row(f"{name} grammar, logits zero", references, baseline, show=False)


def report_phrases(
    name: str, clips: list[LabelledClip], reader: LipReader, n: int, n_shared: int, *, show: bool
) -> None:
    """Print the row of a choice among n sentences."""
    hypotheses = [
        reader.read(clip.path, ReadOptions(phrases=draw_phrases(clip.transcript, n, i, n_shared))).text
        for i, clip in enumerate(clips)
    ]
    shared = f", {n_shared} shared" if n_shared else ""
    print_row(f"{name} among {n}{shared}", [clip.transcript for clip in clips], hypotheses, show=show)


def print_row(name: str, references: list[str], hypotheses: list[str], *, show: bool) -> None:
    pairs = list(zip(references, hypotheses, strict=True))
    n, n_correct = len(pairs), sum(a == b for a, b in pairs)
    cer = error_rate(pairs)  # strings are sequences of characters
    print(f"{name:36}{n:4}{word_error_rate(references, hypotheses):9.1%}{cer:9.1%}{n_correct:11} of {n}")
    if show:
        for reference, hypothesis in pairs:
            print(f"    {reference:36} {hypothesis}")


def draw_phrases(transcript: str, n: int, seed: int, n_shared: int = 0) -> tuple[str, ...]:
    """Return n different sentences of the language in a random order, of which one is the transcript.

    n_shared: words at the start that all have in common.
    """
    rng = np.random.default_rng(seed)
    drawn, shared = {transcript}, transcript.split()[:n_shared]
    while len(drawn) < n:
        drawn.add(" ".join([*shared, *(words[rng.integers(len(words))] for words in GRID[n_shared:])]))
    phrases = sorted(drawn)
    rng.shuffle(phrases)
    return tuple(phrases)


def decode_without_evidence() -> str:
    """Return the sentence of the grammar with the most CTC paths over 75 frames of equal logits."""
    weights = compute_sentence_weights(GRID, N_PREFIX_SLOTS, np.full((75, 28), 1 / 28))
    best = np.unravel_index(int(weights.argmax()), weights.shape)
    return " ".join(words[i] for words, i in zip(GRID, best, strict=True))


if __name__ == "__main__":
    main()
