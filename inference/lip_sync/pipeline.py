"""Lip sync: from a face and speech to a video in which the face speaks."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inference.backends import choose_device
from inference.backends.batching import BatchingNetwork
from inference.backends.device import count_threads
from inference.backends.torch_import import require_torch
from inference.errors import WeightsNotFound
from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_sync.audio_inputs import as_list, audio_warnings, open_audios, open_own_audio
from inference.lip_sync.box_cache import (
    SMOOTHING_LOOKAHEAD,
    BoxCache,
    CachingFaceLocator,
    Fingerprint,
    cache_key,
    mediapipe_detector_name,
)
from inference.lip_sync.compose import batch_frames, generate_patches, paste_faces
from inference.lip_sync.deadlines import make_deadlines
from inference.lip_sync.face_counter import FaceCounter
from inference.lip_sync.first_pass import FirstPass
from inference.lip_sync.frame_spool import loop_frames, remap_frames
from inference.lip_sync.locate import FaceLocator, LocatedFace, TrackingLocator
from inference.lip_sync.model import Generator, find_s3fd, load_generators, load_s3fd
from inference.lip_sync.mouth_bank import MouthBank
from inference.lip_sync.options import VIDEO_DETAIL, EnhancerName, SyncOptions, SyncOutput, SyncResult
from inference.lip_sync.outputs import ProgressCallback, name_outputs, staging_folder, write_videos
from inference.lip_sync.preprocess import (
    FaceFrame,
    downscale_frames,
    find_boxes,
    smooth_boxes,
)
from inference.lip_sync.segment_timeline import make_timeline
from inference.lip_sync.segments import check_audio_count
from inference.lip_sync.speaker_track import speaker_warnings
from inference.lip_sync.timeline import SyncTimeline
from inference.lip_sync.video_detail import add_detail
from inference.media import Frame, MediaOpener, OpenedMedia, Source, open_media
from inference.media.audio_spool import AudioSpool, SpoolAudio, spool_audio
from inference.media.video_encoders import check_encoder
from inference.run_ahead import RunAhead
from inference.settings import Settings, wanted_threads
from inference.stage_timer import StageClock

if TYPE_CHECKING:
    from inference.lip_sync.enhance import Enhancer

BATCH_SIZE = {"cpu": 4, "cuda": 32}  # frames per batch
NO_OTHER_MOUTHS = "enhance video: the face is an image, which has no other mouths; nothing was added"
MAX_BATCH = {"cpu": 4, "cuda": 64}  # frames of several videos per batch
N_FRAMES_AHEAD = 4  # that wait for the network with their boxes: 25 MB of 1920x1080


class LipSyncer:
    """Lip-syncs faces. Holds the loaded models; may be used for any number of videos, one at a time."""

    def __init__(
        self,
        checkpoints: Sequence[str | Path] | None = ("starter",),
        device: str = "auto",
        precision: str = "auto",
        s3fd: str | Path | None = None,
        settings: Settings | None = None,
        media: MediaOpener = open_media,
        voice: SpoolAudio = spool_audio,
        tracks: BoxCache | None = None,
    ) -> None:
        """Load the models.

        checkpoints: Wav2Lip weights: a set's name, a file, s3://bucket/key; None for those of the deployment.
        One pass makes a video for each. s3fd: the detector that `PARITY` uses, if the deployment has none.
        tracks: cache of face boxes, so that the same video is not searched again.
        media, voice: open untrusted files; in the server, `open` and `spool_audio` of a `SandboxedDecoder`.

        Raises: InvalidRequest, WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        self._settings = settings = settings or Settings.from_env()
        self._open_media, self._open_audio = media, voice
        self._encoder = check_encoder(settings.encoder)
        self.device = choose_device(device, precision, settings.engine)
        self.generators = load_generators(
            list(checkpoints) if checkpoints is not None else None, self.device, settings.weight_sources
        )
        self._landmarker = load_landmarker("mediapipe", settings.weight_sources)
        self._s3fd, self._tracks = s3fd, tracks
        self._enhancers: dict[EnhancerName, Enhancer] = {}
        self._mouth_landmarkers: list[Landmarker] = []  # one, once it is needed
        self.warnings = licence_warnings(self.generators)

    def with_checkpoints(self, names: Sequence[str]) -> LipSyncer:
        """Return the same syncer with a subset of its checkpoints; nothing is loaded again.

        Raises: WeightsNotFound if one is not loaded; the message lists those that are.
        """
        loaded = {one.name: one for one in self.generators}
        missing = [name for name in names if name not in loaded]
        if missing:
            raise WeightsNotFound(f"model {missing[0][:80]!r}: not loaded here; there are {', '.join(loaded)}")
        subset = copy.copy(self)
        subset.generators = [loaded[name] for name in dict.fromkeys(names)]
        subset.warnings = licence_warnings(subset.generators)
        return subset

    def with_batching(self) -> LipSyncer:
        """Return the same syncer, whose generators batch what several threads run through them."""
        batching = copy.copy(self)
        most = MAX_BATCH[self.device.name]
        batching.generators = [replace(one, network=BatchingNetwork(one.network, most)) for one in self.generators]
        return batching

    def for_thread(self, media: MediaOpener, voice: SpoolAudio) -> LipSyncer:
        """Return a syncer for another thread: with the same generators, and face models and media of its own."""
        syncer = copy.copy(self)
        syncer._open_media, syncer._open_audio = media, voice
        syncer._landmarker = load_landmarker("mediapipe", self._settings.weight_sources)
        syncer._enhancers, syncer._mouth_landmarkers = {}, []
        return syncer

    def warm_up(self) -> None:
        """Run every network once, so that the first video does not wait for it. Raises: the errors of the networks."""
        for one in self.generators:
            one.generate_faces(np.zeros((1, 1, 80, 16), np.float32), np.zeros((1, 6, 96, 96), np.float32))
        self._locator_factory(SyncOptions()).make_locate()(np.zeros((96, 128, 3), np.uint8))

    def sync(
        self,
        face: Source,
        audio: Source | Sequence[Source],
        options: SyncOptions | None = None,
        output: str | Path | None = None,
        progress: ProgressCallback | None = None,
        clock: StageClock | None = None,
    ) -> SyncResult:
        """Lip-sync a face to an audio file.

        face: a video or an image; audio: any file with audio, or several for `options.segments`. Each a path, or the
        bytes of the file.
        output: path of the video; with several checkpoints, the name of each is added before the suffix. None: the
        result holds the bytes. Videos are written atomically. progress: an exception it raises ends the work.
        clock: its deadlines replace those of the settings.
        Raises: MediaError (including NoFaceFound, NoAudio), StorageError, InvalidRequest, DeadlineExceeded.
        """
        options, clock = options or SyncOptions(), clock or StageClock(deadlines=make_deadlines(self._settings))
        output = None if output is None else Path(output)
        targets = name_outputs(output, [one.name for one in self.generators])
        audios = as_list(audio)
        check_audio_count(options.segments, len(audios))
        factory = self._locator_factory(options)
        if options.enhance not in ("none", VIDEO_DETAIL):
            self._find_enhancer(options.enhance)  # before the audio is decoded: the enhancer may not be installed
        with ExitStack() as opened:
            with clock.stage("sound"):
                limits = self._settings.media_limits
                spoken = open_audios(audios, options.segments, self._open_audio, limits, opened)
                own = open_own_audio(face, self._open_audio, limits, opened) if options.needs_own_audio else None
            clock.check("sound")
            speaker = speaker_warnings(options.active_speaker, own)
            opened.enter_context(clock.stage("decode"))
            first = FirstPass(face, self._open_media, limits, options, clock)
            media = None if first.is_needed else opened.enter_context(self._open_media(face, limits))
            video, n_source = first.measure() if media is None else (media.video, None)
            timeline = opened.enter_context(closing(make_timeline(video, spoken, own, options, n_source)))
            locate = opened.enter_context(self._cached_locator(first, timeline, own, factory))
            bank = self._collect_mouths(first, locate, timeline) if options.enhance == VIDEO_DETAIL else None
            media = media or opened.enter_context(self._open_media(face, limits))
            counter = FaceCounter(media.name, options.face)
            located = self._open_located(opened, media, timeline, options, locate, counter, clock)
            still = (NO_OTHER_MOUTHS,) if options.enhance == VIDEO_DETAIL and bank is None else ()
            frames = self._run(located, timeline, options, counter, clock, bank)
            with staging_folder(output) as folder:
                partial = [folder / f"{i}{path.suffix}" for i, path in enumerate(targets)]
                size = write_videos(frames, partial, timeline, progress, clock, self._encoder)
                counter.check()
                outputs = self._move_outputs(partial, None if output is None else targets, timeline, clock)
        return SyncResult(
            outputs=outputs,
            num_frames=timeline.n_frames,
            fps=float(timeline.fps),
            duration_s=round(timeline.n_frames / float(timeline.fps), 3),
            width=size[0],
            height=size[1],
            frames_without_face=counter.n_without,
            timings_ms=clock.as_ms(),
            warnings=(*self.warnings, *audio_warnings(spoken), *media.warnings, *counter.warnings(), *speaker, *still),
            frames_passed_on=counter.n_passed_on,
        )

    def _open_located(
        self,
        opened: ExitStack,
        media: OpenedMedia,
        timeline: SyncTimeline,
        options: SyncOptions,
        locate: CachingFaceLocator,
        counter: FaceCounter,
        clock: StageClock,
    ) -> Iterator[FaceFrame]:
        """Return the frames with their faces; with several threads, made ahead in one that ends with `opened`."""
        if count_threads(wanted_threads()) == 1:
            return locate_faces(media, timeline, options, locate, counter, clock)
        located = locate_faces(media, timeline, options, locate, counter, clock.branch())
        return iter(opened.enter_context(RunAhead(located, N_FRAMES_AHEAD, clock)))

    def _run(
        self,
        located: Iterator[FaceFrame],
        timeline: SyncTimeline,
        options: SyncOptions,
        counter: FaceCounter,
        clock: StageClock,
        bank: MouthBank | None,
    ) -> Iterator[tuple[Frame, ...]]:
        """Yield each output frame, once per checkpoint. bank: the mouths of the video, if they are to give detail.

        A chain of generators: each pulls from the one before, and none holds the whole video.
        """
        shown = counter.count_output(located)
        batches = batch_frames(shown, clock.watch("mel", timeline.windows()), BATCH_SIZE[self.device.name])
        networks = [clock.timed(one.name, one.generate_faces) for one in self.generators]
        generated = clock.watch("model", generate_patches(batches, networks, options.reference))
        if bank is not None:
            generated = clock.watch("enhance", add_detail(generated, bank, self._find_mouth_landmarker()))
        elif options.enhance not in ("none", VIDEO_DETAIL):
            enhancer = self._find_enhancer(options.enhance)
            from inference.lip_sync.enhance import enhance_mouths

            generated = clock.watch("enhance", enhance_mouths(generated, enhancer))
        return clock.watch("compose", paste_faces(generated, options.paste))

    def _collect_mouths(self, first: FirstPass, locate: CachingFaceLocator, timeline: SyncTimeline) -> MouthBank | None:
        """Return the mouths of the video, from which generated ones get their detail; None for an image."""
        n_needed = timeline.n_needed + SMOOTHING_LOOKAHEAD[first.options.smoothing]
        return first.collect_mouths(locate, self._find_mouth_landmarker(), timeline.fps, n_needed)

    def _find_mouth_landmarker(self) -> Landmarker:
        """Return a landmarker beside that of the tracker, which may run in another thread."""
        if not self._mouth_landmarkers:
            self._mouth_landmarkers.append(load_landmarker("mediapipe", self._settings.weight_sources))
        return self._mouth_landmarkers[0]

    def _find_enhancer(self, name: EnhancerName) -> Enhancer:
        """Return an enhancer; it is loaded on first use, with torch, which it runs on."""
        require_torch(f"the enhancer {name}")
        from inference.lip_sync.enhance import load_enhancer

        if name not in self._enhancers:
            self._enhancers[name] = load_enhancer(name, self.device, self._settings.weight_sources)
        return self._enhancers[name]

    @contextmanager
    def _cached_locator(
        self, first: FirstPass, timeline: SyncTimeline, own_audio: AudioSpool | None, factory: LocatorFactory
    ) -> Iterator[CachingFaceLocator]:
        """Provide a locator that reads boxes from the cache, or detects faces and stores their boxes at the end."""
        options, needed = first.options, timeline.n_needed + SMOOTHING_LOOKAHEAD[first.options.smoothing]
        cached, fingerprint, key = None, None, ""
        if self._tracks is not None and (fingerprint := Fingerprint.of(first.face, first.limits)) is not None:
            key = cache_key(fingerprint.digest, timeline.fps, options, factory.name)
            found = self._tracks.find(key)
            cached = found if found is not None and found.covers(first.count_located(needed)) else None
        track = cached
        if track is None and options.active_speaker is not None:
            track = first.track_speaker(options.active_speaker, self._landmarker, own_audio, timeline.fps, needed)
        locate = CachingFaceLocator(factory.make_locate, track)
        yield locate
        if self._tracks is not None and cached is None and fingerprint is not None and fingerprint.is_unchanged():
            self._tracks.store(key, track or locate.recorded_track())

    def _locator_factory(self, options: SyncOptions) -> LocatorFactory:
        """Return the face detector of a request. Raises: WeightsNotFound if the user has to supply it and did not."""
        if options.boxes == "s3fd":
            found = find_s3fd(self._s3fd, self._settings.weight_sources)
            name = f"s3fd {found.sha256} {self.device.name}"
            return LocatorFactory(name, lambda: upright_locator(load_s3fd(found, self.device).detect_best))
        return LocatorFactory(
            mediapipe_detector_name(), lambda: TrackingLocator(FaceTracker(self._landmarker, options.face))
        )

    def _move_outputs(
        self, partial: list[Path], targets: list[Path] | None, timeline: SyncTimeline, clock: StageClock
    ) -> tuple[SyncOutput, ...]:
        outputs = []
        for i, (generator, path) in enumerate(zip(self.generators, partial, strict=True)):
            target = None if targets is None else targets[i]
            video = path.read_bytes() if target is None else None
            if target is not None:
                os.replace(path, target)
            duration_s = round(timeline.n_frames / float(timeline.fps), 3)
            ms = round(clock.seconds_in_call.get(generator.name, 0.0) * 1000 / max(timeline.n_frames, 1), 2)
            outputs.append(
                SyncOutput(generator.name, generator.sha256, timeline.n_frames, duration_s, ms, target, video)
            )
        return tuple(outputs)


@dataclass(frozen=True)
class LocatorFactory:
    """Makes face locators. name: the detector and the hash of its weights."""

    name: str
    make_locate: Callable[[], FaceLocator]


def locate_faces(
    media: OpenedMedia,
    timeline: SyncTimeline,
    options: SyncOptions,
    locate: CachingFaceLocator,
    counter: FaceCounter,
    clock: StageClock,
) -> Iterator[FaceFrame]:
    """Yield the frames of the source with the box of the face, for as long as the audio lasts."""
    clips = clock.watch("decode", media.read_clips(float(timeline.fps)))
    counted_frames = locate.count_frames(downscale_frames(clips, options.resize_factor, options.shrinking))
    located = clock.watch("detect", find_boxes(counted_frames, locate, options.pads))
    smoothed = smooth_boxes(counter.count_source(located), options.smoothing)
    return clock.watch("loop", timeline.mark_outside(fit_frames(smoothed, timeline, options)))


def fit_frames(face_frames: Iterable[FaceFrame], timeline: SyncTimeline, options: SyncOptions) -> Iterator[FaceFrame]:
    """Yield as many frames as the output has."""
    if timeline.is_remapped and timeline.n_source is not None:
        return remap_frames(face_frames, timeline.n_source, timeline.n_frames)
    return loop_frames(face_frames, timeline.n_frames, options.video_loop, spooled=not timeline.is_covered)


def upright_locator(detect: Callable[[Frame], FaceBox | None]) -> FaceLocator:
    """Return a locator of upright faces, from a detector that gives boxes alone."""

    def locate(frame: Frame) -> LocatedFace | None:
        box = detect(frame)
        return None if box is None else LocatedFace(box)

    return locate


def licence_warnings(generators: Iterable[Generator]) -> tuple[str, ...]:
    """Return the licence notices of checkpoints, each once."""
    return tuple(dict.fromkeys(one.notice for one in generators if one.notice))
