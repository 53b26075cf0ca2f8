"""Measure how well an avatar's mouth follows speech.

    python -m bench.avatar_quality [PACKAGE ...] [--clips CLIPS.csv] [--sheet SHEET.png]

Two kinds of speech: "drawn" is synthesised by espeak-ng, and the reference is the mouth opening that the renderer
would draw for its phonemes; "filmed" is the audio of the clips, and the reference is the mouth opening measured in
them. Drawn voices are kept back from every training. Of the clips only the speakers of --leave-out are left out, s1 by
default, and the starter was trained on s1, s2, s3, s4, s5, s31 and s32 of GRID: leave out all of them to measure it on
people it was not trained on. Openings are measured by landmarks on whole composed frames. Prints one JSON object; of
several packages, one with an object for each, measured on the same speech:

  voices, frames       number of utterances, and of generated frames
  correlation, lowest  Pearson's correlation of the generated and the reference opening: mean and minimum
  shuffled             the same mean if the audio is cut into pieces of 0.2 s and shuffled
  by_speaker           the mean for each speaker of the clips
  bilabials_shut       share of b, m and p in drawn speech on which lips shut (`bench.lip_closure`), and their number
  first_frame_ms       audio, from the start of speech, that the first frame waits for
  lag_frames           frames by which the mouth is late: the lag with the best correlation
  silence              widest opening in digital silence and in noise: 0 as in the package's video at rest, 1 as in
                       wide speech (90th percentile)

Exits with status 1 if a correlation is below 0.5 or not above that of shuffled audio, if a lag exceeds one frame, or if
the mouth opens by more than 0.2 in silence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bench.clip_table import LabelledClip, read_clip_table
from bench.lip_closure import bilabial_middles, count_shut
from bench.lips import correlate_at_lag, shuffle_audio
from container.visuals.grid import ImageGrid
from inference.audio.avatar_features import AVATAR_FPS
from inference.audio.mel import FULL_SCALE, SAMPLE_RATE, Samples
from inference.avatar import AvatarPackage
from inference.avatar.crop_box import mouth_gap
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.media import Frame
from inference.media.audio import read_audio
from inference.media.open import open_media
from inference.settings import Settings
from training.common.espeak import Espeak, mouth_shapes_at
from training.common.lips import shape_gap
from training.common.speech import count_frames, synthesise_utterance

Openings = npt.NDArray[np.float64]  # (T,) gap between the inner lips, in any unit

SEED = 424_242
MIN_CORRELATION = 0.5
MAX_LAG = 1  # frames between audio and mouth
SEARCHED_LAG = 6  # frames: lags from -6 to 6 are tried
MAX_SILENT_OPENING = 0.2  # of the way from the package's video at rest to wide speech
WIDE_PERCENTILE = 90  # of the openings in speech
REST_STRIDE = 10  # frames of the package's video between those measured at rest
PIECE_S = 0.2  # length of the pieces of shuffled audio
PEAK = 0.5  # of full scale: level of synthesised audio
NOISE_DB = -50.0  # re full scale: background noise of a room
SILENCE_S = 2
TILE_WIDTH, TILE_HEIGHT = 128, 160  # px of a face on the sheet
TILES_PER_ROW = 12


@dataclass(frozen=True)
class LabelledSpeech:
    """Audio at 16 kHz, and the mouth opening that belongs to it, at 25 fps.

    middles_s: seconds of the middles of b, m and p, if they are known. speaker: of a clip.
    """

    samples: Samples
    opening: Openings
    middles_s: tuple[float, ...] = ()
    speaker: str = ""


class AvatarEvaluator:
    """Generates frames of an avatar and measures their mouths."""

    def __init__(self, package: AvatarPackage, landmarker: Landmarker) -> None:
        self.package, self._landmarker = package, landmarker

    def generate_frames(self, samples: Samples) -> list[Frame]:
        """Generate whole frames for audio at 16 kHz: one per 40 ms, the last one may be partly covered."""
        session = self.package.session(SAMPLE_RATE)
        session.push_audio(samples)
        session.flush()
        frames = [self.package.compose_frame(timed) for timed in session.frames()]
        session.close()
        return frames

    def measure_openings(self, frames: Sequence[Frame]) -> Openings:
        """Return the gap between the lips over the side of the crop. Raises: SystemExit if a frame has no face."""
        faces = FaceTracker(self._landmarker).follow(frames)
        n_missing = sum(face is None for face in faces)
        if n_missing:
            raise SystemExit(f"no face found in {n_missing} of {len(faces)} frames")
        return np.array([mouth_gap(face.points) for face in faces if face is not None])

    def generate_openings(self, samples: Samples) -> Openings:
        return self.measure_openings(self.generate_frames(samples))


def synthesise_speech(n_utterances: int) -> list[LabelledSpeech]:
    """Synthesise random texts with voices of espeak-ng that are never trained on."""
    espeak = Espeak()
    utterances = []
    for i in range(n_utterances):
        samples, phonemes = synthesise_utterance(espeak, np.random.default_rng((SEED, i)), held_out=True)
        shapes = mouth_shapes_at(phonemes, np.arange(count_frames(samples)) / AVATAR_FPS)
        peak = float(np.abs(samples).max())
        scaled = (samples * (PEAK / peak) * FULL_SCALE).astype(np.int16)
        utterances.append(LabelledSpeech(scaled, shape_gap(shapes).astype(float), bilabial_middles(phonemes)))
    return utterances


def read_speech(
    table: Path, evaluator: AvatarEvaluator, n_utterances: int, excluded_speakers: Sequence[str]
) -> list[LabelledSpeech]:
    """Read the audio of clips and measure their mouths. Speakers take turns."""
    clips = [clip for clip in read_clip_table(table) if clip.speaker not in excluded_speakers]

    def turn(one: LabelledClip) -> tuple[int, str]:
        own = [clip.path for clip in clips if clip.speaker == one.speaker]
        return own.index(one.path), one.speaker

    utterances = []
    for clip in sorted(clips, key=turn)[:n_utterances]:
        with open_media(clip.path) as media:
            frames = [frame for part in media.read_clips(AVATAR_FPS) for frame in part.frames]
        samples, opening = read_audio(clip.path, SAMPLE_RATE), evaluator.measure_openings(frames)
        utterances.append(LabelledSpeech(samples, opening, speaker=clip.speaker))
    return utterances


def measure_speech(
    evaluator: AvatarEvaluator, utterances: Sequence[LabelledSpeech]
) -> tuple[dict[str, Any], list[Openings], list[list[Frame]]]:
    """Return the figures, and the openings and frames generated for each utterance."""
    rng = np.random.default_rng(SEED)
    videos = [evaluator.generate_frames(one.samples) for one in utterances]
    openings = [evaluator.measure_openings(frames) for frames in videos]
    shuffled = [evaluator.generate_openings(shuffle_audio(one.samples, PIECE_S, rng)) for one in utterances]

    def correlations(measured: list[Openings], lag: int = 0) -> list[float]:
        return [correlate_at_lag(one, u.opening, lag) for one, u in zip(measured, utterances, strict=True)]

    lags = range(-SEARCHED_LAG, SEARCHED_LAG + 1)
    by_lag = [np.mean(correlations(openings, lag)) for lag in lags]
    scores = correlations(openings)
    figures: dict[str, Any] = {
        "voices": len(utterances),
        "frames": sum(map(len, openings)),
        "correlation": round(float(np.mean(scores)), 3),
        "lowest": round(min(scores), 3),
        "shuffled": round(float(np.mean(correlations(shuffled))), 3),
        "lag_frames": lags[int(np.argmax(by_lag))],
    }
    speakers = sorted({one.speaker for one in utterances if one.speaker})
    if speakers:
        by_speaker = {
            name: [score for score, one in zip(scores, utterances, strict=True) if one.speaker == name]
            for name in speakers
        }
        figures["by_speaker"] = {name: round(float(np.mean(own)), 3) for name, own in by_speaker.items()}
    if any(one.middles_s for one in utterances):
        rest = measure_rest(evaluator)
        counts = [
            count_shut(np.maximum(opening - rest, 0), one.middles_s)
            for opening, one in zip(openings, utterances, strict=True)
        ]
        n_shut, n_all = (sum(column) for column in zip(*counts, strict=True))
        figures["bilabials_shut"] = [round(n_shut / max(n_all, 1), 3), n_all]
    return figures, openings, videos


def measure_rest(evaluator: AvatarEvaluator) -> float:
    """Return the mean opening in the package's video at rest."""
    package = evaluator.package
    backgrounds = [package.background(i) for i in range(0, package.n_frames, REST_STRIDE)]
    return float(evaluator.measure_openings(backgrounds).mean())


def measure_first_frame(package: AvatarPackage, samples: Samples) -> float:
    """Return the audio, in ms, that has arrived when the first frame of speech is ready, in steps of 5 ms."""
    session, step = package.session(SAMPLE_RATE), SAMPLE_RATE // 200
    for n_pushed in range(step, len(samples), step):
        session.push_audio(samples[n_pushed - step : n_pushed])
        if session.is_ready:
            return n_pushed * 1000 / SAMPLE_RATE
    raise SystemExit("no frame was ready before the speech ended")


def measure_silence(evaluator: AvatarEvaluator, wide: float) -> dict[str, float]:
    """Return the widest opening in silence and in noise: 0 as in the package's video at rest, 1 for `wide`."""
    rest = measure_rest(evaluator)
    n_samples = SILENCE_S * SAMPLE_RATE
    noise = np.random.default_rng(SEED).normal(0, 10 ** (NOISE_DB / 20) * FULL_SCALE, n_samples)
    signals = {"zeros": np.zeros(n_samples), "noise": noise}
    widest = {name: evaluator.generate_openings(one.astype(np.int16)).max() for name, one in signals.items()}
    return {name: round(float((opening - rest) / (wide - rest)), 3) for name, opening in widest.items()}


def draw_sheet(evaluator: AvatarEvaluator, videos: Sequence[Sequence[Frame]], n_rows: int = 6) -> Frame:
    """Draw the face in every other frame of each video, one video per row."""
    box = evaluator.package.box(0)
    margin = int(box.width) // 4
    rows = []
    for frames in videos[:n_rows]:
        first = max(len(frames) // 2 - TILES_PER_ROW, 0)
        faces = [
            frame[int(box.top) - margin : int(box.bottom), int(box.left) : int(box.right)] for frame in frames[first::2]
        ]
        size = (TILE_WIDTH, TILE_HEIGHT)
        tiles = [cv2.resize(face, size, interpolation=cv2.INTER_AREA) for face in faces[:TILES_PER_ROW]]
        rows.append([np.asarray(tile, np.uint8) for tile in tiles])
    return ImageGrid(TILES_PER_ROW, TILE_WIDTH, TILE_HEIGHT, background=(0, 0, 0)).draw(rows)


def misses_target(figures: dict[str, Any]) -> bool:
    """Return whether a figure is outside its limit."""
    kinds = [figures[kind] for kind in ("drawn", "filmed") if kind in figures]
    return (
        any(kind["correlation"] < MIN_CORRELATION or kind["correlation"] <= kind["shuffled"] for kind in kinds)
        or any(abs(kind["lag_frames"]) > MAX_LAG for kind in kinds)
        or max(figures["silence"].values()) > MAX_SILENT_OPENING
    )


def measure_package(
    evaluator: AvatarEvaluator, drawn: Sequence[LabelledSpeech], real: Sequence[LabelledSpeech]
) -> tuple[dict[str, Any], Sequence[Sequence[Frame]]]:
    """Return the figures of a package, and generated videos to look at."""
    figures: dict[str, Any] = {}
    figures["drawn"], openings, videos = measure_speech(evaluator, drawn)
    if real:
        figures["filmed"], real_openings, real_videos = measure_speech(evaluator, real)
        openings, videos = openings + real_openings, videos[:3] + real_videos
    figures["silence"] = measure_silence(evaluator, float(np.percentile(np.concatenate(openings), WIDE_PERCENTILE)))
    figures["first_frame_ms"] = measure_first_frame(evaluator.package, drawn[0].samples)
    return figures, videos


def main() -> None:
    """Print one JSON object; exit with status 1 if a figure is outside its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=["starter"], help="names or folders")
    parser.add_argument("--clips", type=Path, help="CSV with the columns file, speaker, transcript: real speech")
    parser.add_argument(
        "--leave-out", nargs="*", default=["s1"], help="speakers of the clips to leave out (default: s1)"
    )
    parser.add_argument("--voices", type=int, default=8, help="number of utterances of each kind")
    parser.add_argument("--sheet", type=Path, help="write generated faces of the last package to this PNG")
    args = parser.parse_args()
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    evaluators = {
        name: AvatarEvaluator(AvatarPackage.load(Path(name) if Path(name).is_dir() else name), landmarker)
        for name in args.packages
    }
    drawn = synthesise_speech(args.voices)
    real: list[LabelledSpeech] = []
    if args.clips:
        real = read_speech(args.clips, next(iter(evaluators.values())), args.voices, args.leave_out)
    results = {}
    for name, evaluator in evaluators.items():
        results[name], videos = measure_package(evaluator, drawn, real)
    if args.sheet:
        cv2.imwrite(str(args.sheet), draw_sheet(evaluator, videos))
    print(json.dumps(results if len(results) > 1 else results[name], indent=1))
    raise SystemExit(any(misses_target(figures) for figures in results.values()))


if __name__ == "__main__":
    main()
