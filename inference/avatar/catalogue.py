"""Lookup of avatars by name, and of their audio encoders."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.avatar.manifest import ENCODER, MANIFEST, Manifest
from inference.avatar.starter import MADE_IN, STARTER, starter_folder
from inference.errors import AvatarNotFound, StorageError, WeightsNotFound
from inference.settings import Settings
from inference.weights.registry import AVE
from inference.weights.user_supplied import find_user_supplied

logger = logging.getLogger("viseme.avatar")


def find_folder(path: str | Path, settings: Settings) -> Path:
    """Return the folder of a package, given its path or its name. Raises: AvatarNotFound, StorageError."""
    folder = Path(path)
    if isinstance(path, Path) or folder.is_dir() or "/" in path:
        return folder
    return find_named(path, settings, "no such folder and no such name")


def find_named(name: str, settings: Settings, reason: str = "no such name") -> Path:
    """Return the folder of a package, given its name. The starter is generated only if its name is requested.

    Raises: AvatarNotFound with that reason, StorageError.
    """
    user_avatars = list_user_avatars(settings)
    if name in user_avatars:
        return user_avatars[name]
    if name == STARTER:
        return find_starter(settings)
    known = ", ".join([*user_avatars, *([] if STARTER in user_avatars else [STARTER])])
    raise AvatarNotFound(f"avatar {name[:80]!r}: {reason}; known: {known}")


def list_avatars(settings: Settings) -> dict[str, Path]:
    """Return packages by name: those in VISEME_AVATARS, named after their folders, and `starter`.

    The starter is generated if it does not exist yet. It is left out, with a warning, if the data directory cannot
    store it.
    """
    found = list_user_avatars(settings)
    if STARTER not in found:
        try:
            found = {STARTER: find_starter(settings)} | found
        except StorageError as err:
            logger.warning("the avatar %s cannot be generated: %s", STARTER, err)
    return found


def list_user_avatars(settings: Settings) -> dict[str, Path]:
    """Return the packages in VISEME_AVATARS by name."""
    manifests = sorted(settings.avatars.glob(f"*/{MANIFEST}")) if settings.avatars is not None else []
    return {path.parent.name: path.parent for path in manifests}


def find_starter(settings: Settings) -> Path:
    return starter_folder(settings.data_dir)


def is_starter(folder: Path, settings: Settings) -> bool:
    """Return whether a folder is a package that was generated here, and so can be generated again."""
    return folder.parent == settings.data_dir / MADE_IN and folder.name.startswith(f"{STARTER}-")


def find_encoder(folder: Path, manifest: Manifest, settings: Settings) -> Path | None:
    """Return the package's audio encoder, else the deployment's, else None."""
    if manifest.mode != "ave":
        return None
    if ENCODER in manifest.files:
        return folder / ENCODER
    try:
        return find_user_supplied(AVE, settings.weight_sources)
    except WeightsNotFound:
        return None
