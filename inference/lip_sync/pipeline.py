"""Lip sync: a face and a voice in, a talking film out."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from inference.audio import SAMPLE_RATE, count_frames, count_mel_columns, cut_window, upstream_starts
from inference.audio import window_start as start_of_window
from inference.backends import choose_device
from inference.errors import InvalidRequest, NoFaceFound, StorageError, WeightsNotFound
from inference.faces import FaceBox, FaceChoice, FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_sync.compose import in_batches, paste_faces, speak
from inference.lip_sync.deadlines import deadlines_of
from inference.lip_sync.enhance import Enhancer, enhance_mouths, load_enhancer
from inference.lip_sync.loop import loop_shots
from inference.lip_sync.model import Generator, find_s3fd, load_generators, load_s3fd
from inference.lip_sync.options import HIGHEST_FPS, LOWEST_FPS, STILL_FPS, Enhance, SyncOptions, SyncOutput, SyncResult
from inference.lip_sync.preprocess import Locate, Shot, box_of_landmarks, find_boxes, shrink, smooth_boxes
from inference.lip_sync.tracks import LOOKAHEAD, Fingerprint, KeptLocator, TrackCache, key_of, mediapipe_detector
from inference.malloc_trim import HeapTrimmer
from inference.media import Frame, MediaDoor, OpenedMedia, Source, VideoInfo, open_media
from inference.media.encode import SUFFIXES, FilmWriter, write_film
from inference.media.sound import Samples
from inference.media.voice import Voice, VoiceDoor, read_voice
from inference.settings import Settings
from inference.stages import StageClock

# Called with the number of frames made so far, and of all.
Progress = Callable[[int, int], None]

BATCH_SIZE = {"cpu": 4, "cuda": 32}  # frames at a time
SURE_SHARE, SURE_S = 1.05, 1.0  # a film that declares so much more than is needed need not be kept for a loop
SILENT = "silent_audio"


class LipSyncer:
    """Makes faces speak. Holds the loaded models; may be used for any number of films, one at a time."""

    def __init__(
        self,
        checkpoints: Sequence[str | Path] | None = ("starter",),
        device: str = "auto",
        precision: str = "auto",
        s3fd: str | Path | None = None,
        settings: Settings | None = None,
        media: MediaDoor = open_media,
        voice: VoiceDoor = read_voice,
        tracks: TrackCache | None = None,
    ) -> None:
        """checkpoints: Wav2Lip weights: a set's name, a file, s3://bucket/key; None for those the deployment
        brought. One pass makes a film for each. s3fd: the detector that `PARITY` uses, where it is not deployed.
        tracks: where it is kept where faces are in films, so that the same face is not looked for again.
        media, voice: how untrusted files are opened; a `MediaChild`'s `open` and `read_voice`, in the server.

        Raises: InvalidRequest, WeightsNotFound, WrongWeights, DeviceUnavailable.
        """
        self._settings = settings = settings or Settings.from_env()
        self._open_media, self._read_voice = media, voice
        self.device = choose_device(device, precision)
        self.generators = load_generators(
            list(checkpoints) if checkpoints is not None else None, self.device, settings.weight_sources
        )
        self._landmarker = load_landmarker("mediapipe", settings.weight_sources)
        self._s3fd, self._tracks = s3fd, tracks
        self._enhancers: dict[Enhance, Enhancer] = {}
        self.warnings = warnings_of(self.generators)

    def having(self, names: Sequence[str]) -> LipSyncer:
        """The same syncer with these of its checkpoints alone; nothing is loaded anew.

        Raises: WeightsNotFound naming those there are.
        """
        loaded = {one.name: one for one in self.generators}
        missing = [name for name in names if name not in loaded]
        if missing:
            raise WeightsNotFound(f"model {missing[0][:80]!r}: not loaded here; there are {', '.join(loaded)}")
        fewer = copy.copy(self)
        fewer.generators = [loaded[name] for name in dict.fromkeys(names)]
        fewer.warnings = warnings_of(fewer.generators)
        return fewer

    def warm_up(self) -> None:
        """Run every network once, so that the first film does not wait for it. Raises: what they raise."""
        for one in self.generators:
            one.speak(np.zeros((1, 1, 80, 16), np.float32), np.zeros((1, 6, 96, 96), np.float32))
        self._detector(SyncOptions()).make_locate()(np.zeros((96, 128, 3), np.uint8))

    def sync(
        self,
        face: Source,
        audio: Source,
        options: SyncOptions | None = None,
        output: Path | None = None,
        progress: Progress | None = None,
        clock: StageClock | None = None,
    ) -> SyncResult:
        """Have a face say what is heard.

        face: a film or a picture; audio: any file with sound. Each a path, or the bytes of the file.
        output: the film's file; with several checkpoints each gets its name before the suffix. None: the
        result holds the bytes. Films appear whole or not at all. progress: what it raises ends the work.
        clock: with deadlines of its own; by default the settings' hold.
        Raises: MediaError (below it NoFaceFound, NoAudio), StorageError, InvalidRequest, DeadlineExceeded.
        """
        options, clock = options or SyncOptions(), clock or StageClock(deadlines=deadlines_of(self._settings))
        targets = name_outputs(output, [one.name for one in self.generators])
        detector = self._detector(options)
        if options.enhance != "none":
            self._find_enhancer(options.enhance)  # before the voice is read: it may not be there
        with ExitStack() as opened:
            with clock.stage("sound"):
                voice = opened.enter_context(self._read_voice(audio, self._settings.media_limits))
                samples = voice.as_mono(SAMPLE_RATE)
            clock.check("sound")
            opened.enter_context(clock.stage("decode"))
            media = opened.enter_context(self._open_media(face, self._settings.media_limits))
            film = Plan(media, voice, samples, options)
            counter = FaceCount(media.name)
            locate = opened.enter_context(self._kept(face, film, options, detector))
            frames = self._run(media, film, options, locate, counter, clock)
            with film_folder(output) as folder:
                partial = [folder / f"{i}{path.suffix}" for i, path in enumerate(targets)]
                size = write_all(frames, partial, film, progress, clock)
                counter.check()
                outputs = self._hand_over(partial, None if output is None else targets, film, clock)
        return SyncResult(
            outputs=outputs,
            num_frames=film.n_frames,
            fps=float(film.fps),
            duration_s=round(film.n_frames / float(film.fps), 3),
            width=size[0],
            height=size[1],
            frames_without_face=counter.n_without,
            timings_ms=clock.as_ms(),
            warnings=self.warnings if samples.any() else (*self.warnings, SILENT),
        )

    def _run(
        self,
        media: OpenedMedia,
        film: Plan,
        options: SyncOptions,
        locate: KeptLocator,
        counter: FaceCount,
        clock: StageClock,
    ) -> Iterator[tuple[Frame, ...]]:
        """A chain of generators: each pulls from the one before, and none holds the whole film."""
        clips = clock.watch("decode", media.read_clips(float(film.fps)))
        looked_at = locate.watch(shrink(clips, options.resize_factor, options.shrinking))
        shots = clock.watch("detect", find_boxes(looked_at, locate, options.pads))
        steady = smooth_boxes(counter.watch(shots), options.smoothing)
        looped = clock.watch("loop", loop_shots(steady, film.n_frames, options.loop, spooled=not film.is_covered))
        counted = counter.watch_shown(looped)
        batches = in_batches(counted, clock.watch("mel", film.windows()), BATCH_SIZE[self.device.name])
        networks = [clock.timed(one.name, one.speak) for one in self.generators]
        spoken = clock.watch("model", speak(batches, networks, options.reference))
        if options.enhance != "none":
            spoken = clock.watch("enhance", enhance_mouths(spoken, self._find_enhancer(options.enhance)))
        return clock.watch("compose", paste_faces(spoken, options.paste))

    def _find_enhancer(self, name: Enhance) -> Enhancer:
        """Loaded when it is first asked for."""
        if name not in self._enhancers:
            self._enhancers[name] = load_enhancer(name, self.device, self._settings.weight_sources)
        return self._enhancers[name]

    @contextmanager
    def _kept(self, face: Source, film: Plan, options: SyncOptions, detector: Detector) -> Iterator[KeptLocator]:
        """Finds faces, or knows where they were found in the same film before; what is found is kept at the end."""
        limits = self._settings.media_limits
        print_of = Fingerprint.of(face, limits) if self._tracks is not None else None
        if self._tracks is None or print_of is None:
            yield KeptLocator(detector.make_locate, None)
            return
        key = key_of(print_of.digest, film.fps, options, detector.name)
        known = self._tracks.find(key)
        needed = film.n_frames + LOOKAHEAD[options.smoothing]
        locate = KeptLocator(detector.make_locate, known if known is not None and known.covers(needed) else None)
        yield locate
        if not locate.is_known and print_of.still_holds():
            self._tracks.keep(key, locate.found())

    def _detector(self, options: SyncOptions) -> Detector:
        """Raises: WeightsNotFound where it is one that the user brings, and is not there."""
        if options.boxes == "s3fd":
            found = find_s3fd(self._s3fd, self._settings.weight_sources)
            name = f"s3fd {found.sha256} {self.device.name}"
            return Detector(name, lambda: load_s3fd(found, self.device).find_first)
        return Detector(mediapipe_detector(), lambda: self._follow(options.face))

    def _follow(self, choice: FaceChoice) -> Locate:
        tracker = FaceTracker(self._landmarker, choice)

        def locate(frame: Frame) -> FaceBox | None:
            (face,) = tracker.follow((frame,))
            return None if face is None else box_of_landmarks(face.points)

        return locate

    def _hand_over(
        self, partial: list[Path], targets: list[Path] | None, film: Plan, clock: StageClock
    ) -> tuple[SyncOutput, ...]:
        outputs = []
        for i, (generator, path) in enumerate(zip(self.generators, partial, strict=True)):
            at = None if targets is None else targets[i]
            video = path.read_bytes() if at is None else None
            if at is not None:
                os.replace(path, at)
            duration_s = round(film.n_frames / float(film.fps), 3)
            ms = round(clock.seconds_in_call.get(generator.name, 0.0) * 1000 / max(film.n_frames, 1), 2)
            outputs.append(SyncOutput(generator.name, generator.sha256, film.n_frames, duration_s, ms, at, video))
        return tuple(outputs)


@dataclass(frozen=True)
class Detector:
    """name: which one it is, and of which weights."""

    name: str
    make_locate: Callable[[], Locate]


def warnings_of(generators: Iterable[Generator]) -> tuple[str, ...]:
    """What whoever uses these checkpoints must be told, each once."""
    return tuple(dict.fromkeys(one.notice for one in generators if one.notice))


class Plan:
    """How long the film will be, at which rate, and what each frame hears."""

    def __init__(self, media: OpenedMedia, voice: Voice, samples: Samples, options: SyncOptions) -> None:
        """samples: the voice as the networks hear it, 16 kHz mono."""
        self.voice, self.samples = voice, samples
        self.fps = choose_rate(media.video, options.fps)
        rate = float(self.fps)
        starts = upstream_starts(count_mel_columns(len(samples)), rate) if options.tail == "drop" else None
        self.n_frames = len(starts) if starts is not None else count_frames(len(samples), rate)
        self._starts = starts
        self._offset = options.mel_offset_frames
        declared_s = media.video.duration_s or 0
        self.is_covered = declared_s * rate > self.n_frames * SURE_SHARE + SURE_S * rate

    def windows(self) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """The (80, 16) mel of each frame."""
        for k in range(self.n_frames):
            start = start_of_window(k, float(self.fps), self._offset) if self._starts is None else self._starts[k]
            yield cut_window(self.samples, start)


class FaceCount:
    """Counts faces as they are found, and frames that are shown without one."""

    def __init__(self, name: str) -> None:
        self.n_without = 0
        self._name = name
        self._n_looked_at = 0
        self._has_face = False

    def watch(self, shots: Iterable[Shot]) -> Iterator[Shot]:
        """Raises: NoFaceFound as soon as the whole source has none."""
        for shot in shots:
            self._n_looked_at += 1
            self._has_face = self._has_face or shot.box is not None
            yield shot
        self.check()

    def watch_shown(self, shots: Iterable[Shot]) -> Iterator[Shot]:
        for shot in shots:
            self.n_without += shot.box is None
            yield shot

    def check(self) -> None:
        if not self._has_face:
            raise NoFaceFound(f"{self._name}: no face found in {self._n_looked_at} frames")


def choose_rate(video: VideoInfo, asked: float | None) -> Fraction:
    """The rate that was asked for, else the film's own where it is a sensible one."""
    own = video.fps if video.fps and not video.is_still else STILL_FPS
    rate = asked if asked is not None else min(max(own, LOWEST_FPS), HIGHEST_FPS)
    return Fraction(rate).limit_denominator(1001)


def name_outputs(output: Path | None, names: list[str]) -> list[Path]:
    """One file for each checkpoint. Raises: InvalidRequest for what cannot be written."""
    output = output or Path("film.mp4")
    if output.suffix.lower() not in SUFFIXES:
        raise InvalidRequest(f"{output.name}: cannot write this kind of file; expected one of {', '.join(SUFFIXES)}")
    if output.is_dir() or not output.parent.is_dir():
        found = "is a directory" if output.is_dir() else "its folder does not exist"
        raise InvalidRequest(f"{output}: {found}; expected a file to write")
    if len(names) == 1:
        return [output]
    return [output.with_name(f"{output.stem}.{name}{output.suffix}") for name in names]


@contextmanager
def film_folder(output: Path | None) -> Iterator[Path]:
    """Where films grow: beside their place, so that a rename puts them there; gone afterwards.

    Raises: StorageError where it cannot be made or a film cannot be put in place.
    """
    try:
        home = None if output is None else output.parent
        with tempfile.TemporaryDirectory(prefix=".viseme-sync-", dir=home) as folder:
            yield Path(folder)
    except OSError as err:
        raise StorageError(f"the film could not be written ({err.strerror or err})") from err


def write_all(
    frames: Iterable[tuple[Frame, ...]], paths: list[Path], film: Plan, progress: Progress | None, clock: StageClock
) -> tuple[int, int]:
    """Write each frame into its film. Returns: width and height."""
    size, trimmer = (0, 0), HeapTrimmer()
    with ExitStack() as stack:
        writers: list[FilmWriter] = [stack.enter_context(write_film(path, film.fps, film.voice)) for path in paths]
        for n_done, each in enumerate(frames, 1):
            with clock.stage("encode"):
                for writer, frame in zip(writers, each, strict=True):
                    writer.add(frame)
            clock.check("encode")
            size = each[0].shape[1], each[0].shape[0]
            trimmer.count(each[0].nbytes)
            if progress is not None:
                progress(n_done, film.n_frames)
    return size
