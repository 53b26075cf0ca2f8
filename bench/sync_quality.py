"""Measure how well generated lips follow audio, on clips, faces and speakers that were not trained on.

    python -m bench.sync_quality [--checkpoint starter] [--enhance none] [--grid FOLDER] [--people 10] [--kokoro PACKS]
        [--videos VIDEO]

FOLDER contains clips/*.mpg, eval/*.mpg and people/*.mpg. PACKS: folder of packs of `training.common.kokoro --held-out`.
The audio of each clip is applied to another clip's face, so the face never
shows what is spoken. Columns of the table:

  ours      correlation of the generated mouth opening with that of the speaker
  shuffled  the same if the audio is cut into pieces of 0.4 s and shuffled
  energy    correlation of the audio's loudness alone (dB of each frame) with the opening of the speaker
  original  the same for the speaker's own video, encoded and decoded like the generated ones
  ssim      SSIM of the mouth with the true frame: generated from its upper half and another frame of the clip
  copying   the same for the mouth of that other frame, unchanged
  rest      mean opening in silence over the widest in speech (95th percentile)
  given     correlation of the generated opening with that of the face's own video, which should be low
  moved     standard deviation of the generated opening over that of the speaker
  closed    the speaker's own closed lips over the widest (5th over 95th percentile); landmarks leave a gap there, too
  encoder   correlation of the opening that the audio encoder predicts, before anything is generated (nan: it has none)

ours, original and encoder are correlations with the same opening, so that they show what is lost in the audio encoder,
in the generated images, and in measuring. The second table has the share of b, m and p on which lips shut: the opening
is under a tenth of the speaker's widest within 80 ms, in what the encoder predicts, in the generated video, and in the
speaker's own video (nan if there is none). Landmarks show a gap between closed lips, too, on many faces a fifth of the
widest: in a video the opening is measured from that gap (5th percentile of the face's own video), in the columns "from
0" from zero. The speech has exact times: of rendered people, and of Kokoro's voices never trained on.

Exits with status 1 unless ours is above shuffled, energy and 0.6 of original, and ssim above copying.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from bench.lip_closure import ShapeReader, TimedAudio, count_shut, read_shapes
from bench.lips import (
    FPS,
    Curve,
    SpeakingVideo,
    correlate_at_lag,
    frame_loudness,
    mel_window_starts,
    mouth_opening,
    mouth_region,
    read_speaking_video,
    shuffle_audio,
)
from inference.audio import SAMPLE_RATE, cut_window
from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.faces.ssim import ssim
from inference.lip_sync import LipSyncer, SyncOptions
from inference.lip_sync.compose import to_patches
from inference.lip_sync.preprocess import cut_face, stack_faces
from inference.media import open_media
from inference.media.audio_convert import Samples
from inference.media.encode import write_video
from inference.settings import Settings
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import synthesise
from training.common.kokoro import load_packs
from training.common.mouth_examples import BILABIALS
from training.common.speech import to_int16
from training.common.synthetic_clips import FIRST_SEED, draw_sentence

PIECE_S = 0.4  # length of the pieces of shuffled audio
COPY_DISTANCE = 37  # frames between a frame and the one whose mouth is copied
SILENCE_S = 2.0
CLOSED_PERCENTILE, WIDEST_PERCENTILE = 5, 95  # of the openings in speech
MIN_SHARE_OF_ORIGINAL = 0.6  # correlation / correlation of the original video
FIRST_PERSON = 200  # seed of the first rendered person
TRAINED_SPEAKER = "s1"  # most clips that were trained on are of this speaker
STRANGERS = ("s20", "s23", "s26", "s33")  # speakers of whom no clip was trained on
N_CLOSURE_FACES = 4  # rendered faces on which lips must shut


@dataclass(frozen=True)
class Quality:
    """Figures of one clip, or the means of several. The module's docstring explains them."""

    ours: float
    shuffled: float
    energy: float
    original: float
    ssim: float
    copying: float
    rest: float
    given: float
    moved: float
    closed: float
    encoder: float = math.nan

    @property
    def faults(self) -> list[str]:
        """The names of the baselines that are not beaten."""
        found = [name for name in ("shuffled", "energy") if self.ours <= getattr(self, name)]
        found += ["original"] if self.ours < MIN_SHARE_OF_ORIGINAL * self.original else []
        return found + (["copying"] if self.ssim <= self.copying else [])


@dataclass(frozen=True)
class ClosureCounts:
    """How many b, m and p there are, and on how many lips shut; None if that was not measured.

    drawn, original: openings measured from closed lips of the face; drawn_from_0, original_from_0: from zero.
    """

    n: int
    drawn: int | None
    predicted: int | None
    original: int | None
    drawn_from_0: int | None
    original_from_0: int | None


def main() -> None:
    """Print a table; with --json, write the same figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="starter")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--reference", choices=("steady", "each"), default="steady", help="reference frames")
    parser.add_argument("--enhance", choices=("none", "video"), default="none")
    parser.add_argument("--grid", type=Path, default=Path("../shared/grid"), help="skipped if it does not exist")
    parser.add_argument("--people", type=int, default=10, help="number of rendered people, with one sentence each")
    parser.add_argument("--kokoro", type=Path, help="folder of packs of held-out voices")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="videos of other speakers, with audio")
    parser.add_argument("--clips", type=int, help="most clips of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if FIRST_PERSON + args.people > FIRST_SEED:
        raise SystemExit(f"--people {args.people}: at most {FIRST_SEED - FIRST_PERSON}; later seeds were trained on")
    cv2.setNumThreads(1)
    options = SyncOptions(reference=args.reference, enhance=args.enhance)
    evaluator = SyncEvaluator(
        LipSyncer([args.checkpoint], precision=args.precision), options=options, shapes=read_shapes(args.checkpoint)
    )
    results: dict[str, dict[str, object]] = {}
    print(f"{'clips':26}{'n':>4}" + "".join(f"{name:>10}" for name in Quality.__annotations__))
    with tempfile.TemporaryDirectory(prefix="viseme-quality-") as folder:
        for name, paths in find_clips(args.grid, args.people, args.videos, Path(folder)).items():
            each = evaluator.evaluate_all(paths[: args.clips])
            mean = mean_quality(each)
            figures = {key: round(value, 3) for key, value in vars(mean).items() if not math.isnan(value)}
            results[name] = {"n": len(each), **figures}
            print(f"{name:26}{len(each):4}" + "".join(f"{value:10.3f}" for value in vars(mean).values()))
            for fault in mean.faults:
                print(f"! {name}: does not beat {fault}")
                results[name]["fails"] = 1
        timed = find_timed_audio(args.people, args.kokoro, args.clips, Path(folder))
        results |= print_closures(evaluator, timed, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(any("fails" in one for one in results.values()))


def find_clips(grid: Path, n_people: int, videos: list[Path], folder: Path) -> dict[str, list[Path]]:
    """Return clips that the bundled weights were not trained on, by kind. folder: for rendered clips."""
    clips = sorted(grid.glob("clips/*.mpg"))
    strangers = [path for path in (*clips, *sorted(grid.glob("people/*.mpg"))) if speaker_of(path) in STRANGERS]
    known = [path for path in clips if speaker_of(path) not in (TRAINED_SPEAKER, *STRANGERS)]
    found = {
        "s1, held out": sorted(grid.glob("eval/*.mpg")),
        "trained speakers": shuffle_neighbours(known),
        "strangers": shuffle_neighbours(strangers),
        "rendered people": [render(seed, folder) for seed in range(FIRST_PERSON, FIRST_PERSON + n_people)],
        "videos given": videos,
    }
    return {name: paths for name, paths in found.items() if paths}


def speaker_of(path: Path) -> str:
    return path.stem.partition("_")[0]


def shuffle_neighbours(paths: list[Path]) -> list[Path]:
    """Reorder paths that are sorted by speaker, so that neighbours are different people."""
    return [path for i in range(3) for path in paths[i::3]]


@dataclass(frozen=True)
class ClosureClip:
    """Speech with the times of its b, m and p, and the video of its speaker, if there is one."""

    speech: TimedAudio
    video: Path | None = None


def find_timed_audio(
    n_people: int, packs: Path | None, n_clips: int | None, folder: Path
) -> dict[str, list[ClosureClip]]:
    """Return speech with exact times that the bundled weights were not trained on, by kind.

    folder: for rendered clips.
    """
    rendered = [speak_rendered(seed, folder) for seed in range(FIRST_PERSON, FIRST_PERSON + n_people)]
    spoken = [ClosureClip(TimedAudio.of_kokoro(one)) for one in load_packs(packs)] if packs else []
    found = {"rendered people": rendered, "Kokoro's held-out voices": spoken}
    return {name: each[:n_clips] for name, each in found.items() if each}


def speak_rendered(seed: int, folder: Path) -> ClosureClip:
    """Return the sentence of a rendered person with its times, and the video."""
    speech = SyntheticClip(draw_sentence(seed), seed).speech
    middles = ((one.start_s + one.end_s) / 2 for one in speech.phones if one.phoneme.lower() in BILABIALS)
    return ClosureClip(TimedAudio(to_int16(synthesise(speech, seed)), tuple(middles)), render(seed, folder))


def print_closures(
    evaluator: SyncEvaluator, kinds: dict[str, list[ClosureClip]], folder: Path
) -> dict[str, dict[str, object]]:
    """Print the share of b, m and p on which lips shut; return the figures by kind. Faces are rendered people."""
    faces = [render(FIRST_PERSON + i, folder) for i in range(N_CLOSURE_FACES)]
    header = ("encoder", "video", "original", "video from 0", "original from 0")
    print(f"\n{'lips shut on b, m, p':26}{'n':>4}" + "".join(f"{title:>17}" for title in header))
    results: dict[str, dict[str, object]] = {}
    for name, clips in kinds.items():
        counts = evaluator.count_all_closures(clips, faces)
        found = (counts.predicted, counts.drawn, counts.original, counts.drawn_from_0, counts.original_from_0)
        shares = dict(zip(header, found, strict=True))
        known = {key: count / counts.n for key, count in shares.items() if count is not None}
        results[f"{name}, lips shut"] = {"n": counts.n} | {key: round(value, 3) for key, value in known.items()}
        print(f"{name:26}{counts.n:4}" + "".join(f"{known.get(key, math.nan):17.3f}" for key in shares))
    return results


def render(seed: int, folder: Path) -> Path:
    path = folder / f"person{seed}.mp4"
    if path.exists():
        return path
    SyntheticClip(draw_sentence(seed), seed).write(path)
    return path


class SyncEvaluator:
    """Generates videos and measures their mouths."""

    def __init__(
        self,
        syncer: LipSyncer,
        landmarker: Landmarker | None = None,
        options: SyncOptions | None = None,
        shapes: ShapeReader | None = None,
    ) -> None:
        self.syncer, self.options, self.shapes = syncer, options, shapes
        self.landmarker = landmarker or load_landmarker("mediapipe", Settings.from_env().weight_sources)
        self._openings: dict[Path, Curve] = {}

    def evaluate_all(self, paths: list[Path]) -> list[Quality]:
        """Apply each clip's audio to the next one's face."""
        return [self.evaluate(path, paths[(i + 1) % len(paths)], seed=i) for i, path in enumerate(paths)]

    def evaluate(self, audio: Path, face: Path, seed: int = 0) -> Quality:
        """Apply the audio of one video to the face of another. seed: of the shuffled audio."""
        speaker = read_speaking_video(audio, self.landmarker)
        truth = speaker.opening
        shuffled_audio = shuffle_audio(speaker.samples, PIECE_S, np.random.default_rng(seed))
        silence = np.zeros(round(SILENCE_S * SAMPLE_RATE), np.int16)
        ours, shuffled, silent = (
            self.generated_opening(face, samples) for samples in (speaker.samples, shuffled_audio, silence)
        )
        generated_ssim, copied_ssim = self.compare_mouths(speaker)
        return Quality(
            ours=correlate_at_lag(ours, truth),
            shuffled=correlate_at_lag(shuffled, truth),
            energy=correlate_at_lag(frame_loudness(speaker.samples, len(truth)), truth),
            original=correlate_at_lag(self.reencoded_opening(speaker), truth),
            ssim=generated_ssim,
            copying=copied_ssim,
            rest=float(silent.mean() / max(widest(ours), 1e-3)),
            given=correlate_at_lag(ours, self.own_opening(face)),
            moved=float(ours.std() / max(truth.std(), 1e-6)),
            closed=closed_share(truth),
            encoder=self.encoder_correlation(speaker),
        )

    def encoder_correlation(self, speaker: SpeakingVideo) -> float:
        """Return the correlation of the predicted opening with the speaker's; nan if the encoder predicts none."""
        if self.shapes is None:
            return math.nan
        return correlate_at_lag(self.shapes.opening(speaker.samples, len(speaker.opening)), speaker.opening)

    def count_all_closures(self, clips: Sequence[ClosureClip], faces: Sequence[Path]) -> ClosureCounts:
        """Count on how many b, m, p lips shut, with each clip's speech on one of the faces."""
        drawn, predicted, original, drawn_from_0, original_from_0 = [], [], [], [], []
        for i, clip in enumerate(clips):
            speech, face = clip.speech, faces[i % len(faces)]
            opening = self.generated_opening(face, speech.samples)
            drawn.append(count_shut(opening, speech.middles_s, closed_opening(self.own_opening(face))))
            drawn_from_0.append(count_shut(opening, speech.middles_s))
            if self.shapes:
                expected = self.shapes.opening(speech.samples, speech.n_frames)
                predicted.append(count_shut(expected, speech.middles_s))
            if clip.video:
                own = self.own_opening(clip.video)
                original.append(count_shut(own, speech.middles_s, closed_opening(own)))
                original_from_0.append(count_shut(own, speech.middles_s))
        n = sum(n for _, n in drawn)
        return ClosureCounts(n, *map(sum_shut, (drawn, predicted, original, drawn_from_0, original_from_0)))

    def own_opening(self, video: Path) -> Curve:
        """Measure the mouth opening of a video once, and return it from the cache later."""
        if video not in self._openings:
            self._openings[video] = self.measure_opening(video)
        return self._openings[video]

    def generated_opening(self, face: Path, samples: Samples) -> Curve:
        """Apply audio to a face, and measure the mouth opening in each generated frame."""
        video = self.syncer.sync(face, to_wav(samples), self.options).outputs[0].video
        assert video is not None
        return self.measure_opening(video)

    def measure_opening(self, video: bytes | Path) -> Curve:
        """Measure the mouth opening in each frame that has a face."""
        with open_media(video) as media:
            tracker = FaceTracker(self.landmarker)
            faces = [face for clip in media.read_clips(FPS) for face in tracker.follow(clip.frames)]
        return mouth_opening(np.stack([face.points for face in faces if face is not None]))

    def reencoded_opening(self, speaker: SpeakingVideo) -> Curve:
        """Measure the mouth opening of the original frames after they are encoded like generated ones."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reencoded.mp4"
            with write_video(path, Fraction(FPS)) as writer:
                for face_frame in speaker.face_frames:
                    writer.add(face_frame.frame)
            return self.measure_opening(path.read_bytes())

    def compare_mouths(self, speaker: SpeakingVideo) -> tuple[float, float]:
        """Return the mean SSIM with the true mouth: of the generated mouth, and of another frame's mouth."""
        true_faces = [cut_face(one.frame, one.box) for one in speaker.face_frames if one.box is not None]
        n_frames = len(true_faces)
        other_faces = [true_faces[(k + COPY_DISTANCE) % n_frames] for k in range(n_frames)]
        inputs = np.concatenate([stack_faces(true_faces)[:, :3], stack_faces(other_faces)[:, 3:]], axis=1)
        mels = np.stack([cut_window(speaker.samples, start) for start in mel_window_starts(n_frames)])[:, None]
        generated_faces = to_patches(self.syncer.generators[0].generate_faces(mels, inputs))
        regions = [
            mouth_region(face_frame, points)
            for face_frame, points in zip(speaker.face_frames, speaker.points, strict=True)
        ]
        pairs = [
            (ssim(generated[region], true[region]), ssim(other[region], true[region]))
            for generated, true, other, region in zip(generated_faces, true_faces, other_faces, regions, strict=True)
        ]
        generated_ssim, copied_ssim = np.mean(pairs, axis=0).tolist()
        return generated_ssim, copied_ssim


def sum_shut(counts: Sequence[tuple[int, int]]) -> int | None:
    """Return the sum of the first numbers; None if nothing was counted."""
    return sum(shut for shut, _ in counts) if counts else None


def widest(opening: Curve) -> float:
    return float(np.percentile(opening, WIDEST_PERCENTILE))


def closed_opening(opening: Curve) -> float:
    """Return the opening of closed lips, as it is measured while somebody speaks."""
    return float(np.percentile(opening, CLOSED_PERCENTILE))


def closed_share(opening: Curve) -> float:
    """Return the opening of closed lips over the widest."""
    return closed_opening(opening) / max(widest(opening), 1e-3)


def mean_quality(each: list[Quality]) -> Quality:
    return Quality(*np.mean([list(vars(one).values()) for one in each], axis=0).tolist())


def to_wav(samples: Samples) -> bytes:
    """Encode 16 kHz mono audio as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


if __name__ == "__main__":
    main()
