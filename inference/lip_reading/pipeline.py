"""Lip reading: from a video to a transcript."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from inference.backends import choose_device
from inference.backends.device import count_threads
from inference.errors import InvalidRequest, UnsupportedMedia
from inference.faces import FaceRegion, FaceTracker
from inference.faces.crop import CROP_HEIGHT, CROP_WIDTH
from inference.faces.load import load_landmarker
from inference.faces.track import DETECT_EVERY, EVERY_FRAME
from inference.lip_reading.grammar_decoder import LANGUAGE, join_spans, read_grammar
from inference.lip_reading.greedy_decoder import DecodedText, Logits, read_greedy
from inference.lip_reading.held_mouths import silence_held
from inference.lip_reading.long_video import decode_by_sentence
from inference.lip_reading.model import DEFAULT_LANDMARKS, load_model
from inference.lip_reading.mouth_strip import MouthSampler, MouthStrip
from inference.lip_reading.options import FPS, Decoder, ReadOptions, Transcript
from inference.lip_reading.partial_words import OnWords, WordStream
from inference.lip_reading.phrases import MAX_FRAMES, read_phrase
from inference.lip_reading.preprocess import (
    WINDOW_FRAMES,
    MouthCrop,
    crop_mouths,
    cut_windows,
    merge_short_shots,
    track_faces,
)
from inference.lip_reading.windows import N_LIP_POINTS, WINDOW_HOP, OnRows, run_windows, stitch, to_network_input
from inference.media import Clip, Frame, MediaOpener, OpenedMedia, Source, open_media
from inference.run_ahead import RunAhead
from inference.settings import Settings, wanted_threads
from inference.stage_timer import StageClock
from inference.weights.sources import WeightSources

# Called with the seconds of video read so far, and the duration that the file declares (None if it does not).
ProgressCallback = Callable[[float, float | None], None]

T = TypeVar("T")
U = TypeVar("U")

BATCH_SIZE = {"cpu": 2, "cuda": 16}  # windows per batch
MAX_BATCH = {"cpu": 2, "cuda": 32}  # windows of several videos per batch
N_MOUTHS_AHEAD = 2 * WINDOW_FRAMES  # that wait for the network: 3.7 MB


@dataclass(frozen=True)
class ExtractionResult(Generic[T]):
    """The result for a video's mouths, the number of frames, and whether they are more than one shot.

    warnings: about how the frames were decoded. mouths: None unless they were requested.
    """

    result: T
    n_frames: int
    n_without_face: int
    has_cut: bool
    warnings: tuple[str, ...] = ()
    mouths: MouthStrip | None = None

    def with_result(self, result: U) -> ExtractionResult[U]:
        """Return the same with another result."""
        return ExtractionResult(result, self.n_frames, self.n_without_face, self.has_cut, self.warnings, self.mouths)


class DeferredProgress:
    """The last progress that one thread reports, for another to pass on: callers are called in their own thread."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress
        self._latest: tuple[float, float | None] | None = None

    def __call__(self, done_s: float, total_s: float | None) -> None:
        self._latest = (done_s, total_s)

    def pass_on(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None and self._progress is not None:
            self._progress(*latest)


class CountingIterator:
    """Iterates over mouths, counts them, notes cuts, and samples them if a sampler is given."""

    def __init__(self, mouths: Iterable[MouthCrop], sampler: MouthSampler | None) -> None:
        self._mouths, self._sampler = mouths, sampler
        self.n_frames = self.n_without_face = 0
        self.has_cut = False

    def __iter__(self) -> Iterator[MouthCrop]:
        shot: int | None = None
        for mouth in self._mouths:
            self.has_cut = self.has_cut or shot not in (None, mouth.shot)
            shot = mouth.shot
            self.n_frames += 1
            self.n_without_face += mouth.gap_length > 0
            if self._sampler is not None:
                self._sampler.add(mouth.crop)
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
        media: MediaOpener = open_media,
    ) -> None:
        """Load the models.

        weights: a set's name, a file, s3://bucket/key or hf://owner/name; None for those of the deployment
        (VISEME_WEIGHTS, else SM_MODEL_DIR, else HF_MODEL_ID, else `starter`).
        landmarks: None for the deployment's (VISEME_LANDMARKS), else those that the weights were trained with.
        media: opens videos; the `open` of a `SandboxedDecoder` decodes them in a process with limits.

        Raises: InvalidRequest, WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        settings = settings or Settings.from_env()
        self._limits = settings.media_limits
        self._open_media = media
        self.model = load_model(weights, choose_device(device, precision), settings.weight_sources)
        self.device = self.model.device
        self._landmarker = load_landmarker(
            landmarks or settings.landmarks or self.model.landmarks or DEFAULT_LANDMARKS, settings.weight_sources
        )
        self.warnings = self._landmarker_notices() + self._check_landmarks()

    def with_batching(self) -> LipReader:
        """Return the same reader, whose network batches what several threads run through it."""
        model = self.model
        batching = copy.copy(self)
        batching.model = replace(model, network=model.network.with_batching(MAX_BATCH[model.device.name]))
        return batching

    def for_thread(self, media: MediaOpener, sources: WeightSources) -> LipReader:
        """Return a reader for another thread: with the same network, and face models and media of its own."""
        reader = copy.copy(self)
        reader._open_media = media
        reader._landmarker = load_landmarker(self._landmarker.name, sources)
        return reader

    def read(
        self,
        source: Source,
        options: ReadOptions | None = None,
        progress: ProgressCallback | None = None,
        clock: StageClock | None = None,
        on_words: OnWords | None = None,
    ) -> Transcript:
        """Read the lips of one face in a video.

        source: a path, or the bytes of a file. clock: measures the time of each stage; wall time by default.
        progress, on_words: called between windows; an exception they raise ends the work.
        Raises: MediaError (including NoFaceFound) if the video cannot be read.
        """
        options, clock = options or ReadOptions(), clock or StageClock()
        extracted = self._extract_mouths(
            source, options, progress, clock, lambda mouths: self._read_mouths(mouths, options, clock, on_words)
        )
        return self._transcribe(extracted, clock)

    def read_with_decoders(
        self, source: Source, decoders: Sequence[Decoder], options: ReadOptions | None = None
    ) -> dict[Decoder, Transcript]:
        """Read a video with several decoders.

        A video of at most one window, without a cut, passes through the networks once, for all decoders.
        """
        options, clock = options or ReadOptions(), StageClock()
        extracted = self._extract_mouths(
            source, options, None, clock, lambda mouths: self._run_network(mouths, clock, None)
        )
        options_by_decoder = {name: replace(options, decoder=name) for name in decoders}
        return {
            name: self.read(source, one)
            if self._has_grammar(one) and (extracted.n_frames > WINDOW_FRAMES or extracted.has_cut)
            else self._transcribe(extracted.with_result(self._decode(extracted.result, one)), clock)
            for name, one in options_by_decoder.items()
        }

    def warm_up(self, frame_bgr: Frame) -> None:
        """Run every network once, so that a fault of this machine shows now and the first request is fast."""
        self._landmarker.detect(frame_bgr)
        self._landmarker.find_landmarks(frame_bgr, FaceRegion(frame_bgr.shape[1] / 2, frame_bgr.shape[0] / 2, 64, 0))
        blank = MouthCrop(np.zeros((CROP_HEIGHT, CROP_WIDTH, 3), np.uint8), np.zeros((N_LIP_POINTS, 2), np.float32))
        stitch(run_windows(cut_windows([blank], WINDOW_HOP), self.model.network, 1))
        self.model.network.hold(to_network_input(blank.crop[None, None]))

    def _extract_mouths(
        self,
        source: Source,
        options: ReadOptions,
        progress: ProgressCallback | None,
        clock: StageClock,
        decode: Callable[[Iterator[MouthCrop]], T],
    ) -> ExtractionResult[T]:
        """Extract the mouths of a video and return what `decode` makes of them.

        A chain of generators: each pulls from the one before, and no stage holds the whole video.
        """
        sampler = MouthSampler() if options.mouths else None
        with clock.stage("decode"), self._open_media(source, self._limits) as media:
            check_not_still(media)
            tracker = FaceTracker(self._landmarker, options.face, EVERY_FRAME if options.exact else DETECT_EVERY)
            if count_threads(wanted_threads()) == 1:
                counted = CountingIterator(track_mouths(media, tracker, clock, progress), sampler)
                found = decode(iter(counted))
            else:
                deferred = DeferredProgress(progress)
                mouths = track_mouths(media, tracker, clock.branch(), deferred)
                with RunAhead(mouths, N_MOUTHS_AHEAD, clock, deferred.pass_on) as ahead:
                    counted = CountingIterator(ahead, sampler)
                    found = decode(iter(counted))
        strip = None if sampler is None else sampler.make_strip(FPS)
        return ExtractionResult(found, counted.n_frames, counted.n_without_face, counted.has_cut, media.warnings, strip)

    def _run_network(self, mouths: Iterable[MouthCrop], clock: StageClock, on_rows: OnRows | None) -> Logits:
        windows = clock.watch("mouths", cut_windows(mouths, WINDOW_HOP))
        results = clock.watch("network", run_windows(windows, self.model.network, BATCH_SIZE[self.device.name]))
        return stitch(results, on_rows).logits

    def _read_windows(
        self, mouths: Iterator[MouthCrop], options: ReadOptions, clock: StageClock, on_words: OnWords | None
    ) -> DecodedText:
        logits = self._run_network(mouths, clock, None if on_words is None else WordStream(on_words, FPS).add_rows)
        with clock.stage("words"):
            return self._decode(logits, options)

    def _read_mouths(
        self, mouths: Iterator[MouthCrop], options: ReadOptions, clock: StageClock, on_words: OnWords | None
    ) -> DecodedText:
        if options.phrases:
            return self._read_phrase(mouths, options, clock)
        if self._has_grammar(options):
            return self._read_sentences(mouths, options, clock, on_words)
        return self._read_windows(mouths, options, clock, on_words)

    def _read_phrase(self, mouths: Iterator[MouthCrop], options: ReadOptions, clock: StageClock) -> DecodedText:
        """Decode the whole video as one of the phrases. Raises: InvalidRequest if it is too long or too short."""
        logits = self._run_network(limit_frames(mouths), clock, None)
        with clock.stage("words"):
            return read_phrase(logits, options.phrases, FPS, options.n_best)

    def _read_sentences(
        self, mouths: Iterator[MouthCrop], options: ReadOptions, clock: StageClock, on_words: OnWords | None
    ) -> DecodedText:
        """Decode with the grammar: a video of one window as it is, a longer one, or one with a cut, by sentence."""
        first_mouths = list(islice(mouths, WINDOW_FRAMES + 1))
        if len(first_mouths) <= WINDOW_FRAMES and is_one_shot(first_mouths):
            return self._read_windows(iter(first_mouths), options, clock, None)
        spans = []
        found = decode_by_sentence(
            chain(first_mouths, mouths), self.model.network, options.n_best, self.model.calibration
        )
        for span in clock.watch("network", found):
            spans.append(span)
            if on_words is not None and span.words:
                on_words(span.words)
        with clock.stage("words"):
            return join_spans(spans, options.n_best)

    def _has_grammar(self, options: ReadOptions) -> bool:
        if options.phrases:
            return False
        return options.decoder == "grammar" or (options.decoder == "auto" and self.model.language == LANGUAGE)

    def _decode(self, logits: Logits, options: ReadOptions) -> DecodedText:
        if options.phrases:
            return read_phrase(logits, options.phrases, FPS, options.n_best)
        if self._has_grammar(options):
            return read_grammar(logits, FPS, options.n_best, self.model.calibration)
        return read_greedy(logits, FPS)

    def _transcribe(self, extracted: ExtractionResult[DecodedText], clock: StageClock) -> Transcript:
        reading = extracted.result
        return Transcript(
            text=reading.text,
            words=reading.words,
            confidence=reading.confidence,
            num_frames=extracted.n_frames,
            fps=FPS,
            duration_s=round(extracted.n_frames / FPS, 3),
            frames_without_face=extracted.n_without_face,
            model=self.model.info,
            timings_ms=clock.as_ms(),
            alternatives=reading.alternatives,
            warnings=(*self.warnings, *extracted.warnings),
            mouths=extracted.mouths,
        )

    def _landmarker_notices(self) -> tuple[str, ...]:
        return (self._landmarker.notice,) if self._landmarker.notice else ()

    def _check_landmarks(self) -> tuple[str, ...]:
        trained_with = self.model.landmarks
        if trained_with in (None, self._landmarker.name):
            return ()
        return (
            f"the weights {self.model.info.weights} were trained with landmarks by {trained_with}, "
            f"not {self._landmarker.name}: expect worse text",
        )


def is_one_shot(mouths: Iterable[MouthCrop]) -> bool:
    """Return whether the mouths are read as one shot; a short one beside another does not count."""
    return len({mouth.shot for mouth in merge_short_shots(mouths)}) <= 1


def limit_frames(mouths: Iterable[MouthCrop]) -> Iterator[MouthCrop]:
    """Yield the same mouths. Raises: InvalidRequest if they are more than one phrase takes."""
    for i, mouth in enumerate(mouths):
        if i == MAX_FRAMES:
            raise InvalidRequest(
                f"phrases: the video has more than {MAX_FRAMES / FPS:.0f} s; expected a video of one phrase"
            )
        yield mouth


def check_not_still(media: OpenedMedia) -> None:
    """Raise UnsupportedMedia if the file is a still image."""
    if media.video.is_still:
        raise UnsupportedMedia(f"{media.name}: a still image ({media.video.codec}); expected a video of a face")


def track_mouths(
    media: OpenedMedia, tracker: FaceTracker, clock: StageClock, progress: ProgressCallback | None
) -> Iterator[MouthCrop]:
    """Yield the mouth of each frame of the selected face."""
    clips = clock.watch("decode", report_progress(media.read_clips(FPS), progress, media.video.duration_s))
    tracked = clock.watch("faces", track_faces(clips, tracker))
    return clock.watch("mouths", silence_held(crop_mouths(tracked, media.name, tracker)))


def report_progress(clips: Iterable[Clip], progress: ProgressCallback | None, total_s: float | None) -> Iterator[Clip]:
    """Yield the same clips and report how much was read to `progress`."""
    done_s = 0.0
    for clip in clips:
        yield clip
        done_s += len(clip.frames) / clip.fps
        if progress is not None:
            progress(done_s, total_s)
