"""Where avatars and their ears lie."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.avatar.manifest import ENCODER, MANIFEST, Manifest
from inference.avatar.starter import MADE_IN, STARTER, starter_folder
from inference.errors import AvatarNotFound, StorageError, WeightsNotFound
from inference.settings import Settings
from inference.weights.registry import AVE
from inference.weights.user_supplied import find_brought

logger = logging.getLogger(__name__)


def find_folder(path: str | Path, settings: Settings) -> Path:
    """The folder of a package, given its path or its name. Raises: AvatarNotFound, StorageError."""
    folder = Path(path)
    if isinstance(path, Path) or folder.is_dir() or "/" in path:
        return folder
    return find_named(path, settings, "no such folder and no such name")


def find_named(name: str, settings: Settings, reason: str = "there is none of that name") -> Path:
    """The same by its name alone. The starter is made where it is meant, and not where another is, or nobody.

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
    """Packages by name: those in VISEME_AVATARS, called by their folders; and `starter`, which is made now where it is
    not there, and left out, with a warning, where the data directory cannot hold it.
    """
    found = list_user_avatars(settings)
    if STARTER not in found:
        try:
            found = {STARTER: find_starter(settings)} | found
        except StorageError as err:
            logger.warning("the avatar %s cannot be made: %s", STARTER, err)
    return found


def list_user_avatars(settings: Settings) -> dict[str, Path]:
    """Those in VISEME_AVATARS."""
    user_avatars = sorted(settings.avatars.glob(f"*/{MANIFEST}")) if settings.avatars is not None else []
    return {path.parent.name: path.parent for path in user_avatars}


def find_starter(settings: Settings) -> Path:
    return starter_folder(settings.data_dir)


def is_starter(folder: Path, settings: Settings) -> bool:
    """Whether a folder is a package that was made here, and can be made again."""
    return folder.parent == settings.data_dir / MADE_IN and folder.name.startswith(f"{STARTER}-")


def find_encoder(folder: Path, manifest: Manifest, settings: Settings) -> Path | None:
    """The package's own, else the one that the deployment brought; None where there is none."""
    if manifest.mode != "ave":
        return None
    if ENCODER in manifest.files:
        return folder / ENCODER
    try:
        return find_brought(AVE, settings.weight_sources)
    except WeightsNotFound:
        return None
