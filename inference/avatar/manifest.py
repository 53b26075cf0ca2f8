"""The manifest of a package, manifest.json, validated before any of it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.audio.avatar_features import LAST_WINDOW
from inference.errors import AvatarNotFound, BadPackage
from inference.faces import FaceBox
from inference.weights.cache import sha256_of

MANIFEST, CROPS, BACKGROUND = "manifest.json", "crops328.npy", "background.mp4"
NETWORK, ENCODER, FEATURES = "network.safetensors", "audio_encoder.safetensors", "features.npy"
MATTES = "mattes.npz"  # of the frames: packages that have it can be shown without their background
REQUIRED_FILES = (CROPS, BACKGROUND, NETWORK)
OPTIONAL_FILES = (ENCODER, FEATURES, MATTES)
MAX_MANIFEST_BYTES = 64 << 20  # a box takes about 30 bytes
MAX_FRAMES = 100_000  # over an hour
MAX_SIDE = 8192

Side = Annotated[int, Field(ge=16, le=MAX_SIDE)]
Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE)]


class StrictModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileInfo(StrictModel):
    """Expected size and hash of a package file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    n_bytes: int = Field(ge=0)


class IdleRange(StrictModel):
    """Frames shown in silence, back and forth, from the first to the last.

    is_shut: their mouths are closed in the video, so they are shown unchanged; else the network closes them.
    """

    first: int = Field(ge=0)
    last: int = Field(ge=0)
    is_shut: bool


class Manifest(StrictModel):
    """Manifest of an avatar package. boxes: left, top, right, bottom in whole pixels, right and bottom exclusive."""

    format: Literal["viseme-avatar"] = "viseme-avatar"
    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")
    frames: int = Field(ge=1, le=MAX_FRAMES)
    fps: Literal[25] = 25
    width: Side
    height: Side
    mode: Literal["ave", "hubert", "wenet"]
    idle: IdleRange
    landmarks: str  # landmarker that the boxes were computed from
    feather: Annotated[int, Field(ge=0, le=64)] = 0  # px of the network's 320 that fade into the crop; 0 as upstream
    # Window of the last of a frame's 16 rows of features, counted from the frame; 6 as upstream. See avatar_features.
    look_ahead_windows: Annotated[int, Field(ge=-1, le=LAST_WINDOW)] = LAST_WINDOW
    made_from: dict[str, str]  # name and SHA-256 of each source file
    files: dict[str, FileInfo]
    boxes: list[tuple[Pixels, Pixels, Pixels, Pixels]]

    @model_validator(mode="after")
    def check_consistency(self) -> Manifest:
        if len(self.boxes) != self.frames:
            raise ValueError(f"{len(self.boxes)} boxes for {self.frames} frames")
        for i, (left, top, right, bottom) in enumerate(self.boxes):
            if not (left < right <= self.width and top < bottom <= self.height):
                raise ValueError(
                    f"box {i}, {left},{top},{right},{bottom}, is outside frames of {self.width}x{self.height}"
                )
        if not self.idle.first <= self.idle.last < self.frames:
            raise ValueError(f"idle frames {self.idle.first} to {self.idle.last} of {self.frames}")
        missing = [name for name in REQUIRED_FILES if name not in self.files]
        unknown = [name for name in self.files if name not in (*REQUIRED_FILES, *OPTIONAL_FILES)]
        if missing or unknown:
            raise ValueError(f"files: {', '.join(missing) or 'none'} missing, {', '.join(unknown) or 'none'} unknown")
        return self

    def box(self, index: int) -> FaceBox:
        return FaceBox(*self.boxes[index])


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest. Raises: AvatarNotFound if there is no package, BadPackage if the manifest is invalid."""
    path = folder / MANIFEST
    if not path.is_file():
        raise AvatarNotFound(f"{folder}: no {MANIFEST} in it; expected the folder of an avatar package")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadPackage(f"{path}: {path.stat().st_size} bytes; at most {MAX_MANIFEST_BYTES} expected")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadPackage(f"{path}: {where + ': ' if where else ''}{first['msg']}") from err


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check size and hash of every file. Raises: BadPackage if one is missing or differs from the manifest."""
    for name, info in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BadPackage(f"{folder}: {name} is missing")
        if path.stat().st_size != info.n_bytes:
            raise BadPackage(f"{path}: {path.stat().st_size} bytes; expected {info.n_bytes}")
        if (found := sha256_of(path)) != info.sha256:
            raise BadPackage(f"{path}: has SHA-256 {found}; expected {info.sha256}")


def describe_files(folder: Path) -> dict[str, FileInfo]:
    """Return size and hash of the files of a package that is being written."""
    paths = [folder / name for name in (*REQUIRED_FILES, *OPTIONAL_FILES) if (folder / name).is_file()]
    return {path.name: FileInfo(sha256=sha256_of(path), n_bytes=path.stat().st_size) for path in paths}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of a package: without it the folder is not a package.

    The look-ahead is left out if it is that of published avatars, so that earlier versions, which forbid unknown keys,
    read the package.
    """
    usual = {"look_ahead_windows"} if manifest.look_ahead_windows == LAST_WINDOW else None
    text = json.dumps(manifest.model_dump(mode="json", exclude=usual), indent=1)
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
