"""Fit and check the calibration of a checkpoint: its confidences and its word times.

    python -m bench.calibration CLIPS.csv WORDS.csv --check EVAL.csv EVAL_WORDS.csv [--leave-out SPEAKER...]
                                [--write CARD.json]

CLIPS and EVAL have the columns file, speaker, transcript; WORDS and EVAL_WORDS have file, word, start_s, end_s. The
constants are fitted on CLIPS only; --check measures them on other clips. Each clip is used unchanged and in three
variants without speech: its first frame frozen, its frames reversed, and its frames shuffled. Prints

  - the mean duration of each word of a sentence, and the fitted constants;
  - for each speaker and variant: the number of clips, how many of them have no recognised words, and the minimum,
    median and maximum of the confidences;
  - the share of correct words, their mean confidence, and the area under its ROC curve;
  - the errors of word starts: calibrated, by the alignment alone, and for words of equal length;
  - the confidences on rendered people who chew.

--leave-out: speakers of CLIPS whom the weights were trained on with these clips; they would be read too surely.
--write stores the constants in the card of the weights, with the SHA-256 of the weights.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.clip_table import LabelledClip, read_clip_table
from inference.backends import choose_device
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading.calibration import Calibration, log_odds
from inference.lip_reading.evaluation import area_under_roc
from inference.lip_reading.grammar_decoder import N_WORDS, compute_posterior, cut_segments, grid_lattice, read_grammar
from inference.lip_reading.greedy_decoder import DecodedText, Logits, log_softmax
from inference.lip_reading.lattice import Floats, find_best_path
from inference.lip_reading.model import DEFAULT_LANDMARKS, load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import MouthCrop, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import WINDOW_HOP, run_windows, stitch
from inference.lip_reading.word_alignment import find_word_boundaries
from inference.media import Clip, open_media
from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.scene import Scene
from inference.settings import Settings

UNCHANGED = "unchanged"  # the variant that has speech
N_CHEWING = 10  # rendered people who chew
CHEWS_PER_SECOND = (1.0, 2.0)
CHEWING_FRAMES = 75
NEGATIVE_WEIGHT = 0.5  # weight in the fit of all variants without speech together, relative to the unchanged clips
NEWTON_STEPS = 50
MAD_TO_DEVIATION = 1.4826  # standard deviation / median absolute deviation of a Gaussian
RIDGE = 0.05  # keeps the fit finite if a feature separates correct and wrong words perfectly
WordTimes = dict[str, Floats]  # file -> (7,) seconds: the starts of its six words, and the end of the last one


@dataclass(frozen=True)
class ClipLogits:
    """The logits of one variant of a clip. logits: (T, 28)."""

    clip: LabelledClip
    variant: str
    logits: Logits

    @property
    def spoken_words(self) -> list[str]:
        """The words of the transcript; empty strings if the variant has no speech."""
        return self.clip.transcript.split() if self.variant == UNCHANGED else [""] * N_WORDS


DecodedClips = Sequence[tuple[ClipLogits, DecodedText]]


@dataclass(frozen=True)
class DecodedSentence:
    """A sentence decoded from one clip.

    features: (6, 3) inputs of the fit. correct: (6,) 0 or 1. shift_s: (7,) alignment minus true time; NaN for wrong
    words and if the true times are unknown.
    """

    features: Floats
    correct: Floats
    shift_s: Floats


def main() -> None:
    """Fit the constants, check them, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs=2, metavar="CSV")
    parser.add_argument("--check", type=Path, nargs=2, metavar="CSV")
    parser.add_argument("--leave-out", nargs="+", default=(), metavar="SPEAKER", help="speakers not to fit on")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--write", type=Path, metavar="CARD", help="the card.json to store the constants in")
    args = parser.parse_args()
    source = LogitsSource(args.weights)
    clips = list(source.run_clips(read_clips_to_fit(args.tables[0], args.leave_out)))
    times = read_word_times(args.tables[1])
    print_durations(times)
    calibration = fit(clips, times)
    for name, value in asdict(calibration).items():
        print(f"{name:12}{np.round(value, 3).tolist()}")
    print(f"\n{args.tables[0].name}, on which the constants were fitted")
    report(clips, times, calibration)
    if args.check:
        print(f"\n{args.check[0].name}")
        report(list(source.run_clips(read_clip_table(args.check[0]))), read_word_times(args.check[1]), calibration)
    chewing = [read_grammar(source.run_chewing(seed), FPS, 1, calibration).confidence for seed in range(N_CHEWING)]
    print_confidences("rendered, chewing", chewing)
    if args.write:
        write_card(args.write, calibration, source.sha256)


def read_clips_to_fit(table: Path, leave_out: Sequence[str]) -> list[LabelledClip]:
    """Read a table without the clips of some speakers."""
    return [clip for clip in read_clip_table(table) if clip.speaker not in leave_out]


class LogitsSource:
    """Runs lip reading on clips up to the logits."""

    def __init__(self, weights: str) -> None:
        sources = Settings.from_env().weight_sources
        self._model = load_model(weights, choose_device("cpu"), sources)
        self._landmarker = load_landmarker(self._model.landmarks or DEFAULT_LANDMARKS, sources)
        self.sha256 = self._model.info.sha256

    def run_clips(self, clips: Iterable[LabelledClip]) -> Iterator[ClipLogits]:
        """Yield the logits of each variant of each clip."""
        rng = np.random.default_rng(0)
        for clip in clips:
            tracker = FaceTracker(self._landmarker)
            with open_media(clip.path) as media:
                mouths = list(crop_mouths(track_faces(media.read_clips(FPS), tracker), media.name, tracker))
            variants = {
                UNCHANGED: mouths,
                "frozen": mouths[:1] * len(mouths),
                "reversed": mouths[::-1],
                "shuffled": [mouths[i] for i in rng.permutation(len(mouths))],
            }
            for variant, crops in variants.items():
                yield ClipLogits(clip, variant, self._run(crops))

    def run_chewing(self, seed: int) -> Logits:
        """Return the logits of a rendered person who chews for three seconds."""
        times = np.arange(CHEWING_FRAMES) / FPS
        appearance, rng = Appearance.from_seed(seed), np.random.default_rng(seed)
        scene = Scene([appearance], 360, 288)
        phase = rng.uniform(0, 6) + 2 * np.pi * rng.uniform(*CHEWS_PER_SECOND) * times
        shapes = [MouthShape(open=0.6 * max(np.sin(p), 0.0), press=max(-np.sin(p), 0.0)) for p in phase]
        poses = head_motion(appearance, seed, times)
        frames = tuple(scene.draw([pose], [shape], rng)[0] for pose, shape in zip(poses, shapes, strict=True))
        tracker = FaceTracker(self._landmarker)
        return self._run(list(crop_mouths(track_faces([Clip(frames, FPS)], tracker), f"seed {seed}", tracker)))

    def _run(self, mouths: Sequence[MouthCrop]) -> Logits:
        return stitch(run_windows(cut_windows(mouths, WINDOW_HOP), self._model.network, 1)).logits


def read_word_times(table: Path) -> WordTimes:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys(row["file"] for row in rows)
    by_file = {name: [row for row in rows if row["file"] == name] for name in names}
    return {
        name: np.array([*(float(row["start_s"]) for row in own), float(own[-1]["end_s"])])
        for name, own in by_file.items()
    }


def print_durations(times: WordTimes) -> None:
    durations = np.diff(np.array(list(times.values())), axis=1)
    mean, deviation = durations.mean(axis=0).round(3).tolist(), durations.std(axis=0).round(3).tolist()
    print(f"word durations  mean {mean} s, standard deviation {deviation} s")


def fit(clips: Sequence[ClipLogits], times: WordTimes) -> Calibration:
    """Fit the constants to all variants of the clips."""
    decoded = [(clip, sentence) for clip in clips for sentence in decode_sentences(clip, times)]
    n_negative = sum(clip.variant != UNCHANGED for clip, _ in decoded)
    n_positive = len(decoded) - n_negative
    negative_weight = NEGATIVE_WEIGHT * n_positive / max(n_negative, 1)
    weights = [1.0 if clip.variant == UNCHANGED else negative_weight for clip, _ in decoded]
    bias, posterior, agreement = fit_logistic(
        np.concatenate([sentence.features for _, sentence in decoded]),
        np.concatenate([sentence.correct for _, sentence in decoded]),
        np.repeat(weights, N_WORDS),
    )
    shifts = np.array([sentence.shift_s for _, sentence in decoded])
    return Calibration(
        bias, posterior, agreement, round_to_ms(column_medians(shifts)), round_to_ms(robust_deviations(shifts))
    )


def decode_sentences(clip: ClipLogits, times: WordTimes) -> Iterator[DecodedSentence]:
    """Decode with the grammar. All words of a second sentence count as wrong, since a clip contains one sentence."""
    log_p = log_softmax(clip.logits.astype(np.float64))
    path = find_best_path(grid_lattice(), log_p)
    for i, segment in enumerate(cut_segments(path)):
        posterior = compute_posterior(log_p, path, segment)
        spoken = clip.spoken_words if i == 0 else [""] * N_WORDS
        correct = np.array([a == b for a, b in zip(posterior.best_words, spoken, strict=True)], float)
        odds = [log_odds(one) for one in posterior.word_posteriors()]
        features = np.stack([np.ones(N_WORDS), odds, np.full(N_WORDS, posterior.agreement)], axis=1)
        shift = np.full(N_WORDS + 1, np.nan)
        if i == 0 and clip.variant == UNCHANGED and clip.clip.path.name in times:
            frames = slice(segment.start, segment.end)
            boundaries = find_word_boundaries(log_p[frames], posterior.best_words, FPS) + segment.start / FPS
            is_known = np.array([*correct, correct[-1]], bool)
            shift = np.where(is_known, boundaries - times[clip.clip.path.name], np.nan)
        yield DecodedSentence(features, correct, shift)


def fit_logistic(features: Floats, correct: Floats, weights: Floats) -> list[float]:
    """Fit a logistic regression by Newton's method."""
    solution = np.zeros(features.shape[1])
    ridge = RIDGE * np.eye(len(solution))
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-features @ solution))
        gradient = features.T @ (weights * (p - correct)) + ridge @ solution
        solution -= np.linalg.solve((features.T * (weights * p * (1 - p))) @ features + ridge, gradient)
    return [round(float(value), 4) for value in solution]


def column_medians(shifts: Floats) -> Floats:
    """Return the median of each column without NaN: robust, since a few words are aligned far off."""
    medians: Floats = np.nanmedian(shifts, axis=0)
    return medians


def robust_deviations(shifts: Floats) -> Floats:
    """Return the standard deviation of each column, estimated from the median absolute deviation."""
    return MAD_TO_DEVIATION * column_medians(np.abs(shifts - column_medians(shifts)))


def round_to_ms(seconds: Floats) -> tuple[float, ...]:
    return tuple(seconds.round(3).tolist())


def report(clips: Sequence[ClipLogits], times: WordTimes, calibration: Calibration) -> None:
    """Print the confidences of each variant, their value for telling correct words from wrong ones, and time errors."""
    decoded = [(clip, read_grammar(clip.logits, FPS, 1, calibration)) for clip in clips]
    first = clips[0].clip.speaker
    speakers = {first: [one for one in decoded if one[0].clip.speaker == first]}
    speakers["others"] = [one for one in decoded if one[0].clip.speaker != first]
    print(f"{'clips':24}{'n':>4}{'no words':>10}{'confidence: min':>17}{'median':>8}{'max':>7}")
    for speaker, own in speakers.items():
        for variant in dict.fromkeys(clip.variant for clip, _ in own):
            confidences = [text.confidence for clip, text in own if clip.variant == variant]
            print_confidences(f"{speaker}, {variant}", confidences)
    for speaker, own in speakers.items():
        if own:
            unchanged = [one for one in own if one[0].variant == UNCHANGED]
            print_words(speaker, unchanged)
            print_time_errors(unchanged, times)


def print_confidences(name: str, confidences: Sequence[float]) -> None:
    low, median, high = np.percentile(confidences, [0, 50, 100])
    print(f"{name:24}{len(confidences):4}{confidences.count(0):10}{low:17.2f}{median:8.2f}{high:7.2f}")


def print_words(speaker: str, decoded: DecodedClips) -> None:
    pairs = [pair for clip, text in decoded for pair in zip(text.words, clip.spoken_words, strict=False)]
    confidence = np.array([word.confidence for word, _ in pairs], float)
    correct = np.array([word.word == spoken for word, spoken in pairs])
    area = area_under_roc(confidence, correct)
    print(
        f"words of {speaker}: {correct.mean():.0%} correct, mean confidence {confidence.mean():.0%}, "
        f"area under the ROC curve {'undefined' if area is None else f'{area:.3f}'}"
    )


def print_time_errors(decoded: DecodedClips, times: WordTimes) -> None:
    """Print the errors of the starts of correct words for three methods."""
    errors: dict[str, list[float]] = {"calibrated": [], "alignment alone": [], "words of equal length": []}
    for clip, text in decoded:
        true_times = times.get(clip.clip.path.name)
        if true_times is None or not text.words:
            continue
        n_frames = len(clip.logits)
        log_p = log_softmax(clip.logits.astype(np.float64))
        boundaries = find_word_boundaries(log_p, [word.word for word in text.words[:N_WORDS]], FPS)
        for i, (word, spoken) in enumerate(zip(text.words, clip.spoken_words, strict=False)):
            if word.word == spoken:
                errors["calibrated"].append(abs((word.start or 0.0) - true_times[i]))
                errors["alignment alone"].append(abs(boundaries[i] - true_times[i]))
                errors["words of equal length"].append(abs(i * n_frames / FPS / N_WORDS - true_times[i]))
    for method, found in errors.items():
        if found:
            mean, median = 1000 * np.mean(found), 1000 * np.median(found)
            print(f"  word starts, {method}: mean error {mean:.0f} ms, median {median:.0f} ms")


def write_card(path: Path, calibration: Calibration, sha256: str) -> None:
    """Store the constants in a card. Raises: SystemExit if the card describes other weights."""
    card = json.loads(path.read_text("utf-8"))
    if card["sha256"] != sha256:
        raise SystemExit(f"{path}: describes weights with SHA-256 {card['sha256']}, but {sha256} were measured")
    card["calibration"] = {"sha256": sha256, "measured_by": "python -m bench.calibration"} | asdict(calibration)
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
