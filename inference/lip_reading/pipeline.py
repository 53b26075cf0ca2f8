"""Lip reading: a video in, a transcript out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from inference.backends import choose_device
from inference.errors import UnsupportedMedia
from inference.faces import FaceRegion, FaceTracker
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH
from inference.faces.load import load_landmarker
from inference.faces.track import DETECT_EVERY, EXACT
from inference.lip_reading.decode import Logits, Reading, read_greedy
from inference.lip_reading.grammar import LANGUAGE, join_passages, read_grammar
from inference.lip_reading.live_words import OnWords, WordStream
from inference.lip_reading.model import DEFAULT_LANDMARKS, load_model
from inference.lip_reading.options import FPS, Decoder, ReadOptions, Transcript
from inference.lip_reading.preprocess import WINDOW, Mouth, crop_mouths, cut_windows, track_faces
from inference.lip_reading.sentences import read_by_sentence
from inference.lip_reading.windows import HOP, N_LIP_POINTS, OnRows, run_windows, stitch
from inference.media import Clip, Frame, MediaDoor, OpenedMedia, Source, open_media
from inference.settings import Settings
from inference.stages import StageClock

# Called with the seconds of video read so far, and how many the file says it has (None: it does not say).
Progress = Callable[[float, float | None], None]

T = TypeVar("T")

BATCH_SIZE = {"cpu": 2, "cuda": 16}  # windows at a time


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What was made of a video's mouths, and how many there were."""

    found: T
    n_frames: int
    n_without_face: int


class Tally:
    """The same mouths, counted."""

    def __init__(self, mouths: Iterable[Mouth]) -> None:
        self._mouths = mouths
        self.n_frames = self.n_without_face = 0

    def __iter__(self) -> Iterator[Mouth]:
        for mouth in self._mouths:
            self.n_frames += 1
            self.n_without_face += mouth.hole > 0
            yield mouth


class LipReader:
    """Reads lips. Holds the loaded models; may be used for any number of videos, one at a time."""

    def __init__(
        self,
        weights: str | Path | None = "starter",
        device: str = "auto",
        precision: str = "auto",
        landmarks: str | None = None,
        settings: Settings | None = None,
        media: MediaDoor = open_media,
    ) -> None:
        """weights: a set's name, a file, s3://bucket/key or hf://owner/name; None for those the
        deployment brought (SM_MODEL_DIR, else HF_MODEL_ID, else `starter`).
        landmarks: None for those the weights were trained with.
        media: how films are opened; a `MediaChild`'s `open` decodes them in a process with limits.

        Raises: InvalidRequest, WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        settings = settings or Settings.from_env()
        self._limits = settings.media_limits
        self._open_media = media
        self.model = load_model(weights, choose_device(device, precision), settings.weight_sources)
        self.device = self.model.device
        self._landmarker = load_landmarker(
            landmarks or self.model.landmarks or DEFAULT_LANDMARKS, settings.weight_sources
        )
        self.warnings = self._notices() + self._check_landmarks()

    def read(
        self,
        source: Source,
        options: ReadOptions | None = None,
        progress: Progress | None = None,
        clock: StageClock | None = None,
        on_words: OnWords | None = None,
    ) -> Transcript:
        """Read the lips of one face in a video.

        source: a path, or the bytes of a file. clock: counts the stages' time; wall time by default.
        progress, on_words: called between windows; what they raise ends the reading.
        Raises: MediaError (and below it NoFaceFound), where the video cannot be read.
        """
        options, clock = options or ReadOptions(), clock or StageClock()
        read = self._read_sentences if self._has_grammar(options) else self._read_windows
        seen = self._see(source, options, progress, clock, lambda mouths: read(mouths, options, clock, on_words))
        return self._transcribe(seen, clock)

    def read_by_each(
        self, source: Source, decoders: Sequence[Decoder], options: ReadOptions | None = None
    ) -> dict[Decoder, Transcript]:
        """The same by several decoders; from one pass through the networks, where the video is one window."""
        options, clock = options or ReadOptions(), StageClock()
        seen = self._see(source, options, None, clock, lambda mouths: self._stitch(mouths, clock, None))
        asked = {name: replace(options, decoder=name) for name in decoders}
        return {
            name: self.read(source, one)
            if self._has_grammar(one) and seen.n_frames > WINDOW
            else self._transcribe(Seen(self._decode(seen.found, one), seen.n_frames, seen.n_without_face), clock)
            for name, one in asked.items()
        }

    def warm_up(self, frame_bgr: Frame) -> None:
        """Run every network once, so that what does not work here shows now and the first request is fast."""
        self._landmarker.detect(frame_bgr)
        self._landmarker.find_landmarks(frame_bgr, FaceRegion(frame_bgr.shape[1] / 2, frame_bgr.shape[0] / 2, 64, 0))
        blank = Mouth(np.zeros((CROP_HEIGHT, CROP_WIDTH, 3), np.uint8), np.zeros((N_LIP_POINTS, 2), np.float32))
        stitch(run_windows(cut_windows([blank], HOP), self.model.network, 1))

    def _see(
        self,
        source: Source,
        options: ReadOptions,
        progress: Progress | None,
        clock: StageClock,
        read: Callable[[Iterator[Mouth]], T],
    ) -> Seen[T]:
        """What `read` makes of the mouths. A chain of generators: each pulls from the one before, and no stage
        holds the whole video.
        """
        with clock.stage("decode"), self._open_media(source, self._limits) as media:
            check_moves(media)
            tracker = FaceTracker(self._landmarker, options.face, EXACT if options.exact else DETECT_EVERY)
            clips = clock.watch("decode", report(media.read_clips(FPS), progress, media.video.duration_s))
            tracked = clock.watch("faces", track_faces(clips, tracker))
            tally = Tally(clock.watch("mouths", crop_mouths(tracked, media.name, tracker)))
            found = read(iter(tally))
        return Seen(found, tally.n_frames, tally.n_without_face)

    def _stitch(self, mouths: Iterable[Mouth], clock: StageClock, on_rows: OnRows | None) -> Logits:
        windows = clock.watch("mouths", cut_windows(mouths, HOP))
        results = clock.watch("network", run_windows(windows, self.model.network, BATCH_SIZE[self.device.name]))
        return stitch(results, on_rows).logits

    def _read_windows(
        self, mouths: Iterator[Mouth], options: ReadOptions, clock: StageClock, on_words: OnWords | None
    ) -> Reading:
        logits = self._stitch(mouths, clock, None if on_words is None else WordStream(on_words, FPS).hear)
        with clock.stage("words"):
            return self._decode(logits, options)

    def _read_sentences(
        self, mouths: Iterator[Mouth], options: ReadOptions, clock: StageClock, on_words: OnWords | None
    ) -> Reading:
        """By the grammar: a video of one window as it is, a longer one sentence by sentence."""
        head = list(islice(mouths, WINDOW + 1))
        if len(head) <= WINDOW:
            return self._read_windows(iter(head), options, clock, None)
        passages = []
        found = read_by_sentence(chain(head, mouths), self.model.network, options.n_best, self.model.calibration)
        for passage in clock.watch("network", found):
            passages.append(passage)
            if on_words is not None and passage.words:
                on_words(passage.words)
        with clock.stage("words"):
            return join_passages(passages, options.n_best)

    def _has_grammar(self, options: ReadOptions) -> bool:
        return options.decoder == "grammar" or (options.decoder == "auto" and self.model.language == LANGUAGE)

    def _decode(self, logits: Logits, options: ReadOptions) -> Reading:
        if self._has_grammar(options):
            return read_grammar(logits, FPS, options.n_best, self.model.calibration)
        return read_greedy(logits, FPS)

    def _transcribe(self, seen: Seen[Reading], clock: StageClock) -> Transcript:
        reading = seen.found
        return Transcript(
            text=reading.text,
            words=reading.words,
            confidence=reading.confidence,
            num_frames=seen.n_frames,
            fps=FPS,
            duration_s=round(seen.n_frames / FPS, 3),
            frames_without_face=seen.n_without_face,
            model=self.model.info,
            timings_ms=clock.as_ms(),
            alternatives=reading.alternatives,
            warnings=self.warnings,
        )

    def _notices(self) -> tuple[str, ...]:
        return (self._landmarker.notice,) if self._landmarker.notice else ()

    def _check_landmarks(self) -> tuple[str, ...]:
        trained_with = self.model.landmarks
        if trained_with in (None, self._landmarker.name):
            return ()
        return (
            f"the weights {self.model.info.weights} were trained with landmarks by {trained_with}, "
            f"not {self._landmarker.name}: expect worse text",
        )


def check_moves(media: OpenedMedia) -> None:
    """Raises: UnsupportedMedia for a still picture."""
    if media.video.is_still:
        raise UnsupportedMedia(f"{media.name}: a still picture ({media.video.codec}); expected a video of a face")


def report(clips: Iterable[Clip], progress: Progress | None, total_s: float | None) -> Iterator[Clip]:
    """The same clips, telling `progress` how far they reach."""
    done_s = 0.0
    for clip in clips:
        yield clip
        done_s += len(clip.frames) / clip.fps
        if progress is not None:
            progress(done_s, total_s)
