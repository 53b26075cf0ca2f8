"""Brings weight sets to this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.errors import VisemeError, WeightsNotFound, WrongWeights
from inference.weights import hub
from inference.weights.cache import check_hash, discard, locate, path_of
from inference.weights.mediapipe_wheel import fetch_mediapipe
from inference.weights.registry import WeightFile, WeightSet, find_set
from inference.weights.sources import WeightSources, as_sources
from inference.weights.user_supplied import find_brought

logger = logging.getLogger(__name__)


def fetch(name: str, sources: WeightSources | Path) -> list[Path]:
    """The files of a set, fetched into the cache where they are missing or damaged there.

    Raises: WeightsNotFound where there is no such set or it cannot be fetched, WrongWeights where the
    bytes are not the registry's, StorageError where the network failed.
    """
    weight_set, sources = find_set(name), as_sources(sources)
    if weight_set.is_user_supplied:
        return [find_brought(weight_set, sources)]
    try:
        return [locate(weight_set, file, sources.cache) for file in weight_set.files]
    except VisemeError:
        if weight_set.shipped_in is not None:
            raise
    if weight_set.hub is None:
        return fetch_mediapipe(sources.cache)
    return [fetch_from_hub(weight_set, file, sources) for file in weight_set.files]


def fetch_from_hub(weight_set: WeightSet, file: WeightFile, sources: WeightSources) -> Path:
    """One file of a set into the cache, its bytes checked; a damaged one there is fetched anew."""
    assert weight_set.hub is not None
    path = path_of(weight_set, file, sources.cache)
    try:
        return locate(weight_set, file, sources.cache)
    except WeightsNotFound:
        discard(path)  # a hash that outlived its file says nothing about the next one
    except WrongWeights as err:
        if sources.hf_offline:
            raise
        logger.warning("%s; fetching it anew", err)
        discard(path)
    path = hub.download(weight_set.hub, file.name, sources.cache / weight_set.name, sources)
    try:
        check_hash(path, file)
    except WrongWeights:
        discard(path)
        raise
    return path
