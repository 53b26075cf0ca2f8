"""Mattes of packages, and frames that are sent without their background."""

from __future__ import annotations

import asyncio
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from container.live.frame_clock import FrameClock
from container.live.frame_encoder import FrameEncoder
from container.live.frame_messages import PATCH, WHOLE
from container.live.session import LiveSession
from container.live.session_options import SessionOptions
from inference.avatar import AvatarPackage
from inference.avatar.manifest import MATTES, describe_files, read_manifest, write_manifest
from inference.avatar.mattes import MatteArchive, MatteWriter
from inference.errors import BadPackage, InvalidRequest

SHAPE = (6, 8)


def matte_of(i: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a matte whose left columns are background; how many tells the frame."""
    matte = np.full(shape, 255, np.uint8)
    matte[:, : i + 1] = 0
    return matte


def write(path: Path, mattes: list[np.ndarray]) -> Path:
    writer = MatteWriter(path)
    for matte in mattes:
        writer.add(matte)
    writer.close()
    return path


def test_mattes_are_read_as_they_were_written(tmp_path: Path):
    archive = MatteArchive(write(tmp_path / MATTES, [matte_of(i) for i in range(3)]), 3, 8, 6)
    for i in (2, 0, 1):
        np.testing.assert_array_equal(archive.read(i), matte_of(i))


def test_archives_of_other_frames_are_rejected(tmp_path: Path):
    path = write(tmp_path / MATTES, [matte_of(0), matte_of(1, (8, 6))])
    with pytest.raises(BadPackage, match="2 mattes; expected those of 3 frames"):
        MatteArchive(path, 3, 8, 6)
    with pytest.raises(BadPackage, match=r"frame 1 has uint8 of \(8, 6\); expected uint8 of \(6, 8\)"):
        MatteArchive(path, 2, 8, 6).read(1)
    path.write_bytes(b"no archive")
    with pytest.raises(BadPackage, match="not an archive"):
        MatteArchive(path, 2, 8, 6)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.npy", b"\x93NUMPY\x01\x00 short")
    with pytest.raises(BadPackage, match="frame 0 is damaged"):
        MatteArchive(path, 1, 8, 6).read(0)


@pytest.fixture(scope="module")
def package(avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AvatarPackage]:
    """The tiny avatar with mattes: of each frame, its left 150 columns are background."""
    folder = tmp_path_factory.mktemp("mattes") / "drawn"
    shutil.copytree(avatar_folder, folder)
    manifest = read_manifest(folder)
    write(folder / MATTES, [matte_of(149, (manifest.height, manifest.width))] * manifest.frames)
    write_manifest(folder, manifest.model_copy(update={"files": describe_files(folder)}))
    package = AvatarPackage.load(folder, device="cpu", precision="f32")
    yield package
    package.close()


def decode(webp: bytes) -> np.ndarray:
    """Return an image: (H, W, 4) BGRA."""
    return np.asarray(cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("kind", [PATCH, WHOLE])
def test_frames_are_sent_without_their_background(package: AvatarPackage, kind: int):
    timed = package.session().idle()
    message = FrameEncoder(package).make_message(timed, kind, with_alpha=True)
    image = decode(message.jpeg)
    assert image.shape == (message.h, message.w, 4)
    expected = matte_of(149, (package.height, package.width))
    np.testing.assert_array_equal(
        image[..., 3], expected[message.y : message.y + message.h, message.x :][:, : message.w]
    )
    whole = package.compose_frame(timed)[message.y : message.y + message.h, message.x : message.x + message.w]
    seen = image[..., 3] == 255
    assert np.abs(image[seen][:, :3].astype(int) - whole[seen]).mean() < 4  # WebP is lossy
    assert message.jpeg[:4] == (b"RIFF" if kind == PATCH else b"\x89PNG")


def test_a_package_without_mattes_cannot_be_shown_so(avatar_package: AvatarPackage):
    async def run() -> None:
        encoder, options = FrameEncoder(avatar_package), SessionOptions.parse({"alpha": "1"})
        LiveSession(avatar_package, encoder, options, asyncio.to_thread, FrameClock())

    with pytest.raises(InvalidRequest, match="alpha=1: drawn has no mattes; expected an avatar that has"):
        asyncio.run(run())
    with pytest.raises(InvalidRequest, match=r"has no mattes; expected an avatar with mattes\.npz"):
        avatar_package.matte(0)
