"""Fetches weight sets to the cache."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.errors import VisemeError, WeightsNotFound, WrongWeights
from inference.weights import hub
from inference.weights.cache import check_hash, discard, locate, path_of
from inference.weights.mediapipe_wheel import fetch_mediapipe
from inference.weights.registry import WeightFile, WeightSet, find_set
from inference.weights.sources import WeightSources, as_sources
from inference.weights.user_supplied import find_user_supplied

logger = logging.getLogger("viseme.weights")


def fetch(name: str, sources: WeightSources | Path) -> list[Path]:
    """Return the files of a set, fetched to the cache if they are missing or damaged there.

    Raises: WeightsNotFound if there is no such set or it cannot be fetched, WrongWeights if a file's hash is not the
    registry's, StorageError if the network failed.
    """
    weight_set, sources = find_set(name), as_sources(sources)
    if weight_set.is_user_supplied:
        return [find_user_supplied(weight_set, sources)]
    try:
        return [locate(weight_set, file, sources.cache) for file in weight_set.files]
    except VisemeError:
        if weight_set.shipped_in is not None:
            raise
    if weight_set.hub is None:
        return fetch_mediapipe(sources.cache)
    return [fetch_from_hub(weight_set, file, sources) for file in weight_set.files]


def fetch_from_hub(weight_set: WeightSet, file: WeightFile, sources: WeightSources) -> Path:
    """Return one file of a set, with its hash checked; if it is missing or damaged in the cache, fetch it."""
    assert weight_set.hub is not None
    path = path_of(weight_set, file, sources.cache)
    try:
        return locate(weight_set, file, sources.cache)
    except WeightsNotFound:
        discard(path)  # a hash recorded for a deleted file must not apply to the new one
    except WrongWeights as err:
        if sources.hf_offline:
            raise
        logger.warning("%s; fetching it again", err)
        discard(path)
    path = hub.download(weight_set.hub, file.name, sources.cache / weight_set.name, sources)
    try:
        check_hash(path, file)
    except WrongWeights:
        discard(path)
        raise
    return path
