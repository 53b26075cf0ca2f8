"""Whether an avatar speaks what it hears: `python -m bench.avatar_quality [PACKAGE] [--clips CSV] [--sheet PNG]`.

Voices that the one we ship was never trained on: espeak-ng's, whose phonemes say how far the renderer would open the
mouth, and those of clips, whose lips are measured where they are filmed. Openings are measured on the whole composed
frames, by the project's landmarks.
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

from bench.clips import read_list
from container.visuals.grid import ImageGrid
from inference.audio.features import FPS
from inference.audio.mel import FULL_SCALE, SAMPLE_RATE, Samples
from inference.avatar import AvatarPackage
from inference.avatar.crop_box import mouth_gap
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.media import Frame
from inference.media.open import open_media
from inference.media.sound import read_sound
from inference.settings import Settings
from training.avatar.espeak import Espeak, mouths_of
from training.avatar.utterances import count_frames, gap_of, speak

Openings = npt.NDArray[np.float64]  # (T,) between the inner lips, in any unit

SEED = 424_242
LEAST = 0.5  # of the correlation
MOST_LAG = 1  # frames that sound and mouth may be apart
FARTHEST = 6  # frames: lags that are looked at
MOST_SHUT = 0.2  # of the way from the film at rest to a wide opening (the 90th percentile of speech): still shut
RESTING = 10  # every so many frames of the film are looked at
SHUFFLED_S = 0.2  # pieces of sound that are shuffled
NOISE_DB = -50.0  # a room's
SILENT_S = 2
PATCH = 128  # px of a face on the sheet
PER_ROW = 12


@dataclass(frozen=True)
class Voice:
    """Somebody speaking, and how far the mouth is open that says it."""

    samples: Samples
    truth: Openings


class Watcher:
    """An avatar that is made to speak, and watched."""

    def __init__(self, package: AvatarPackage, landmarker: Landmarker) -> None:
        self.package, self._landmarker = package, landmarker

    def speak(self, samples: Samples) -> list[Frame]:
        """Whole frames, one for each 40 ms begun."""
        session = self.package.session(SAMPLE_RATE)
        session.push_audio(samples)
        session.flush()
        frames = [self.package.compose_frame(timed) for timed in session.frames()]
        session.close()
        return frames

    def openings(self, frames: Sequence[Frame]) -> Openings:
        """As shares of the crop's side. Raises: SystemExit where a frame shows no face."""
        found = FaceTracker(self._landmarker).follow(frames)
        missing = sum(face is None for face in found)
        if missing:
            raise SystemExit(f"{missing} of {len(found)} frames show no face")
        return np.array([mouth_gap(face.points) for face in found if face is not None])


def draw_voices(n_voices: int) -> list[Voice]:
    """Of espeak-ng, none of which was trained on."""
    espeak = Espeak()
    voices = []
    for i in range(n_voices):
        samples, sounds = speak(espeak, np.random.default_rng((SEED, i)), held_out=True)
        mouths = mouths_of(sounds, np.arange(count_frames(samples)) / FPS)
        loudest = float(np.abs(samples).max())
        voices.append(Voice((samples * (0.5 / loudest) * FULL_SCALE).astype(np.int16), gap_of(mouths).astype(float)))
    return voices


def film_voices(table: Path, watcher: Watcher, n_voices: int, left_out: Sequence[str]) -> list[Voice]:
    """Of clips with sound; speakers take turns, but for those left out."""
    clips = [clip for clip in read_list(table) if clip.speaker not in left_out]
    by_turn = sorted(
        clips, key=lambda one: ([c.path for c in clips if c.speaker == one.speaker].index(one.path), one.speaker)
    )
    voices = []
    for clip in by_turn[:n_voices]:
        with open_media(clip.path) as media:
            frames = [frame for part in media.read_clips(FPS) for frame in part.frames]
        voices.append(Voice(read_sound(clip.path, SAMPLE_RATE), watcher.openings(frames)))
    return voices


def shuffle(samples: Samples, rng: np.random.Generator) -> Samples:
    """The same sound in pieces, in another order."""
    piece = round(SHUFFLED_S * SAMPLE_RATE)
    pieces = [samples[at : at + piece] for at in range(0, len(samples), piece)]
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def correlate(seen: Openings, truth: Openings, lag: int = 0) -> float:
    """Pearson, where what is seen comes `lag` frames behind; over as many frames as both have."""
    n_frames = min(len(seen), len(truth))
    seen, truth = seen[:n_frames], truth[:n_frames]
    if lag > 0:
        seen, truth = seen[lag:], truth[:-lag]
    elif lag < 0:
        seen, truth = seen[:lag], truth[-lag:]
    return float(np.corrcoef(seen, truth)[0, 1]) if seen.std() > 0 and truth.std() > 0 else 0.0


def measure_voices(
    watcher: Watcher, voices: Sequence[Voice]
) -> tuple[dict[str, Any], list[Openings], list[list[Frame]]]:
    """Figures, openings and frames."""
    rng = np.random.default_rng(SEED)
    films = [watcher.speak(voice.samples) for voice in voices]
    seen = [watcher.openings(film) for film in films]
    mixed = [watcher.openings(watcher.speak(shuffle(voice.samples, rng))) for voice in voices]
    lags = range(-FARTHEST, FARTHEST + 1)
    by_lag = [np.mean([correlate(s, v.truth, lag) for s, v in zip(seen, voices, strict=True)]) for lag in lags]
    scores = [correlate(s, v.truth) for s, v in zip(seen, voices, strict=True)]
    figures = {
        "voices": len(voices),
        "frames": sum(map(len, seen)),
        "correlation": round(float(np.mean(scores)), 3),
        "lowest": round(min(scores), 3),
        "shuffled": round(float(np.mean([correlate(m, v.truth) for m, v in zip(mixed, voices, strict=True)])), 3),
        "lag_frames": lags[int(np.argmax(by_lag))],
    }
    return figures, seen, films


def measure_silence(watcher: Watcher, wide: float) -> dict[str, float]:
    """The widest opening in silence and in a room's noise: 0 as filmed at rest, 1 as wide as in speech."""
    package = watcher.package
    rest = watcher.openings([package.background(i) for i in range(0, package.n_frames, RESTING)]).mean()
    n_samples = SILENT_S * SAMPLE_RATE
    noise = np.random.default_rng(SEED).normal(0, 10 ** (NOISE_DB / 20) * FULL_SCALE, n_samples)
    sounds = {"zeros": np.zeros(n_samples), "noise": noise}
    widest = {name: watcher.openings(watcher.speak(sound.astype(np.int16))).max() for name, sound in sounds.items()}
    return {name: round(float((opening - rest) / (wide - rest)), 3) for name, opening in widest.items()}


def draw_sheet(watcher: Watcher, films: Sequence[Sequence[Frame]], n_rows: int = 6) -> Frame:
    """Faces of each film, every other frame, a film a row."""
    box = watcher.package.box(0)
    margin = int(box.width) // 4
    rows = []
    for film in films[:n_rows]:
        first = max(len(film) // 2 - PER_ROW, 0)
        faces = [
            frame[int(box.top) - margin : int(box.bottom), int(box.left) : int(box.right)] for frame in film[first::2]
        ]
        size = (PATCH, PATCH * 5 // 4)
        small = [cv2.resize(face, size, interpolation=cv2.INTER_AREA) for face in faces[:PER_ROW]]
        rows.append([np.asarray(face, np.uint8) for face in small])
    return ImageGrid(PER_ROW, PATCH, PATCH * 5 // 4, background=(0, 0, 0)).draw(rows)


def falls_short(figures: dict[str, Any]) -> bool:
    """Whether something is not as it must be."""
    kinds = [figures[kind] for kind in ("drawn", "filmed") if kind in figures]
    return (
        any(kind["correlation"] < LEAST or kind["correlation"] <= kind["shuffled"] for kind in kinds)
        or any(abs(kind["lag_frames"]) > MOST_LAG for kind in kinds)
        or max(figures["silence"].values()) > MOST_SHUT
    )


def main() -> None:
    """Print one JSON object; exit 1 where the mouth does not follow the voice, or opens in silence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", default="starter", help="name or folder")
    parser.add_argument("--clips", type=Path, help="CSV with the columns file, speaker, transcript: real voices")
    parser.add_argument("--leave-out", nargs="*", default=["s1"], help="speakers of the clips that were trained on")
    parser.add_argument("--voices", type=int, default=8, help="of each kind")
    parser.add_argument("--sheet", type=Path, help="faces of what was spoken, as PNG")
    asked = parser.parse_args()
    package = Path(asked.package) if Path(asked.package).is_dir() else asked.package
    watcher = Watcher(AvatarPackage.load(package), load_landmarker("mediapipe", Settings.from_env().weight_sources))
    figures: dict[str, Any] = {}
    figures["drawn"], seen, films = measure_voices(watcher, draw_voices(asked.voices))
    if asked.clips:
        figures["filmed"], more, others = measure_voices(
            watcher, film_voices(asked.clips, watcher, asked.voices, asked.leave_out)
        )
        seen, films = seen + more, films[:3] + others
    figures["silence"] = measure_silence(watcher, float(np.percentile(np.concatenate(seen), 90)))
    if asked.sheet:
        cv2.imwrite(str(asked.sheet), draw_sheet(watcher, films))
    print(json.dumps(figures, indent=1))
    raise SystemExit(falls_short(figures))


if __name__ == "__main__":
    main()
