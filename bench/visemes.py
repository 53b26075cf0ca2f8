"""Measure estimated visemes against speech with exact times, by voices that were never trained on.

    python -m bench.visemes [--utterances 60] [--kokoro PACKS] [--weights FILE]

The speech is by eight voices of espeak-ng that were never trained on and, if PACKS is given, by Kokoro's: packs that
`training.common.kokoro --held-out` writes. Prints one JSON object, with for each kind of speech:

  utterances, seconds  how much there is
  phoneme, viseme      share of steps of 12.5 ms with the right one; a diphthong's viseme is right if it is one of its
  spoken_viseme        the same share in speech alone, without pauses
  always_the_same      these three shares for the most frequent phoneme, viseme, and viseme in speech
  boundary_ms          median distance of a true boundary between phonemes to the nearest estimated one
  boundaries           estimated boundaries for each true one
  shut                 share of b, m and p with an estimated PP at their time

Exits with status 1 if visemes are right less than 1.5 times as often as the same one always, or shut is below 0.6.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.audio.mel import MEL_RATE, SAMPLE_RATE
from inference.visemes.network import SpeechNetwork, load_network, read_network
from inference.visemes.phonemes import PHONEME_VISEMES
from inference.visemes.segmenter import STEP_S
from inference.visemes.stream import VisemeSegment, VisemeStream
from training.common.arrays import Floats
from training.common.espeak import Espeak, TimedPhoneme
from training.common.kokoro import load_packs
from training.common.mouth_examples import BILABIALS, PHONEME_CLASSES, classes_at
from training.common.speech import synthesise_utterance, to_int16

SEED = 424_242  # of the texts and voices; another one than of training
MIN_GAIN, MIN_SHUT = 1.5, 0.6
Speech = tuple[Floats, Sequence[TimedPhoneme]]  # (N,) at 16 kHz, -1..1, and its phonemes
Names = npt.NDArray[np.str_]


@dataclass
class VisemeScore:
    """Counts over utterances."""

    n_utterances: int = 0
    n_samples: int = 0
    true: list[str] = field(default_factory=list)  # the phoneme of each step
    found: list[str] = field(default_factory=list)
    found_visemes: list[str] = field(default_factory=list)
    distances_s: list[float] = field(default_factory=list)
    n_boundaries: int = 0
    n_true_boundaries: int = 0
    shut: list[bool] = field(default_factory=list)

    def add(self, n_samples: int, phonemes: Sequence[TimedPhoneme], segments: Sequence[VisemeSegment]) -> None:
        """Count an utterance."""
        self.n_utterances += 1
        self.n_samples += n_samples
        times = (np.arange(n_samples * MEL_RATE // SAMPLE_RATE, dtype=np.float64) + 0.5) * STEP_S
        self.true += [PHONEME_CLASSES[i] for i in classes_at(phonemes, times)]
        at = np.searchsorted([one.end_s for one in segments[:-1]], times, side="right")
        self.found += [segments[i].phoneme for i in at]
        self.found_visemes += [segments[i].viseme for i in at]
        # The visemes of a diphthong are no boundary between phonemes.
        joins = pairwise(segments)
        found = np.array([b.start_s for a, b in joins if a.phoneme != b.phoneme])
        true = np.array([one.start_s for one in phonemes[1:]])
        if len(found):
            self.distances_s += np.abs(true[:, None] - found).min(axis=1).tolist()
        self.n_boundaries += len(found)
        self.n_true_boundaries += len(true)
        self.shut += [is_shut(one, segments) for one in phonemes if one.name.lower() in BILABIALS]

    def as_dict(self) -> dict[str, Any]:
        true, found, visemes = (np.array(names) for names in (self.true, self.found, self.found_visemes))
        spoken = true != PHONEME_CLASSES[0]
        return {
            "utterances": self.n_utterances,
            "seconds": round(self.n_samples / SAMPLE_RATE, 1),
            "phoneme": share(true == found),
            "viseme": share(are_right(true, visemes)),
            "spoken_viseme": share(are_right(true[spoken], visemes[spoken])),
            "always_the_same": {
                "phoneme": most_frequent(true),
                "viseme": most_frequent(first_visemes(true)),
                "spoken_viseme": most_frequent(first_visemes(true[spoken])),
            },
            "boundary_ms": round(float(np.median(self.distances_s)) * 1000, 1),
            "boundaries": round(self.n_boundaries / self.n_true_boundaries, 2),
            "shut": share(np.array(self.shut)),
        }


def is_shut(phoneme: TimedPhoneme, segments: Sequence[VisemeSegment]) -> bool:
    """Return whether a segment with the viseme PP overlaps with a phoneme."""
    return any(one.viseme == "PP" and one.start_s < phoneme.end_s and one.end_s > phoneme.start_s for one in segments)


def are_right(phonemes: Names, visemes: Names) -> npt.NDArray[np.bool_]:
    return np.array([viseme in PHONEME_VISEMES[name] for name, viseme in zip(phonemes, visemes, strict=True)])


def first_visemes(phonemes: Names) -> Names:
    return np.array([PHONEME_VISEMES[name][0] for name in phonemes])


def most_frequent(names: Names) -> float:
    """Return the share of the most frequent name."""
    _, counts = np.unique(names, return_counts=True)
    return share(np.arange(len(names)) < counts.max())


def share(is_true: npt.NDArray[np.bool_]) -> float:
    return round(float(is_true.mean()), 3)


def score(network: SpeechNetwork, utterances: Iterator[Speech]) -> dict[str, Any]:
    """Estimate the visemes of each utterance and compare them with its phonemes."""
    total = VisemeScore()
    for samples, phonemes in utterances:
        stream = VisemeStream(network)
        updates = (stream.push(to_int16(samples)), stream.finish())
        total.add(len(samples), phonemes, [one for update in updates for one in update.segments])
    return total.as_dict()


def espeak_utterances(n: int) -> Iterator[Speech]:
    """Yield utterances of espeak-ng's held-out voices. Raises: FileNotFoundError if it is not installed."""
    espeak = Espeak()
    for i in range(n):
        yield synthesise_utterance(espeak, np.random.default_rng((SEED, i)), held_out=True)


def kokoro_utterances(folder: Path, n: int) -> Iterator[Speech]:
    yield from ((one.samples, one.phonemes) for one in load_packs(folder)[:n])


def main() -> None:
    """Print one JSON object; exit with status 1 if visemes are hardly better than the same one always."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=60, help="of each kind of speech")
    parser.add_argument("--kokoro", type=Path, metavar="PACKS", help="folder of packs of voices never trained on")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="exported weights instead of the shipped ones")
    args = parser.parse_args()
    network = load_network() if args.weights is None else read_network(args.weights)
    kinds: dict[str, Callable[[], Iterator[Speech]]] = {"espeak-ng": lambda: espeak_utterances(args.utterances)}
    if args.kokoro is not None:
        kinds["Kokoro"] = lambda: kokoro_utterances(args.kokoro, args.utterances)
    results = {name: score(network, make()) for name, make in kinds.items()}
    print(json.dumps(results, indent=1))
    is_good = all(
        one["viseme"] >= MIN_GAIN * one["always_the_same"]["viseme"] and one["shut"] >= MIN_SHUT
        for one in results.values()
    )
    raise SystemExit(not is_good)


if __name__ == "__main__":
    main()
