"""Weights that may not be passed on: each user brings their own."""

from __future__ import annotations

from pathlib import Path

from inference.errors import WeightsNotFound
from inference.weights.registry import WeightSet
from inference.weights.sources import WeightSources

FOLDERS = ("", "checkpoints", "face_detection/detection/sfd")  # of a model directory, as upstream lays them out


def find_brought(weight_set: WeightSet, sources: WeightSources) -> Path:
    """The set's file in the model directory, else in the cache. Raises: WeightsNotFound, saying how to bring it."""
    name = weight_set.files[0].name
    homes = [sources.model_dir / folder for folder in FOLDERS] if sources.model_dir else []
    for home in (*homes, sources.cache / weight_set.name):
        if (home / name).is_file():
            return home / name
    raise WeightsNotFound(
        f"{name} does not come with Viseme (licence: {weight_set.licence}): get it where it is published "
        f"({weight_set.source}), then give its path or s3://bucket/key, or put it into SM_MODEL_DIR or "
        f"{sources.cache / weight_set.name}"
    )
