"""The files of lip sync videos: their names, and the frames written to them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from inference.errors import InvalidRequest, StorageError
from inference.lip_sync.timeline import SyncTimeline
from inference.locked_folders import locked_folder
from inference.malloc_trim import HeapTrimmer
from inference.media import Frame
from inference.media.encode import SUFFIXES, VideoWriter, write_video
from inference.stage_timer import StageClock

# Called with the number of frames written so far, and of all.
ProgressCallback = Callable[[int, int], None]

STAGING_PREFIX = ".viseme-sync-"
MAX_NAME_BYTES = 255  # of a file's name, on Linux and macOS


def name_outputs(output: Path | None, names: list[str]) -> list[Path]:
    """Return one output path per checkpoint. Raises: InvalidRequest if one cannot be written."""
    output = output or Path("video.mp4")
    if output.suffix.lower() not in SUFFIXES:
        raise InvalidRequest(f"{output.name}: cannot write this kind of file; expected one of {', '.join(SUFFIXES)}")
    if output.is_dir() or not output.parent.is_dir():
        found = "is a directory" if output.is_dir() else "its folder does not exist"
        raise InvalidRequest(f"{output}: {found}; expected a file to write")
    if len(names) == 1:
        return [output]
    paths = [output.with_name(f"{output.stem}.{name}{output.suffix}") for name in names]
    if (n_bytes := max(len(os.fsencode(path.name)) for path in paths)) > MAX_NAME_BYTES:
        raise InvalidRequest(f"{output.name}: with a checkpoint, a name of {n_bytes} bytes; expected at most 255")
    return paths


@contextmanager
def staging_folder(output: Path | None) -> Iterator[Path]:
    """Provide a temporary folder for unfinished videos, beside the output so that a rename moves them into place.

    Raises: StorageError if the folder cannot be made or a video cannot be moved into place.
    """
    try:
        if output is None:
            with locked_folder(STAGING_PREFIX) as folder:
                yield folder
            return
        with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=output.parent) as beside:
            yield Path(beside)
    except OSError as err:
        raise StorageError(f"the video could not be written ({err.strerror or err})") from err


def write_videos(
    frames: Iterable[tuple[Frame, ...]],
    paths: list[Path],
    timeline: SyncTimeline,
    progress: ProgressCallback | None,
    clock: StageClock,
    encoder: str,
) -> tuple[int, int]:
    """Write each frame to its video. encoder: auto, libx264 or h264_nvenc. Returns: width and height."""
    size, trimmer = (0, 0), HeapTrimmer()
    with ExitStack() as stack:
        writers: list[VideoWriter] = [
            stack.enter_context(
                write_video(
                    path,
                    timeline.fps,
                    timeline.audio,
                    is_rounded_down=timeline.is_rounded_down,
                    primaries=timeline.primaries,
                    encoder=encoder,
                )
            )
            for path in paths
        ]
        for n_done, each in enumerate(frames, 1):
            with clock.stage("encode"):
                for writer, frame in zip(writers, each, strict=True):
                    writer.add(frame)
            clock.check("encode")
            size = each[0].shape[1], each[0].shape[0]
            trimmer.count(each[0].nbytes)
            if progress is not None:
                progress(n_done, timeline.n_frames)
    return size
