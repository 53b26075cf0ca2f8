"""Where avatars and their ears lie."""

from __future__ import annotations

from pathlib import Path

from inference.avatar.manifest import ENCODER, MANIFEST, Manifest
from inference.errors import AvatarNotFound, WeightsNotFound
from inference.settings import Settings
from inference.weights.brought import find_brought
from inference.weights.registry import AVE

STARTER = "starter"


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
    """Packages by name: those in VISEME_AVATARS, called by their folders."""
    if settings.avatars is None or not settings.avatars.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(settings.avatars.glob(f"*/{MANIFEST}"))}


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
