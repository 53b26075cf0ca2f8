"""Measure how well an avatar's mouth follows audio that its weights were not trained on.

    python -m bench.avatar_quality [PACKAGE] [--clips CLIPS.csv] [--sheet SHEET.png]

Two kinds of speech: "drawn" is synthesised by espeak-ng, and the reference is the mouth opening that the renderer
would draw for its phonemes; "filmed" is the audio of the clips, and the reference is the mouth opening measured in
them. Openings are measured by landmarks on whole composed frames. Prints one JSON object:

  voices, frames       number of utterances, and of generated frames
  correlation, lowest  Pearson's correlation of the generated and the reference opening: mean and minimum
  shuffled             the same mean if the audio is cut into pieces of 0.2 s and shuffled
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
    """Audio at 16 kHz, and the mouth opening that belongs to it, at 25 fps."""

    samples: Samples
    opening: Openings


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
        utterances.append(LabelledSpeech(scaled, shape_gap(shapes).astype(float)))
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
        utterances.append(LabelledSpeech(read_audio(clip.path, SAMPLE_RATE), evaluator.measure_openings(frames)))
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
    figures = {
        "voices": len(utterances),
        "frames": sum(map(len, openings)),
        "correlation": round(float(np.mean(scores)), 3),
        "lowest": round(min(scores), 3),
        "shuffled": round(float(np.mean(correlations(shuffled))), 3),
        "lag_frames": lags[int(np.argmax(by_lag))],
    }
    return figures, openings, videos


def measure_silence(evaluator: AvatarEvaluator, wide: float) -> dict[str, float]:
    """Return the widest opening in silence and in noise: 0 as in the package's video at rest, 1 for `wide`."""
    package = evaluator.package
    backgrounds = [package.background(i) for i in range(0, package.n_frames, REST_STRIDE)]
    rest = evaluator.measure_openings(backgrounds).mean()
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


def main() -> None:
    """Print one JSON object; exit with status 1 if a figure is outside its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", default="starter", help="name or folder")
    parser.add_argument("--clips", type=Path, help="CSV with the columns file, speaker, transcript: real speech")
    parser.add_argument("--leave-out", nargs="*", default=["s1"], help="speakers of the clips that were trained on")
    parser.add_argument("--voices", type=int, default=8, help="number of utterances of each kind")
    parser.add_argument("--sheet", type=Path, help="write generated faces to this PNG")
    args = parser.parse_args()
    package = Path(args.package) if Path(args.package).is_dir() else args.package
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    evaluator = AvatarEvaluator(AvatarPackage.load(package), landmarker)
    figures: dict[str, Any] = {}
    figures["drawn"], openings, videos = measure_speech(evaluator, synthesise_speech(args.voices))
    if args.clips:
        real = read_speech(args.clips, evaluator, args.voices, args.leave_out)
        figures["filmed"], real_openings, real_videos = measure_speech(evaluator, real)
        openings, videos = openings + real_openings, videos[:3] + real_videos
    figures["silence"] = measure_silence(evaluator, float(np.percentile(np.concatenate(openings), WIDE_PERCENTILE)))
    if args.sheet:
        cv2.imwrite(str(args.sheet), draw_sheet(evaluator, videos))
    print(json.dumps(figures, indent=1))
    raise SystemExit(misses_target(figures))


if __name__ == "__main__":
    main()
