"""Lip sync requests."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inference.engines.answer import Answer
from inference.engines.callbacks import RequestCallbacks
from inference.engines.remote_files import RemoteFiles
from inference.errors import InvalidRequest, MediaTooLarge, StorageError, WeightsNotFound
from inference.lip_sync import BoxCache, LipSyncer, SyncOutput, SyncResult
from inference.lip_sync.deadlines import make_deadlines
from inference.locked_folders import LockedFolder
from inference.media import SandboxedDecoder
from inference.media.s3.download import local_name
from inference.media_types import SYNC_TYPES
from inference.memory_usage import MemoryWatch
from inference.requests import JSON, MP4, MediaSource, S3Object, SyncRequest
from inference.settings import Settings
from inference.stage_timer import StageClock

if TYPE_CHECKING:
    from inference.media.s3.upload import MultipartUpload

MAX_INLINE_BYTES = 18 << 20  # bytes of videos in one JSON answer: base64 adds a third, and SageMaker allows 25 MB
MAX_STEM = 60  # characters of a source's name that are part of a video's name
DIGEST_LENGTH = 12  # hexadecimal digits
logger = logging.getLogger("viseme.sync")


@dataclass(frozen=True)
class StoredVideo:
    """A video in S3."""

    bucket: str
    key: str
    url: str


@dataclass(frozen=True)
class SyncResponse:
    """The result of a lip sync request, before it is encoded. Its videos are on disk.

    stored: one entry per video if they were written to S3. owned_folder: the folder of the videos, deleted with
    this object unless the server owns it. is_brief: whether JSON is the short answer of `POST /api/generate`.
    """

    result: SyncResult
    memory: dict[str, float]
    stored: tuple[StoredVideo, ...] = ()
    owned_folder: OutputFolder | None = field(default=None, repr=False)
    is_brief: bool = False

    @property
    def media_types(self) -> tuple[str, ...]:
        """The media types it can be encoded as."""
        return SYNC_TYPES

    @property
    def videos(self) -> list[Path]:
        return [one.path for one in self.result.outputs if one.path is not None]

    def encode(self, media_type: str) -> Answer:
        """Encode as JSON, or return the only video as a file.

        Raises: InvalidRequest if there are several videos; MediaTooLarge if the videos do not fit into JSON.
        """
        if media_type == MP4:
            return Answer(self.only_video(), MP4, self.owned_folder)
        if media_type != JSON:
            raise InvalidRequest(f"{media_type}: expected one of {', '.join(SYNC_TYPES)}")
        return Answer(json.dumps(self.as_brief_dict() if self.is_brief else self.as_dict()).encode(), JSON)

    def only_video(self) -> Path:
        """Return the path of the only video. Raises: InvalidRequest if there are several."""
        if len(self.videos) != 1:
            raise InvalidRequest(f"{len(self.videos)} videos do not fit into one {MP4}; request one model, or JSON")
        return self.videos[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON values. Raises: MediaTooLarge if the videos are inline and too large for that."""
        found = self.result.as_dict()
        contents = self.contents_or_urls()
        outputs = [without_path(one) | other for one, other in zip(found["outputs"], contents, strict=True)]
        return {"status": "success"} | found | {"outputs": outputs, "memory": self.memory}

    def as_brief_dict(self) -> dict[str, Any]:
        """Return the short answer of `POST /api/generate`. Raises: the errors of `as_dict`."""
        (content,) = self.contents_or_urls()
        found = {"num_frames": self.result.num_frames, "duration_s": self.result.duration_s}
        return {"status": "success"} | content | found | {"warnings": list(self.result.warnings)}

    def contents_or_urls(self) -> list[dict[str, Any]]:
        """Return for each video its place in S3, or its bytes in base64. Raises: MediaTooLarge."""
        if self.stored:
            return [{"s3_bucket": one.bucket, "s3_key": one.key, "url": one.url} for one in self.stored]
        n_bytes = sum(path.stat().st_size for path in self.videos)
        if n_bytes > MAX_INLINE_BYTES:
            raise MediaTooLarge(
                f"the videos have {n_bytes} bytes, and at most {MAX_INLINE_BYTES} fit into JSON; use "
                f'"s3_output_prefix", or one model with Accept: {MP4}'
            )
        return [{"video": base64.b64encode(path.read_bytes()).decode()} for path in self.videos]


def without_path(output: dict[str, Any]) -> dict[str, Any]:
    """Return the output without its local path, which callers must not see."""
    return {name: value for name, value in output.items() if name != "path"}


class OutputFolder:
    """A folder for videos: a given one, or a temporary one that is deleted with this object."""

    def __init__(self, given: Path | None) -> None:
        """Use the given folder, or create a temporary one. Raises: StorageError if none can be created."""
        self._delete = None
        if given is not None:
            self.path = given
            return
        try:
            own = LockedFolder.make("viseme-video-")
        except OSError as err:
            raise StorageError(f"no folder for the videos could be created ({err.strerror or err})") from err
        self.path, self._delete = own.path, weakref.finalize(self, own.delete)

    def close(self) -> None:
        """Delete the folder, unless it was given."""
        if self._delete is not None:
            self._delete()


@contextmanager
def output_folder(given: Path | None) -> Iterator[OutputFolder]:
    """Yield a folder that outlives the context unless an error leaves it."""
    folder = OutputFolder(given)
    try:
        yield folder
    except BaseException:
        folder.close()
        raise


class SyncEngine:
    """Loaded checkpoints that run requests; without any, every request fails with what to install."""

    def __init__(self, syncer: LipSyncer | None, missing: str, settings: Settings, remote_files: RemoteFiles) -> None:
        """syncer: None if there are no weights; `missing` is then the error message of every request."""
        self.syncer = syncer
        self.missing = missing
        self._settings = settings
        self._remote_files = remote_files

    @classmethod
    def load(cls, settings: Settings, remote_files: RemoteFiles, decoder: SandboxedDecoder) -> SyncEngine:
        """Load the checkpoints of the deployment. If it names some, it is an error if they are missing.

        Raises: WrongWeights, DeviceUnavailable; WeightsNotFound, AccessDenied, StorageError for those it names.
        """
        # The reader's weights may be quantised and these not: "auto" runs each as stored.
        precision = "auto" if settings.precision == "int8" else settings.precision
        try:
            syncer = LipSyncer(
                checkpoints=None,
                device=settings.device,
                precision=precision,
                settings=settings,
                media=decoder.open,
                voice=decoder.spool_audio,
                tracks=BoxCache(settings.boxes_cache),
            )
        except WeightsNotFound as err:
            if settings.checkpoints:
                raise
            return cls(None, str(err), settings, remote_files)
        return cls(syncer, "", settings, remote_files)

    def warm_up(self) -> dict[str, Any]:
        """Run each checkpoint once. Returns: their names."""
        if self.syncer is None:
            return {"sync_models": []}
        self.syncer.warm_up()
        return {"sync_models": [one.name for one in self.syncer.generators]}

    def run(self, request: SyncRequest, callbacks: RequestCallbacks) -> SyncResponse:
        """Fetch media from S3 or URLs, make the videos, and write them to S3, as the request requires.

        Raises: WeightsNotFound, MediaError, StorageError, DeadlineExceeded; nothing is left behind then.
        """
        syncer = self._syncer_for(request)
        names = name_videos(request, [one.name for one in syncer.generators])
        targets = [(request.output, name) for name in names] if request.output is not None else []
        clock = StageClock(deadlines=make_deadlines(self._settings, callbacks.timeout_s), on_item=callbacks.check)

        def report(n_done: int, n_frames: int) -> None:
            callbacks.on_progress(n_done / n_frames)

        with ExitStack() as stack, MemoryWatch() as memory:
            with clock.stage("store"):  # starting the uploads checks, before any work, that they are allowed
                uploads = [stack.enter_context(self._remote_files.upload(*target, MP4)) for target in targets]
            with clock.stage("fetch"):
                face = stack.enter_context(self._remote_files.fetched(request.face, callbacks.check))
                audios = [
                    stack.enter_context(self._remote_files.fetched(one, callbacks.check)) for one in request.audios
                ]
            clock.check("fetch")
            folder = stack.enter_context(output_folder(callbacks.folder))
            synced = syncer.sync(face, audios, request.options, folder.path / "video.mp4", report, clock)
            with clock.stage("store"):
                stored = self._store(uploads, synced.outputs, request, clock)
        result = replace(synced, timings_ms=clock.as_ms())
        log_videos(result, callbacks.request_id)
        return SyncResponse(result, memory.as_mib(), stored, folder, request.is_brief)

    def _syncer_for(self, request: SyncRequest) -> LipSyncer:
        """Return a syncer with the models of the request. Raises: WeightsNotFound."""
        if self.syncer is None:
            raise WeightsNotFound(self.missing)
        return self.syncer.with_checkpoints(self.models_of(request))

    def models_of(self, request: SyncRequest) -> tuple[str, ...]:
        """Return the models of a request, or the deployment's first; they may not be loaded."""
        first = () if self.syncer is None else (self.syncer.generators[0].name,)
        return tuple(dict.fromkeys(request.models)) or first

    def _store(
        self, uploads: list[MultipartUpload], outputs: tuple[SyncOutput, ...], request: SyncRequest, clock: StageClock
    ) -> tuple[StoredVideo, ...]:
        """Write all videos to S3, or none: they appear when the last one is complete."""
        links = [self._remote_files.link_to(upload, is_presigned=request.is_presigned) for upload in uploads]
        for upload, one in zip(uploads, outputs if uploads else (), strict=True):
            assert one.path is not None
            upload.upload_file(one.path, lambda: clock.check("store"))
        for upload in uploads:
            upload.finish()
        return tuple(StoredVideo(each.bucket, each.key, link) for each, link in zip(uploads, links, strict=True))


def name_videos(request: SyncRequest, models: list[str]) -> list[str]:
    """Return the names of the stored videos: the names of their sources, and a digest of the whole request.

    So a repeated request replaces its own videos, and no caller can replace another object by name.
    """
    digest = hashlib.sha256()
    for part in (request.face, *request.audios, request.options):
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    stems = [stem_of(request.face, "face"), stem_of(request.audio, "voice")]
    return [".".join([*stems, digest.hexdigest()[:DIGEST_LENGTH], local_name(model), "mp4"]) for model in models]


def stem_of(source: MediaSource, otherwise: str) -> str:
    if isinstance(source, bytes):
        return otherwise
    name = source.key if isinstance(source, S3Object) else urlsplit(source.url).path
    return PurePosixPath(local_name(name)).stem[:MAX_STEM]


def log_videos(result: SyncResult, request_id: str | None) -> None:
    """Log one line per model."""
    for one in result.outputs:
        extra = {"model": one.model, "frames": one.num_frames, "ms_per_frame": one.ms_per_frame}
        logger.info("video made", extra=extra | {"request_id": request_id})
