"""Writing of packages, complete or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.atomic_write import atomic_folder
from inference.avatar import manifest as files
from inference.avatar.compose import CROP_SIDE, cut_crop
from inference.avatar.mattes import Matte, MatteWriter
from inference.errors import InvalidRequest, StorageError, UnsupportedMedia
from inference.faces import FaceBox
from inference.media import Frame
from inference.media.encode import write_video
from inference.weights.architectures import NetworkWeights
from inference.weights.checkpoint import write_arrays

FPS = 25


@dataclass
class PackageFrames:
    """Size and boxes of the frames written to a package."""

    width: int = 0
    height: int = 0
    boxes: list[FaceBox] = field(default_factory=list)

    def rows(self) -> list[tuple[int, int, int, int]]:
        """Return the boxes as plain numbers: left, top, right, bottom."""
        return [(int(box.left), int(box.top), int(box.right), int(box.bottom)) for box in self.boxes]


@dataclass(frozen=True)
class CroppedFrame:
    """A frame, (H, W, 3) uint8 BGR with even sides, and its face box, in whole pixels inside the frame.

    crop: (328, 328, 3); if None, it is cut from the frame. matte: (H, W) uint8, of all frames or of none.
    """

    frame: Frame
    box: FaceBox
    crop: Frame | None = None
    matte: Matte | None = None


@contextmanager
def atomic_package_folder(output: Path) -> Iterator[Path]:
    """Yield a folder to write to. It becomes `output` if the block succeeds, and is deleted if not.

    Raises: InvalidRequest if `output` exists and is not empty, even if it was created meanwhile; StorageError.
    """
    if output.exists() and not is_empty(output):
        raise output_exists(output)
    try:
        with atomic_folder(output) as folder:
            yield folder
    except OSError as err:
        if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise output_exists(output) from err
        raise StorageError(f"{output}: the package could not be written ({err.strerror or err})") from err


def is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def output_exists(output: Path) -> InvalidRequest:
    return InvalidRequest(f"{output}: already exists; expected a folder that does not exist yet")


def write_frames(folder: Path, frames: Iterable[CroppedFrame], name: str) -> PackageFrames:
    """Write the video and the crops of a package, frame by frame.

    Raises: UnsupportedMedia if the frame size changes.
    """
    written = PackageFrames()
    with (
        write_video(folder / files.BACKGROUND, FPS, is_seekable=True, is_rounded_down=True) as video,
        CropWriter(folder / files.CROPS) as crops,
        ExitStack() as stack,
    ):
        mattes: MatteWriter | None = None
        for cropped in frames:
            height, width = cropped.frame.shape[:2]
            if not written.boxes:
                written.width, written.height = width, height
            elif (width, height) != (written.width, written.height):
                raise UnsupportedMedia(
                    f"{name}: frame {len(written.boxes)} is {width}x{height}, those before "
                    f"{written.width}x{written.height}; expected one size"
                )
            video.add(cropped.frame)
            crops.add(cut_crop(cropped.frame, cropped.box) if cropped.crop is None else cropped.crop)
            if cropped.matte is not None:
                mattes = mattes or stack.enter_context(closing(MatteWriter(folder / files.MATTES)))
                mattes.add(cropped.matte)
            written.boxes.append(cropped.box)
    return written


class CropWriter:
    """Writer of a .npy array that grows crop by crop."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._n_crops = 0
        self._write_header()

    def add(self, crop: Frame) -> None:
        self._file.write(np.ascontiguousarray(crop, np.uint8).data)
        self._n_crops += 1

    def __enter__(self) -> CropWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        """Write the header. It has the same length for any number of crops: NumPy leaves room for it to grow."""
        shape = (self._n_crops, CROP_SIDE, CROP_SIDE, 3)
        described = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, described)


def write_networks(folder: Path, unet: NetworkWeights, encoder: NetworkWeights | None) -> None:
    write_arrays(unet.arrays, folder / files.NETWORK, {"architecture": "AvatarUNet"})
    if encoder is not None:
        about = {"architecture": "AudioVisualEncoder"}
        write_arrays(encoder.arrays, folder / files.ENCODER, about)


def write_features(folder: Path, features: npt.NDArray[np.float32]) -> None:
    np.save(folder / files.FEATURES, np.ascontiguousarray(features, np.float32))
