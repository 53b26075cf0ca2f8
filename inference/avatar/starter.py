"""The avatar that is shipped: its weights come with Viseme, its pictures are drawn when it is first used.

Above the jobs, since it joins two of them: the synthetic speaker sits for the avatar.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

from inference.avatar.crop_box import crop_box_from_landmarks, fit_box
from inference.avatar.manifest import ENCODER, MANIFEST, NETWORK, IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.write import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.errors import StorageError
from inference.rendering.portrait import STARTER_FRAMES, STARTER_SIDE, Portrait
from inference.weights.cache import check_hash
from inference.weights.registry import STARTER_AVATAR, WeightSet

STARTER = "starter"  # its name
MADE_IN = "avatars"  # folder of the data directory that generated packages are in
FEATHER = 16  # px
KEY_LENGTH = 16  # letters of a hash


def starter_folder(data_dir: Path, weights: WeightSet = STARTER_AVATAR, n_frames: int = STARTER_FRAMES) -> Path:
    """The starter's package in the data directory, made now where it is not there: that takes some seconds.

    Several processes may ask at once: one makes it, the others wait. Another Viseme that draws or paints otherwise
    makes another one. Raises: WrongWeights, StorageError.
    """
    folder = data_dir / MADE_IN / f"{STARTER}-{cache_key(weights, n_frames)}"
    if not (folder / MANIFEST).is_file():
        with lock_beside(folder):
            if not (folder / MANIFEST).is_file():
                make_starter(folder, weights, n_frames)
    return folder


def discard(folder: Path) -> None:
    """Take a package that is damaged out of the data directory. Raises: StorageError."""
    try:
        with lock_beside(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as err:
        raise StorageError(f"{folder}: could not be removed ({err.strerror or err})") from err


@cache
def cache_key(weights: WeightSet, n_frames: int) -> str:
    """Of all that the package is made of: the weights' bytes, and how the speaker is drawn, by the first picture."""
    digest = hashlib.sha256(repr([(file.name, file.sha256) for file in weights.files]).encode())
    digest.update(f"{n_frames} {STARTER_SIDE} {FEATHER} {sorted(Manifest.model_fields)}".encode())
    (first,) = islice(Portrait().idle_frames(), 1)
    digest.update(first.frame.tobytes())
    return digest.hexdigest()[:KEY_LENGTH]


def make_starter(output: Path, weights: WeightSet, n_frames: int) -> None:
    assert weights.shipped_in is not None
    for file in weights.files:
        check_hash(weights.shipped_in / file.name, file)
    unet, encoder = read_unet(weights.shipped_in / NETWORK), read_encoder(weights.shipped_in / ENCODER)
    with atomic_package_folder(output) as folder:
        written = write_frames(folder, cropped_idle_frames(n_frames), STARTER)
        write_networks(folder, unet, encoder)
        manifest = Manifest(
            name=STARTER,
            frames=n_frames,
            width=written.width,
            height=written.height,
            mode="ave",
            idle=IdleRange(first=0, last=n_frames - 1, is_shut=True),
            landmarks="drawn",
            feather=FEATHER,
            made_from={file.name: str(file.sha256) for file in weights.files},
            files=describe_files(folder),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)


def cropped_idle_frames(n_frames: int) -> Iterator[CroppedFrame]:
    """The speaker with the mouth at rest, framed by what is known of each picture."""
    for shot in Portrait().idle_frames(n_frames):
        height, width = shot.frame.shape[:2]
        yield CroppedFrame(shot.frame, fit_box(crop_box_from_landmarks(shot.landmarks[0]), width, height, STARTER))


@contextmanager
def lock_beside(folder: Path) -> Iterator[None]:
    """One process at a time. Raises: StorageError where the data directory cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as err:
        raise StorageError(f"{folder.parent}: the avatar cannot be made there ({err.strerror or err})") from err
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which lets go of it
