"""Lip reading: a video in, a transcript out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.backends import choose_device
from inference.errors import UnsupportedMedia
from inference.faces import FaceRegion, FaceTracker
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH
from inference.faces.load import load_landmarker
from inference.faces.track import DETECT_EVERY, EXACT
from inference.lip_reading.decode import Logits, Reading, read_greedy
from inference.lip_reading.grammar import LANGUAGE, read_grammar
from inference.lip_reading.live_words import LiveRows, SentenceStream, WordStream
from inference.lip_reading.model import DEFAULT_LANDMARKS, load_model
from inference.lip_reading.options import FPS, Decoder, ReadOptions, Transcript, Word
from inference.lip_reading.preprocess import Mouth, crop_mouths, cut_windows, track_faces
from inference.lip_reading.windows import HOP, N_LIP_POINTS, Stitched, run_windows, stitch
from inference.media import Clip, Frame, MediaDoor, OpenedMedia, Source, open_media
from inference.settings import Settings
from inference.stages import StageClock

# Called with the seconds of video read so far, and how many the file says it has (None: it does not say).
Progress = Callable[[float, float | None], None]

# Called with words that are settled, in order, while a long video is still being read.
OnWords = Callable[[list[Word]], None]

BATCH_SIZE = {"cpu": 2, "cuda": 16}  # windows at a time


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
        stitched = self._see(source, options, progress, clock, on_words)
        with clock.stage("words"):
            return self._transcribe(stitched, options, clock)

    def read_by_each(
        self, source: Source, decoders: Sequence[Decoder], options: ReadOptions | None = None
    ) -> dict[Decoder, Transcript]:
        """The same by several decoders, from one pass through the networks."""
        options, clock = options or ReadOptions(), StageClock()
        stitched = self._see(source, options, None, clock, None)
        return {name: self._transcribe(stitched, replace(options, decoder=name), clock) for name in decoders}

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
        on_words: OnWords | None,
    ) -> Stitched:
        with clock.stage("decode"), self._open_media(source, self._limits) as media:
            check_moves(media)
            return self._run(media, options, progress, clock, on_words)

    def _run(
        self,
        media: OpenedMedia,
        options: ReadOptions,
        progress: Progress | None,
        clock: StageClock,
        on_words: OnWords | None,
    ) -> Stitched:
        """A chain of generators: each pulls from the one before, and no stage holds the whole video."""
        tracker = FaceTracker(self._landmarker, options.face, EXACT if options.exact else DETECT_EVERY)
        clips = clock.watch("decode", report(media.read_clips(FPS), progress, media.video.duration_s))
        tracked = clock.watch("faces", track_faces(clips, tracker))
        mouths = clock.watch("mouths", crop_mouths(tracked, media.name, tracker))
        windows = clock.watch("mouths", cut_windows(mouths, HOP))
        results = clock.watch("network", run_windows(windows, self.model.network, BATCH_SIZE[self.device.name]))
        return stitch(results, None if on_words is None else self._stream(on_words, options).hear)

    def _has_grammar(self, options: ReadOptions) -> bool:
        return options.decoder == "grammar" or (options.decoder == "auto" and self.model.language == LANGUAGE)

    def _stream(self, on_words: OnWords, options: ReadOptions) -> LiveRows:
        if self._has_grammar(options):
            return SentenceStream(on_words, FPS, self.model.calibration)
        return WordStream(on_words, FPS)

    def _decode(self, logits: Logits, options: ReadOptions) -> Reading:
        if self._has_grammar(options):
            return read_grammar(logits, FPS, options.n_best, self.model.calibration)
        return read_greedy(logits, FPS)

    def _transcribe(self, stitched: Stitched, options: ReadOptions, clock: StageClock) -> Transcript:
        reading = self._decode(stitched.logits, options)
        n_frames = len(stitched.logits)
        return Transcript(
            text=reading.text,
            words=reading.words,
            confidence=reading.confidence,
            num_frames=n_frames,
            fps=FPS,
            duration_s=round(n_frames / FPS, 3),
            frames_without_face=sum(hole > 0 for hole in stitched.holes),
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
