"""Measure how often the speaking face is chosen of two that are side by side.

    python -m bench.active_speaker [--grid ../shared/grid] [--pairs 40] [--dialogues 6] [--json FILE]

pairs: two GRID clips of different speakers, with the audio of one of them; both speak a sentence of the same form, so
that the other mouth moves as much. Also of their first second and two seconds alone, as short shots are. The audio is
that of the left and of the right face in turn. dialogues: two rendered people, who speak in turn within one shot, each
with still lips while the other speaks. Columns:

  right    share of frames in which the face that speaks was chosen
  shots    share of videos in which it was chosen in more than half of the frames
  largest  the same share, if the largest face is taken instead

Exits with status 1 if the largest face is as good.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE
from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.lip_sync.face_table import IS_USABLE, LEFT, RIGHT, FaceTable, tabulate_faces
from inference.lip_sync.speaker_choice import Numbers, choose_speakers
from inference.lip_sync.speech_correlation import audio_levels
from inference.media import Frame, open_media
from inference.media.audio import read_audio
from inference.media.audio_convert import AudioFormat, Samples
from inference.media.audio_spool import AudioSpool
from inference.rendering.appearance import Appearance, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.scene import Scene
from inference.settings import Settings
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise
from training.common.synthetic_clips import draw_sentence

FPS = 25.0
SEED = 5
FIRST_PERSON = 300  # seed of the first rendered person
SIZE = (480, 288)  # width and height of a rendered dialogue
SECONDS = (1, 2)  # of the short shots
Sides = npt.NDArray[np.int64]  # for each frame, 0 if the face on the left speaks, 1 for the right, -1 for neither


@dataclass(frozen=True)
class SpeakerVideo:
    """A video of two faces. speaks: who does, in each frame. samples: (N,) int16 of its audio, at `rate`."""

    frames: tuple[Frame, ...]
    speaks: Sides
    samples: Samples
    rate: int

    @property
    def middle(self) -> int:
        return int(self.frames[0].shape[1]) // 2

    def first(self, seconds: float) -> SpeakerVideo:
        """Return its first seconds."""
        n = round(seconds * FPS)
        return SpeakerVideo(self.frames[:n], self.speaks[:n], self.samples[: round(seconds * self.rate)], self.rate)


@dataclass
class Score:
    """Shares of the frames, and of the videos, in which the right face was chosen."""

    n: int = 0
    right: float = 0.0
    shots: float = 0.0
    largest: float = 0.0

    def add(self, chosen: Sides, largest: Sides, speaks: Sides) -> None:
        share, alone = float((chosen == speaks).mean()), float((largest == speaks).mean())
        self.n += 1
        self.right += (share - self.right) / self.n
        self.shots += ((share > 0.5) - self.shots) / self.n
        self.largest += (alone - self.largest) / self.n


def main() -> None:
    """Print a table; with --json, write the same figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, default=Path("../shared/grid"), help="skipped if it does not exist")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--dialogues", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    scores: dict[str, Score] = {}
    for video in pair_clips(args.grid, args.pairs):
        measure("GRID pairs", video, landmarker, scores)
        for seconds in SECONDS:
            measure(f"GRID pairs, {seconds} s", video.first(seconds), landmarker, scores)
    for i in range(args.dialogues):
        measure("rendered dialogues", render_dialogue(FIRST_PERSON + 2 * i), landmarker, scores)
    print(f"{'videos':22}{'n':>4}{'right':>9}{'shots':>9}{'largest':>9}")
    for name, one in scores.items():
        print(f"{name:22}{one.n:4}{one.right:9.3f}{one.shots:9.3f}{one.largest:9.3f}")
    if args.json:
        args.json.write_text(json.dumps({name: asdict(one) for name, one in scores.items()}, indent=1) + "\n")
    if any(one.right <= one.largest for one in scores.values()):
        raise SystemExit(1)


def measure(name: str, video: SpeakerVideo, landmarker: Landmarker, scores: dict[str, Score]) -> None:
    """Choose the face of each frame and add the result to the scores of that name."""
    table = tabulate_faces(video.frames, landmarker, len(video.frames) + 1)
    with AudioSpool(AudioFormat(video.rate)) as spool:
        spool.append(video.samples)
        levels = audio_levels(spool, FPS, len(video.frames))
    chosen, largest = choose_speakers(table, levels, FPS), choose_speakers(table, None, FPS)
    sides, baseline = (sides_of(table, one, video.middle) for one in (chosen, largest))
    scores.setdefault(name, Score()).add(sides, baseline, video.speaks)


def sides_of(table: FaceTable, chosen: Numbers, middle: int) -> Sides:
    """Return the side of the chosen face in each frame."""
    boxes = table.track_of(chosen).boxes
    is_right = (boxes[:, LEFT] + boxes[:, RIGHT]) / 2 > middle
    return np.where(boxes[:, IS_USABLE] == 1, is_right, -1).astype(np.int64)


def pair_clips(grid: Path, n_pairs: int) -> Iterator[SpeakerVideo]:
    """Yield pairs of clips of different speakers side by side, at random but always the same ones."""
    rng = np.random.default_rng(SEED)
    clips = sorted((grid / "clips").glob("*.mpg"))
    for i in range(n_pairs if clips else 0):
        speaking = clips[rng.integers(len(clips))]
        others = [one for one in clips if speaker_of(one) != speaker_of(speaking)]
        other = others[rng.integers(len(others))]
        side = i % 2
        pair = [read_frames(one) for one in ((speaking, other) if side == 0 else (other, speaking))]
        frames = tuple(np.concatenate(both, axis=1) for both in zip(*pair, strict=False))
        yield SpeakerVideo(frames, np.full(len(frames), side), read_audio(speaking, SAMPLE_RATE), SAMPLE_RATE)


def speaker_of(clip: Path) -> str:
    return clip.stem.split("_")[0]


def read_frames(path: Path) -> list[Frame]:
    with open_media(path) as media:
        return [frame for clip in media.read_clips(FPS) for frame in clip.frames]


def render_dialogue(seed: int) -> SpeakerVideo:
    """Render two people who speak in turn, from the first word to the last of each."""
    seeds = seed, seed + 1
    speeches = [SynthesisedSpeech(draw_sentence(one), one, None) for one in seeds]
    starts = [one.timed_words()[0].start_s for one in speeches]
    counts = [round((one.timed_words()[-1].end_s - at) * FPS) for one, at in zip(speeches, starts, strict=True)]
    turns = [
        speech.mouth_shapes(start + np.arange(n) / FPS)
        for speech, start, n in zip(speeches, starts, counts, strict=True)
    ]
    rest = MouthShape()
    shapes = [[mouth, rest] for mouth in turns[0]] + [[rest, mouth] for mouth in turns[1]]
    samples = [
        cut_samples(synthesise(speech, one), start, n)
        for speech, one, start, n in zip(speeches, seeds, starts, counts, strict=True)
    ]
    speaks = np.repeat([0, 1], counts)
    return SpeakerVideo(draw_people(seeds, shapes), speaks, np.concatenate(samples), SYNTHESIS_RATE)


def draw_people(seeds: Sequence[int], shapes: Sequence[list[MouthShape]]) -> tuple[Frame, ...]:
    """Draw people side by side. shapes: their mouths in each frame, from left to right."""
    appearances = [Appearance.from_seed(one) for one in seeds]
    seconds = np.arange(len(shapes)) / FPS
    poses = [head_motion(one, seed, seconds) for one, seed in zip(appearances, seeds, strict=True)]
    scene = Scene(appearances, *SIZE)
    noise = [np.random.default_rng((seeds[0], i)) for i in range(len(shapes))]
    return tuple(scene.draw([one[i] for one in poses], shapes[i], noise[i])[0] for i in range(len(shapes)))


def cut_samples(samples: npt.NDArray[np.float32], start_s: float, n_frames: int) -> Samples:
    """Return the samples of so many frames as int16."""
    first, length = round(start_s * SYNTHESIS_RATE), round(n_frames * SYNTHESIS_RATE / FPS)
    cut = samples[first : first + length]
    return np.asarray(np.pad(np.clip(cut, -1, 1) * 32767, (0, length - len(cut))), np.int16)


if __name__ == "__main__":
    main()
