from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inference.errors import WeightsNotFound, WrongWeights
from inference.weights.cache import locate, store_file
from inference.weights.registry import FACE_MESH, MEDIAPIPE, WeightFile


def test_the_error_says_how_to_fetch_a_missing_file(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match="viseme weights fetch mediapipe"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path):
    folder = tmp_path / "mediapipe"
    folder.mkdir()
    (folder / FACE_MESH.name).write_bytes(b"damaged")
    with pytest.raises(WrongWeights, match="7 bytes with SHA-256"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_storing_a_file_with_another_hash_leaves_nothing(tmp_path: Path):
    with pytest.raises(WrongWeights, match="as fetched"):
        store_file(b"wrong", MEDIAPIPE, FACE_MESH, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_file_is_stored_under_its_name(tmp_path: Path):
    file = WeightFile("a.bin", hashlib.sha256(b"right").hexdigest(), 5)
    assert store_file(b"right", MEDIAPIPE, file, tmp_path).read_bytes() == b"right"
    assert [p.name for p in (tmp_path / "mediapipe").iterdir()] == ["a.bin"]
