"""How well lips follow a voice, on clips, faces and voices that nothing was trained on.

    python -m bench.sync_quality [--checkpoint starter] [--grid ../shared/grid] [--people 10] [--films FILM...]

Each clip's voice is given to another clip's face, so that the face given never shows what is heard. Then
  ours      how the opening of the mouth in the film correlates with the opening of the mouth that spoke
  shuffled  the same where the voice's pieces of 0.4 s were put in another order
  energy    how the loudness of the voice alone does (dB of each frame)
  original  how the film of who spoke does, written and read again as ours are
  given     how ours goes with the mouth that the given face had, which is to be replaced: the less the better
  moved     how far ours moves, over how far the mouth that spoke does (deviations)
  SSIM      of the mouth against the true picture: what the network makes of the true upper face and another
            frame of the same clip; copying: that other frame's mouth as it is
  rest      the mean opening in silence, over the widest in speech (95th percentile)
It ends with status 1 where ours is not better than shuffled and energy, and 0.6 times as good as the original, or
SSIM is not above copying.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from bench.lips import (
    FPS,
    Curve,
    Talk,
    correlate,
    loudness_of,
    mouth_of,
    opening_of,
    shuffle_sound,
    starts_of_windows,
    watch,
)
from inference.audio import SAMPLE_RATE, cut_window
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.faces.ssim import ssim
from inference.lip_sync import LipSyncer, SyncOptions
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import cut_face, stack_faces
from inference.media import open_media
from inference.media.encode import write_film
from inference.media.sound import Samples
from inference.settings import Settings
from inference.speaker import SyntheticClip
from training.lip_reading.render_clips import FIRST_SEED, draw_sentence

PIECE_S = 0.4  # of shuffled sound
AWAY = 37  # frames between a picture and the one of the same clip that is copied
SILENCE_S = 2.0
WIDEST = 95  # percentile
AS_GOOD = 0.6  # of the original's correlation
FIRST_PERSON = 200  # seed of the first rendered one
TRAINED_SPEAKER = "s1_"


@dataclass(frozen=True)
class Quality:
    """Of one clip, or the mean of several."""

    ours: float
    shuffled: float
    energy: float
    original: float
    ssim: float
    copying: float
    rest: float
    given: float
    moved: float

    @property
    def faults(self) -> list[str]:
        """What it was to show and does not."""
        found = [name for name in ("shuffled", "energy") if self.ours <= getattr(self, name)]
        found += ["original"] if self.ours < AS_GOOD * self.original else []
        return found + (["copying"] if self.ssim <= self.copying else [])


def main() -> None:
    """Print a table and, where asked, write the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="starter")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--reference", choices=("steady", "each"), default="steady", help="the face shown whole")
    parser.add_argument("--grid", type=Path, default=Path("../shared/grid"), help="where it is not, it is left out")
    parser.add_argument("--people", type=int, default=10, help="rendered ones, another for each sentence")
    parser.add_argument("--films", type=Path, nargs="*", default=[], help="of others who talk, with sound")
    parser.add_argument("--clips", type=int, help="at most so many of a kind")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if FIRST_PERSON + asked.people > FIRST_SEED:
        raise SystemExit(f"people from {FIRST_SEED} on were trained on; choose fewer")
    cv2.setNumThreads(1)
    options = SyncOptions(reference=asked.reference)
    measure = Measure(LipSyncer([asked.checkpoint], precision=asked.precision), options=options)
    found = {}
    print(f"{'clips':26}{'n':>4}" + "".join(f"{name:>10}" for name in Quality.__annotations__))
    with tempfile.TemporaryDirectory(prefix="viseme-quality-") as folder:
        for name, paths in kinds(asked.grid, asked.people, asked.films, Path(folder)).items():
            each = measure.all(paths[: asked.clips])
            found[name] = {"n": len(each)} | {key: round(value, 3) for key, value in vars(mean_of(each)).items()}
            print(f"{name:26}{len(each):4}" + "".join(f"{value:10.3f}" for value in vars(mean_of(each)).values()))
            for fault in mean_of(each).faults:
                print(f"! {name}: no better than {fault}")
                found[name]["fails"] = 1
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    raise SystemExit(any("fails" in one for one in found.values()))


def kinds(grid: Path, n_people: int, films: list[Path], folder: Path) -> dict[str, list[Path]]:
    """Clips that no weights of ours were trained on, by kind."""
    others = [path for path in sorted(grid.glob("clips/*.mpg")) if not path.name.startswith(TRAINED_SPEAKER)]
    found = {
        "s1, held out": sorted(grid.glob("eval/*.mpg")),
        "other speakers": [path for i in range(3) for path in others[i::3]],  # neighbours are different people
        "rendered people": [render(seed, folder) for seed in range(FIRST_PERSON, FIRST_PERSON + n_people)],
        "films given": films,
    }
    return {name: paths for name, paths in found.items() if paths}


def render(seed: int, folder: Path) -> Path:
    path = folder / f"person{seed}.mp4"
    SyntheticClip(draw_sentence(seed), seed).write(path)
    return path


class Measure:
    """Makes films and looks at them."""

    def __init__(
        self, syncer: LipSyncer, landmarker: Landmarker | None = None, options: SyncOptions | None = None
    ) -> None:
        self.syncer, self.options = syncer, options
        self.landmarker = landmarker or load_landmarker("mediapipe", Settings.from_env().weight_sources)
        self._openings: dict[Path, Curve] = {}

    def all(self, paths: list[Path]) -> list[Quality]:
        """Each clip's voice on the next one's face."""
        return [self.one(path, paths[(i + 1) % len(paths)], seed=i) for i, path in enumerate(paths)]

    def one(self, voice: Path, face: Path, seed: int = 0) -> Quality:
        """The voice of one film on the face of another."""
        talk = watch(voice, self.landmarker)
        truth = talk.opening
        mixed = shuffle_sound(talk.samples, PIECE_S, np.random.default_rng(seed))
        ours, shuffled, silent = (
            self.speak(face, samples)
            for samples in (talk.samples, mixed, np.zeros(round(SILENCE_S * SAMPLE_RATE), np.int16))
        )
        made, copied = self.compare(talk)
        return Quality(
            ours=correlate(ours, truth),
            shuffled=correlate(shuffled, truth),
            energy=correlate(loudness_of(talk.samples, len(truth)), truth),
            original=correlate(self.write_again(talk), truth),
            ssim=made,
            copying=copied,
            rest=float(silent.mean() / max(np.percentile(ours, WIDEST), 1e-3)),
            given=correlate(ours, self.opening(face)),
            moved=float(ours.std() / max(truth.std(), 1e-6)),
        )

    def opening(self, film: Path) -> Curve:
        if film not in self._openings:
            self._openings[film] = self.look(film)
        return self._openings[film]

    def speak(self, face: Path, samples: Samples) -> Curve:
        """How far the mouth opens in each frame of a film of that face with that voice."""
        video = self.syncer.sync(face, as_wav(samples), self.options).outputs[0].video
        assert video is not None
        return self.look(video)

    def look(self, film: bytes | Path) -> Curve:
        with open_media(film) as media:
            tracker = FaceTracker(self.landmarker)
            faces = [face for clip in media.read_clips(FPS) for face in tracker.follow(clip.frames)]
        return opening_of(np.stack([face.points for face in faces if face is not None]))

    def write_again(self, talk: Talk) -> Curve:
        """The opening in the film of who spoke, once it went through our encoder too."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "again.mp4"
            with write_film(path, Fraction(FPS)) as writer:
                for shot in talk.shots:
                    writer.add(shot.frame)
            return self.look(path.read_bytes())

    def compare(self, talk: Talk) -> tuple[float, float]:
        """SSIM of the mouth: of what the network makes against the truth, and of another frame's against it."""
        cuts = [cut_face(shot.frame, shot.box) for shot in talk.shots if shot.box is not None]
        others = [cuts[(k + AWAY) % len(cuts)] for k in range(len(cuts))]
        faces = np.concatenate([stack_faces(cuts)[:, :3], stack_faces(others)[:, 3:]], axis=1)
        mels = np.stack([cut_window(talk.samples, start) for start in starts_of_windows(len(cuts))])[:, None]
        made = to_patches(self.syncer.generators[0].speak(mels, faces))
        mouths = [mouth_of(shot, points) for shot, points in zip(talk.shots, talk.points, strict=True)]
        pairs = [
            (ssim(mine[mouth], true[mouth]), ssim(other[mouth], true[mouth]))
            for mine, true, other, mouth in zip(made, cuts, others, mouths, strict=True)
        ]
        ours, copied = np.mean(pairs, axis=0).tolist()
        return ours, copied


def mean_of(each: list[Quality]) -> Quality:
    return Quality(*np.mean([list(vars(one).values()) for one in each], axis=0).tolist())


def as_wav(samples: Samples) -> bytes:
    with wav_file() as (file, whole):
        file.writeframes(samples.astype("<i2").tobytes())
    return whole.getvalue()


@contextmanager
def wav_file() -> Iterator[tuple[wave.Wave_write, io.BytesIO]]:
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        yield file, whole


if __name__ == "__main__":
    main()
