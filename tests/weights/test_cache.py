from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inference.errors import WeightsNotFound, WrongWeights
from inference.weights.cache import locate, locate_deployed, store_file
from inference.weights.registry import FACE_MESH, MEDIAPIPE, WeightFile
from inference.weights.sources import WeightSources


def test_the_error_says_how_to_fetch_a_missing_file(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match="viseme weights fetch mediapipe"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path):
    folder = tmp_path / "mediapipe"
    folder.mkdir()
    (folder / FACE_MESH.name).write_bytes(b"damaged")
    with pytest.raises(WrongWeights, match="7 bytes with SHA-256"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_a_packed_file_is_used_before_the_cache(tmp_path: Path):
    file = WeightFile("a.bin", hashlib.sha256(b"right").hexdigest())
    sources = WeightSources(tmp_path / "cache", model_dir=tmp_path / "model")
    with pytest.raises(WeightsNotFound, match=f"is not in {tmp_path / 'cache'}"):
        locate_deployed(MEDIAPIPE, file, sources)
    fetched = store_file(b"right", MEDIAPIPE, file, sources.cache)
    assert locate_deployed(MEDIAPIPE, file, sources) == fetched
    packed = store_file(b"right", MEDIAPIPE, file, tmp_path / "model" / "data" / "weights")
    assert locate_deployed(MEDIAPIPE, file, sources) == packed
    packed.write_bytes(b"wrong")
    with pytest.raises(WrongWeights, match="with SHA-256"):
        locate_deployed(MEDIAPIPE, file, sources)


def test_storing_a_file_with_another_hash_leaves_nothing(tmp_path: Path):
    with pytest.raises(WrongWeights, match="as fetched"):
        store_file(b"wrong", MEDIAPIPE, FACE_MESH, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_file_is_stored_under_its_name(tmp_path: Path):
    file = WeightFile("a.bin", hashlib.sha256(b"right").hexdigest(), 5)
    assert store_file(b"right", MEDIAPIPE, file, tmp_path).read_bytes() == b"right"
    assert [p.name for p in (tmp_path / "mediapipe").iterdir()] == ["a.bin"]
