"""Weights whose licence forbids redistribution: users download them themselves."""

from __future__ import annotations

from pathlib import Path

from inference.errors import WeightsNotFound
from inference.weights.registry import WeightSet
from inference.weights.sources import WeightSources

FOLDERS = ("", "checkpoints", "face_detection/detection/sfd")  # of a model directory, in upstream's layout


def find_user_supplied(weight_set: WeightSet, sources: WeightSources) -> Path:
    """Return the set's file in the model directory, else in the cache.

    Raises: WeightsNotFound naming the source and the places to put the file.
    """
    name = weight_set.files[0].name
    folders = [sources.model_dir / one for one in FOLDERS] if sources.model_dir else []
    for folder in (*folders, sources.cache / weight_set.name):
        if (folder / name).is_file():
            return folder / name
    raise WeightsNotFound(
        f"{name} does not come with Viseme (source: {weight_set.source}; licence: {weight_set.licence}): "
        f"pass its path or s3://bucket/key, or put it in SM_MODEL_DIR or "
        f"{sources.cache / weight_set.name}"
    )
