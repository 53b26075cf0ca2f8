"""Fit and check what a checkpoint's confidences and word times are worth.

    python -m bench.calibration CLIPS.csv WORDS.csv --check EVAL.csv EVAL_WORDS.csv [--write CARD.json]

The tables of clips have the columns file, speaker, transcript; those of words file, word, start_s, end_s.
Fitted on CLIPS alone; --check measures on other clips. Beside each clip as it is, three that say nothing of the
language: its first frame held, its frames reversed, and its frames shuffled; and, last, rendered people who chew.
--write puts the constants into the
card of the weights, with the SHA-256 they hold for.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.clips import SpokenClip, read_list
from inference.backends import choose_device
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading.calibration import Calibration, log_odds
from inference.lip_reading.decode import Logits, Reading, log_softmax
from inference.lip_reading.grammar import N_WORDS, cut_segments, grid_lattice, read_grammar, weigh_segment
from inference.lip_reading.lattice import Floats, best_path
from inference.lip_reading.model import DEFAULT_LANDMARKS, load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import Mouth, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, run_windows, stitch
from inference.lip_reading.word_times import align
from inference.media import Clip, open_media
from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.scene import Scene
from inference.settings import Settings

AS_IT_IS = "as it is"
N_CHEWING = 10  # people
CHEWS_A_SECOND = (1.0, 2.0)
SHARE_OF_NOTHING = 0.5  # of the weight in the fit: clips that say nothing, taken together, against those that do
GAUSSIAN_SPREAD = 1.4826  # standard deviations in a median distance from the median, of a Gaussian
RIDGE = 0.05  # keeps the fit finite where a feature parts right from wrong words cleanly
Times = dict[str, Floats]  # file -> (7,) seconds: the starts of its six words, and its end


@dataclass(frozen=True)
class Sample:
    """Logits of one clip, as it is or spoilt. logits: (T, 28)."""

    clip: SpokenClip
    kind: str
    logits: Logits

    @property
    def said(self) -> list[str]:
        """The true words; none of the language's where the clip was spoilt."""
        return self.clip.transcript.split() if self.kind == AS_IT_IS else [""] * N_WORDS


Readings = Sequence[tuple[Sample, Reading]]


@dataclass(frozen=True)
class ReadSentence:
    """A sentence of a sample. features: (6, 3). right: (6,). shift_s: (7,) of the alignment from the truth, nan
    beside wrong words and where the truth is not known.
    """

    features: Floats
    right: Floats
    shift_s: Floats


def main() -> None:
    """Fit, check, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs=2, metavar="CSV")
    parser.add_argument("--check", type=Path, nargs=2, metavar="CSV")
    parser.add_argument("--weights", default="starter")
    parser.add_argument("--write", type=Path, metavar="CARD", help="a card.json to put the constants into")
    asked = parser.parse_args()
    run = Network(asked.weights)
    samples, times = list(run.read(read_list(asked.tables[0]))), read_times(asked.tables[1])
    print_durations(times)
    calibration = fit(samples, times)
    for name, value in asdict(calibration).items():
        print(f"{name:12}{np.round(value, 3).tolist()}")
    print(f"\n{asked.tables[0].name}, which the constants were fitted on")
    report(samples, times, calibration)
    if asked.check:
        print(f"\n{asked.check[0].name}")
        report(list(run.read(read_list(asked.check[0]))), read_times(asked.check[1]), calibration)
    chewed = [read_grammar(run.chew(seed), FPS, 1, calibration).confidence for seed in range(N_CHEWING)]
    print_confidences("rendered, chewing", chewed)
    if asked.write:
        write_card(asked.write, calibration, run.sha256)


class Network:
    """Clips to logits, by the room's own line."""

    def __init__(self, weights: str) -> None:
        sources = Settings.from_env().weight_sources
        self._model = load_model(weights, choose_device("cpu"), sources)
        self._landmarker = load_landmarker(self._model.landmarks or DEFAULT_LANDMARKS, sources)
        self.sha256 = self._model.info.sha256

    def read(self, clips: Iterable[SpokenClip]) -> Iterator[Sample]:
        """Each clip as it is, and spoilt."""
        rng = np.random.default_rng(0)
        for clip in clips:
            tracker = FaceTracker(self._landmarker)
            with open_media(clip.path) as media:
                mouths = list(crop_mouths(track_faces(media.read_clips(FPS), tracker), media.name, tracker))
            shuffled = [mouths[i] for i in rng.permutation(len(mouths))]
            kinds = {AS_IT_IS: mouths, "held": mouths[:1] * len(mouths), "reversed": mouths[::-1], "shuffled": shuffled}
            for kind, frames in kinds.items():
                yield Sample(clip, kind, self._run(frames))

    def chew(self, seed: int) -> Logits:
        """Logits of somebody rendered who chews for three seconds."""
        times = np.arange(75) / FPS
        look, rng = Appearance.from_seed(seed), np.random.default_rng(seed)
        scene = Scene([look], 360, 288)
        phase = rng.uniform(0, 6) + 2 * np.pi * rng.uniform(*CHEWS_A_SECOND) * times
        shapes = [MouthShape(open=0.6 * max(np.sin(p), 0.0), press=max(-np.sin(p), 0.0)) for p in phase]
        poses = head_motion(look, seed, times)
        frames = tuple(scene.draw([pose], [shape], rng)[0] for pose, shape in zip(poses, shapes, strict=True))
        tracker = FaceTracker(self._landmarker)
        return self._run(list(crop_mouths(track_faces([Clip(frames, FPS)], tracker), f"seed {seed}", tracker)))

    def _run(self, mouths: Sequence[Mouth]) -> Logits:
        return stitch(run_windows(cut_windows(mouths, HOP), self._model.network, 1)).logits


def read_times(table: Path) -> Times:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys(row["file"] for row in rows)
    found = {name: [row for row in rows if row["file"] == name] for name in names}
    return {
        name: np.array([*(float(row["start_s"]) for row in own), float(own[-1]["end_s"])])
        for name, own in found.items()
    }


def print_durations(times: Times) -> None:
    lasting = np.diff(np.array(list(times.values())), axis=1)
    print(
        f"words last  {lasting.mean(axis=0).round(3).tolist()} s, give or take {lasting.std(axis=0).round(3).tolist()}"
    )


def fit(samples: Sequence[Sample], times: Times) -> Calibration:
    """The constants that suit the samples best."""
    read = [(sample, one) for sample in samples for one in read_sample(sample, times)]
    n_spoilt = sum(sample.kind != AS_IT_IS for sample, _ in read)
    n_whole = len(read) - n_spoilt
    weights = [1.0 if sample.kind == AS_IT_IS else SHARE_OF_NOTHING * n_whole / n_spoilt for sample, _ in read]
    bias, posterior, agreement = fit_logistic(
        np.concatenate([one.features for _, one in read]),
        np.concatenate([one.right for _, one in read]),
        np.repeat(weights, N_WORDS),
    )
    shifts = np.array([one.shift_s for _, one in read])
    return Calibration(bias, posterior, agreement, in_ms(middle_of(shifts)), in_ms(spread_of(shifts)))


def read_sample(sample: Sample, times: Times) -> Iterator[ReadSentence]:
    """What the grammar makes of a sample. In a clip that says one sentence, a second one is read wrong."""
    log_p = log_softmax(sample.logits.astype(np.float64))
    path = best_path(grid_lattice(), log_p)
    for i, segment in enumerate(cut_segments(path)):
        weighed = weigh_segment(log_p, path, segment)
        said = sample.said if i == 0 else [""] * N_WORDS
        right = np.array([a == b for a, b in zip(weighed.said, said, strict=True)], float)
        odds = [log_odds(posterior) for posterior in weighed.of_slots()]
        features = np.stack([np.ones(N_WORDS), odds, np.full(N_WORDS, weighed.agreement)], axis=1)
        shift = np.full(N_WORDS + 1, np.nan)
        if i == 0 and sample.kind == AS_IT_IS and sample.clip.path.name in times:
            aligned = align(log_p[segment.first : segment.end], weighed.said, FPS) + segment.first / FPS
            counts = np.array([*right, right[-1]], bool)
            shift = np.where(counts, aligned - times[sample.clip.path.name], np.nan)
        yield ReadSentence(features, right, shift)


def fit_logistic(features: Floats, right: Floats, weights: Floats) -> list[float]:
    """Logistic regression by Newton's method."""
    solution = np.zeros(features.shape[1])
    ridge = RIDGE * np.eye(len(solution))
    for _ in range(50):
        p = 1 / (1 + np.exp(-features @ solution))
        gradient = features.T @ (weights * (p - right)) + ridge @ solution
        solution -= np.linalg.solve((features.T * (weights * p * (1 - p))) @ features + ridge, gradient)
    return [round(float(value), 4) for value in solution]


def middle_of(shifts: Floats) -> Floats:
    """(7,) medians: of a few words, some are aligned nowhere near."""
    found: Floats = np.nanmedian(shifts, axis=0)
    return found


def spread_of(shifts: Floats) -> Floats:
    """(7,) standard deviations, by the median distance from the median."""
    return GAUSSIAN_SPREAD * middle_of(np.abs(shifts - middle_of(shifts)))


def in_ms(seconds: Floats) -> tuple[float, ...]:
    return tuple(seconds.round(3).tolist())


def report(samples: Sequence[Sample], times: Times, calibration: Calibration) -> None:
    """Confidence by kind of clip; whether it tells right words from wrong ones; errors of the times."""
    readings = [(sample, read_grammar(sample.logits, FPS, 1, calibration)) for sample in samples]
    first = samples[0].clip.speaker
    speakers = {first: [one for one in readings if one[0].clip.speaker == first]}
    speakers["others"] = [one for one in readings if one[0].clip.speaker != first]
    print(f"{'clips':24}{'n':>4}{'nothing read':>14}{'confidence: least':>19}{'median':>8}{'most':>7}")
    for speaker, own in speakers.items():
        for kind in dict.fromkeys(sample.kind for sample, _ in own):
            print_confidences(f"{speaker}, {kind}", [r.confidence for s, r in own if s.kind == kind])
    for speaker, own in speakers.items():
        if own:
            whole = [one for one in own if one[0].kind == AS_IT_IS]
            print_words(speaker, whole)
            print_times(whole, times)


def print_confidences(name: str, found: Sequence[float]) -> None:
    low, middle, high = np.percentile(found, [0, 50, 100])
    print(f"{name:24}{len(found):4}{found.count(0):14}{low:19.2f}{middle:8.2f}{high:7.2f}")


def print_words(speaker: str, readings: Readings) -> None:
    pairs = [pair for sample, reading in readings for pair in zip(reading.words, sample.said, strict=False)]
    confidence = np.array([word.confidence for word, _ in pairs], float)
    right = np.array([word.word == said for word, said in pairs])
    print(
        f"words of {speaker}: {right.mean():.0%} right, mean confidence {confidence.mean():.0%}, "
        f"area under the ROC curve {area_under_roc(confidence, right):.3f}"
    )


def area_under_roc(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """The chance that a right word scores over a wrong one."""
    a, b = confidence[right][:, None], confidence[~right]
    return float(((a > b) + 0.5 * (a == b)).mean())


def print_times(readings: Readings, times: Times) -> None:
    """Errors of the starts of right words, by three rules."""
    errors: dict[str, list[float]] = {"calibrated": [], "alignment alone": [], "words spaced evenly": []}
    for sample, reading in readings:
        known = times.get(sample.clip.path.name)
        if known is None or not reading.words:
            continue
        n_frames = len(sample.logits)
        aligned = align(log_softmax(sample.logits.astype(np.float64)), [w.word for w in reading.words[:N_WORDS]], FPS)
        for i, (word, said) in enumerate(zip(reading.words, sample.said, strict=False)):
            if word.word == said:
                errors["calibrated"].append(abs((word.start or 0.0) - known[i]))
                errors["alignment alone"].append(abs(aligned[i] - known[i]))
                errors["words spaced evenly"].append(abs(i * n_frames / FPS / N_WORDS - known[i]))
    for rule, found in errors.items():
        if found:
            mean, median = 1000 * np.mean(found), 1000 * np.median(found)
            print(f"  word starts, {rule}: off by {mean:.0f} ms on average, median {median:.0f} ms")


def write_card(path: Path, calibration: Calibration, sha256: str) -> None:
    """Raises: SystemExit where the card is of other weights."""
    card = json.loads(path.read_text("utf-8"))
    if card["sha256"] != sha256:
        raise SystemExit(f"{path}: the card of {card['sha256']}; the weights measured are {sha256}")
    card["calibration"] = {"sha256": sha256, "measured_by": "python -m bench.calibration"} | asdict(calibration)
    path.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
