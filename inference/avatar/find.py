"""Where avatars and their ears lie."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.avatar.manifest import ENCODER, MANIFEST, Manifest
from inference.errors import AvatarNotFound, StorageError, WeightsNotFound
from inference.settings import Settings
from inference.weights.brought import find_brought
from inference.weights.registry import AVE

logger = logging.getLogger(__name__)

STARTER, MADE_IN = "starter", "avatars"  # the avatar that is shipped, and where in the data directory it is made


def find_folder(path: str | Path, settings: Settings) -> Path:
    """The folder of a package, given its path or its name. Raises: AvatarNotFound."""
    folder = Path(path)
    if isinstance(path, Path) or folder.is_dir() or "/" in path:
        return folder
    known = list_avatars(settings)
    if path in known:
        return known[path]
    raise AvatarNotFound(f"avatar {path!r}: no such folder and no such name; known: {', '.join(known) or 'none'}")


def list_avatars(settings: Settings) -> dict[str, Path]:
    """Packages by name: those in VISEME_AVATARS, called by their folders; and `starter`, which is made now where it is
    not there, and left out, with a warning, where the data directory cannot hold it.
    """
    theirs = sorted(settings.avatars.glob(f"*/{MANIFEST}")) if settings.avatars is not None else []
    found = {path.parent.name: path.parent for path in theirs}
    if STARTER not in found:
        try:
            found = {STARTER: find_starter(settings)} | found
        except StorageError as err:
            logger.warning("the avatar %s cannot be made: %s", STARTER, err)
    return found


def find_starter(settings: Settings) -> Path:
    from inference.starter_avatar import starter_folder  # above this room: the speaker sits for it

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
