from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import WeightsNotFound
from inference.models import LipCoordNet
from inference.weights.cache import locate
from inference.weights.checkpoint import load_into
from inference.weights.registry import REGISTRY, STARTER, STARTER_SYNC, find_set


def test_the_starter_ships_and_loads(tmp_path: Path):
    path = locate(STARTER, STARTER.files[0], tmp_path)
    assert path.stat().st_size == STARTER.files[0].n_bytes
    load_into(LipCoordNet(), path)


def test_the_card_of_the_starter_is_of_the_shipped_file():
    card = STARTER.read_card()
    assert card["sha256"] == STARTER.files[0].sha256
    assert card["landmarks"] == STARTER.landmarks
    assert card["language"] == STARTER.language
    assert 0 < card["results"]["eval s1"]["greedy_wer"] < 1


def test_every_set_has_a_licence_and_hashes():
    for one in REGISTRY.values():
        assert one.licence
        assert one.is_user_supplied or all(file.sha256 and len(file.sha256) == 64 for file in one.files)
        assert one.hub is None or len(one.hub.revision) == 40


def test_the_error_lists_the_known_names():
    with pytest.raises(WeightsNotFound, match="known: starter, starter_sync, mediapipe"):
        find_set("nope")
    with pytest.raises(WeightsNotFound, match=r"known: starter, hub$"):
        find_set("mediapipe", task="lip reading")
    with pytest.raises(WeightsNotFound, match=r"known: starter, wav2lip, wav2lip_gan$"):
        find_set("hub", task="lip sync")


def test_each_task_has_its_own_starter():
    assert find_set("starter") is STARTER
    assert find_set("starter", task="lip reading") is STARTER
    assert find_set("starter", task="lip sync") is STARTER_SYNC
    assert find_set("starter_sync") is find_set("starter_sync", task="lip sync") is STARTER_SYNC
