"""Lip sync by request."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from inference.engines.bucket import Buckets
from inference.engines.hooks import Hooks
from inference.errors import InvalidRequest, MediaTooLarge, StorageError, WeightsNotFound
from inference.footprint import MemoryWatch
from inference.lip_sync import LipSyncer, SyncOutput, SyncResult, TrackCache
from inference.lip_sync.deadlines import deadlines_of
from inference.media import MediaChild
from inference.media.fetch import local_name
from inference.requests import JSON, MP4, S3Object, SyncRequest
from inference.requests.answers import SYNC_ANSWERS
from inference.settings import Settings
from inference.stages import StageClock

if TYPE_CHECKING:
    from inference.media.store import Upload

MOST_INLINE = 18 << 20  # bytes of films in one answer: in base64 a third more, and SageMaker passes on 25 MB
STEM = 60  # characters of a source's name that a film is called by
DIGEST = 12
LOG = logging.getLogger("viseme.sync")


@dataclass(frozen=True)
class StoredFilm:
    """Where a film lies in S3."""

    bucket: str
    key: str
    url: str


@dataclass(frozen=True)
class Synced:
    """What a request came to, before it is put into a form. Its films are on disk.

    stored: one for each film, where they went to S3. kept: what goes with the answer, and takes the films along.
    """

    result: SyncResult
    memory: dict[str, float]
    stored: tuple[StoredFilm, ...] = ()
    kept: FilmFolder | None = field(default=None, repr=False)

    @property
    def answers(self) -> tuple[str, ...]:
        """The forms it can be put into."""
        return SYNC_ANSWERS

    @property
    def films(self) -> list[Path]:
        return [one.path for one in self.result.outputs if one.path is not None]

    def encode(self, form: str) -> bytes:
        """The answer as JSON, or the one film itself.

        Raises: InvalidRequest, MediaTooLarge where the films are too large for JSON.
        """
        if form == MP4:
            return self.film().read_bytes()
        if form != JSON:
            raise InvalidRequest(f"answer {form}: not spoken here")
        return json.dumps(self.as_dict()).encode()

    def film(self) -> Path:
        """The one there is. Raises: InvalidRequest where there are several."""
        if len(self.films) != 1:
            raise InvalidRequest(f"{len(self.films)} films do not fit into one {MP4}; ask for one model, or JSON")
        return self.films[0]

    def as_dict(self) -> dict[str, Any]:
        """Raises: MediaTooLarge where films would come inline and are too large for that."""
        found = self.result.as_dict()
        places = self.where_to_find()
        outputs = [without_path(one) | place for one, place in zip(found["outputs"], places, strict=True)]
        return {"status": "success"} | found | {"outputs": outputs, "memory": self.memory}

    def as_generated(self) -> dict[str, Any]:
        """The short answer of `POST /api/generate`. Raises: as `as_dict`."""
        (place,) = self.where_to_find()
        found = {"num_frames": self.result.num_frames, "duration_s": self.result.duration_s}
        return {"status": "success"} | place | found | {"warnings": list(self.result.warnings)}

    def where_to_find(self) -> list[dict[str, Any]]:
        """For each film where it lies in S3, or its bytes in base64. Raises: MediaTooLarge."""
        if self.stored:
            return [{"s3_bucket": one.bucket, "s3_key": one.key, "url": one.url} for one in self.stored]
        n_bytes = sum(path.stat().st_size for path in self.films)
        if n_bytes > MOST_INLINE:
            raise MediaTooLarge(
                f"the films are of {n_bytes} bytes, and at most {MOST_INLINE} fit into JSON; ask for "
                f'"s3_output_prefix", or for one model with Accept: {MP4}'
            )
        return [{"video": base64.b64encode(path.read_bytes()).decode()} for path in self.films]


def without_path(output: dict[str, Any]) -> dict[str, Any]:
    """Where a film lies on our disk is none of a caller's business."""
    return {name: value for name, value in output.items() if name != "path"}


class FilmFolder:
    """A folder for films: one that was given, or one of our own that goes when nobody holds this any more."""

    def __init__(self, given: Path | None) -> None:
        """Raises: StorageError where none can be made."""
        try:
            self.path = given or Path(tempfile.mkdtemp(prefix="viseme-film-"))
        except OSError as err:
            raise StorageError(f"the films could not be kept ({err.strerror or err})") from err
        self._clear = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True) if given is None else None

    def close(self) -> None:
        """Clear away what is ours."""
        if self._clear is not None:
            self._clear()


@contextmanager
def film_folder(given: Path | None) -> Iterator[FilmFolder]:
    """The folder, which outlives this unless something fails."""
    folder = FilmFolder(given)
    try:
        yield folder
    except BaseException:
        folder.close()
        raise


class SyncEngine:
    """Loaded checkpoints that answer requests; where there are none, they say how to bring some."""

    def __init__(self, syncer: LipSyncer | None, missing: str, settings: Settings, buckets: Buckets) -> None:
        """syncer: None where there are no weights, which `missing` says."""
        self.syncer = syncer
        self._missing = missing
        self._settings = settings
        self._buckets = buckets

    @classmethod
    def load(cls, settings: Settings, buckets: Buckets, child: MediaChild) -> SyncEngine:
        """The checkpoints that the deployment brought. None at all are no fault; wrong ones are.

        Raises: WrongWeights, DeviceUnavailable.
        """
        # The reader's weights may be quantised where these are not: "auto" runs each as it is.
        precision = "auto" if settings.precision == "int8" else settings.precision
        try:
            syncer = LipSyncer(
                checkpoints=None,
                device=settings.device,
                precision=precision,
                settings=settings,
                media=child.open,
                voice=child.read_voice,
                tracks=TrackCache(settings.tracks_cache),
            )
        except WeightsNotFound as err:
            return cls(None, str(err), settings, buckets)
        return cls(syncer, "", settings, buckets)

    def measure(self) -> dict[str, Any]:
        """Which checkpoints there are, after each was run."""
        if self.syncer is None:
            return {"sync_models": []}
        self.syncer.warm_up()
        return {"sync_models": [one.name for one in self.syncer.generators]}

    def run(self, request: SyncRequest, hooks: Hooks) -> Synced:
        """Fetch what has to be fetched, make the films, store them where that is asked for.

        Raises: WeightsNotFound, MediaError, StorageError, DeadlineExceeded; nothing is left behind then.
        """
        syncer = self._choose(request)
        names = name_films(request, [one.name for one in syncer.generators])
        places = [(request.output, name) for name in names] if request.output is not None else []
        clock = StageClock(deadlines=deadlines_of(self._settings, hooks.within_s), on_item=hooks.check)
        with ExitStack() as stack, MemoryWatch() as memory:
            with clock.stage("store"):  # whether the films may be stored is known before any work is done
                uploads = [stack.enter_context(self._buckets.upload(*place, MP4)) for place in places]
            with clock.stage("fetch"):
                face = stack.enter_context(self._buckets.fetched(request.face))
                audio = stack.enter_context(self._buckets.fetched(request.audio))
            clock.check("fetch")
            kept = stack.enter_context(film_folder(hooks.folder))
            made = syncer.sync(face, audio, request.options, kept.path / "film.mp4", hooks.progress, clock)
            with clock.stage("store"):
                stored = self._store(uploads, made.outputs, request, clock)
        result = replace(made, timings_ms=clock.as_ms())
        report(result, hooks.request_id)
        return Synced(result, memory.as_mib(), stored, kept)

    def _choose(self, request: SyncRequest) -> LipSyncer:
        """Raises: WeightsNotFound."""
        if self.syncer is None:
            raise WeightsNotFound(self._missing)
        return self.syncer.having(request.models or [self.syncer.generators[0].name])

    def _store(
        self, uploads: list[Upload], outputs: tuple[SyncOutput, ...], request: SyncRequest, clock: StageClock
    ) -> tuple[StoredFilm, ...]:
        """All of them, or none: they appear when the last one is over there whole."""
        links = [self._buckets.link_to(upload, is_presigned=request.is_presigned) for upload in uploads]
        for upload, one in zip(uploads, outputs if uploads else (), strict=True):
            assert one.path is not None
            upload.send(one.path, lambda: clock.check("store"))
        for upload in uploads:
            upload.finish()
        return tuple(StoredFilm(each.bucket, each.key, link) for each, link in zip(uploads, links, strict=True))


def name_films(request: SyncRequest, models: list[str]) -> list[str]:
    """Names under which films are stored: like their sources, and by a digest of all that was asked.

    So a request that is repeated replaces its own films, and no caller can replace another object by name.
    """
    asked = hashlib.sha256()
    for part in (request.face, request.audio, request.options):
        asked.update(part if isinstance(part, bytes) else repr(part).encode())
    stems = [stem_of(request.face, "face"), stem_of(request.audio, "voice")]
    return [".".join([*stems, asked.hexdigest()[:DIGEST], local_name(model), "mp4"]) for model in models]


def stem_of(source: S3Object | bytes, otherwise: str) -> str:
    return PurePosixPath(local_name(source.key)).stem[:STEM] if isinstance(source, S3Object) else otherwise


def report(result: SyncResult, request_id: str | None) -> None:
    """A line of the log for each model."""
    for one in result.outputs:
        about = {"model": one.model, "frames": one.num_frames, "ms_per_frame": one.ms_per_frame}
        LOG.info("film made", extra=about | {"request_id": request_id})
