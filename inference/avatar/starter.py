"""The bundled avatar: its weights are shipped with Viseme, its frames are rendered when it is first used."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np

import inference.rendering
from inference.avatar.crop_box import crop_box_from_landmarks, fit_box
from inference.avatar.manifest import ENCODER, MANIFEST, NETWORK, IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.write_package import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.errors import StorageError
from inference.rendering.portrait import STARTER_FRAMES, STARTER_SIDE, Portrait
from inference.weights.cache import check_hash
from inference.weights.registry import STARTER_AVATAR, WeightSet

STARTER = "starter"  # name of the bundled avatar
MADE_IN = "avatars"  # folder of the data directory that generated packages are in
RENDERER = Path(inference.rendering.__file__).parent  # the code and data that draw the frames
LOOK_AHEAD_WINDOWS = 1  # of the audio networks
FEATHER = 16  # px that fade into the crop
KEY_LENGTH = 16  # hex digits of the hash


def starter_folder(data_dir: Path, weights: WeightSet = STARTER_AVATAR, n_frames: int = STARTER_FRAMES) -> Path:
    """Return the starter's package in the data directory. If it does not exist, generate it, which takes some seconds.

    Several processes may call this at once: one generates the package, the others wait. A Viseme version that renders
    or generates differently makes another package. Raises: WrongWeights, StorageError.
    """
    folder = data_dir / MADE_IN / f"{STARTER}-{cache_key(weights, n_frames)}"
    if not (folder / MANIFEST).is_file():
        with lock_beside(folder):
            if not (folder / MANIFEST).is_file():
                make_starter(folder, weights, n_frames)
    return folder


def discard(folder: Path) -> None:
    """Delete a damaged package from the data directory. Raises: StorageError."""
    try:
        with lock_beside(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as err:
        raise StorageError(f"{folder}: could not be removed ({err.strerror or err})") from err


@cache
def cache_key(weights: WeightSet, n_frames: int) -> str:
    """Return a hash of everything the package is made of: the weights' bytes, and the renderer, by its files.

    To render a frame instead would take half a second at each start.
    """
    digest = hashlib.sha256(repr([(file.name, file.sha256) for file in weights.files]).encode())
    digest.update(f"{n_frames} {STARTER_SIDE} {FEATHER} {LOOK_AHEAD_WINDOWS} {sorted(Manifest.model_fields)}".encode())
    digest.update(f"{np.__version__} {cv2.__version__}".encode())
    for path in sorted(path for path in RENDERER.rglob("*") if path.suffix in (".py", ".npz")):
        digest.update(path.relative_to(RENDERER).as_posix().encode() + path.read_bytes())
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
            look_ahead_windows=LOOK_AHEAD_WINDOWS,
            made_from={file.name: str(file.sha256) for file in weights.files},
            files=describe_files(folder),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)


def cropped_idle_frames(n_frames: int) -> Iterator[CroppedFrame]:
    """Yield the person with the mouth at rest, with boxes from each frame's exact landmarks, and exact mattes."""
    for rendered, matte in Portrait().idle_mattes(n_frames):
        height, width = rendered.frame.shape[:2]
        box = fit_box(crop_box_from_landmarks(rendered.landmarks[0]), width, height, STARTER)
        yield CroppedFrame(rendered.frame, box, matte=matte)


@contextmanager
def lock_beside(folder: Path) -> Iterator[None]:
    """Let one process in at a time. Raises: StorageError if the data directory cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as err:
        raise StorageError(f"{folder.parent}: the avatar cannot be generated there ({err.strerror or err})") from err
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # releases the lock
