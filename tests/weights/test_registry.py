from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from inference.errors import WeightsNotFound, WrongWeights
from inference.models import LipCoordNet
from inference.weights import mediapipe_wheel
from inference.weights.cache import keep, locate
from inference.weights.checkpoint import load_into
from inference.weights.fetch import fetch
from inference.weights.registry import FACE_MESH, MEDIAPIPE, REGISTRY, STARTER, STARTER_SYNC, WeightFile, find_set


def test_the_starter_is_shipped_whole_and_fits(tmp_path: Path):
    path = locate(STARTER, STARTER.files[0], tmp_path)
    assert path.stat().st_size == STARTER.files[0].n_bytes
    load_into(LipCoordNet(), path)


def test_the_starters_card_speaks_of_these_bytes():
    card = STARTER.read_card()
    assert card["sha256"] == STARTER.files[0].sha256
    assert card["landmarks"] == STARTER.landmarks
    assert card["language"] == STARTER.language
    assert 0 < card["results"]["eval s1"]["greedy_wer"] < 1


def test_every_set_says_its_licence_and_hashes():
    for one in REGISTRY.values():
        assert one.licence
        assert one.is_user_supplied or all(file.sha256 and len(file.sha256) == 64 for file in one.files)
        assert one.hub is None or len(one.hub.revision) == 40


def test_an_unknown_name_lists_the_known():
    with pytest.raises(WeightsNotFound, match="known: starter, starter_sync, mediapipe"):
        find_set("nope")
    with pytest.raises(WeightsNotFound, match=r"known: starter, hub$"):
        find_set("mediapipe", job="lip reading")
    with pytest.raises(WeightsNotFound, match=r"known: starter, wav2lip, wav2lip_gan$"):
        find_set("hub", job="lip sync")


def test_each_job_has_its_own_starter():
    assert find_set("starter") is STARTER
    assert find_set("starter", job="lip reading") is STARTER
    assert find_set("starter", job="lip sync") is STARTER_SYNC
    assert find_set("starter_sync") is find_set("starter_sync", job="lip sync") is STARTER_SYNC


def test_what_was_not_fetched_says_how(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match="viseme weights fetch mediapipe"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_damaged_bytes_are_refused(tmp_path: Path):
    folder = tmp_path / "mediapipe"
    folder.mkdir()
    (folder / FACE_MESH.name).write_bytes(b"damaged")
    with pytest.raises(WrongWeights, match="7 bytes with SHA-256"):
        locate(MEDIAPIPE, FACE_MESH, tmp_path)


def test_keeping_wrong_bytes_leaves_nothing(tmp_path: Path):
    with pytest.raises(WrongWeights, match="as fetched"):
        keep(b"wrong", MEDIAPIPE, FACE_MESH, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_keeping_puts_the_whole_file(tmp_path: Path):
    file = WeightFile("a.bin", hashlib.sha256(b"right").hexdigest(), 5)
    assert keep(b"right", MEDIAPIPE, file, tmp_path).read_bytes() == b"right"
    assert [p.name for p in (tmp_path / "mediapipe").iterdir()] == ["a.bin"]


def test_fetching_what_is_there_downloads_nothing(weights_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("it ran a download"))
    assert [path.name for path in fetch("mediapipe", weights_cache)] == [file.name for file in MEDIAPIPE.files]


def fake_pip(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes] | None, stderr: str = "") -> None:
    """pip download that writes a wheel of these members, or fails."""

    def run(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        if members is not None:
            with zipfile.ZipFile(folder / "mediapipe.whl", "w") as wheel:
                for name, contents in members.items():
                    wheel.writestr(name, contents)
        return subprocess.CompletedProcess(command, 0 if members is not None else 1, "", stderr)

    monkeypatch.setattr(mediapipe_wheel.subprocess, "run", run)


def test_the_carrier_is_opened_and_checked(tmp_path: Path, weights_cache: Path, monkeypatch: pytest.MonkeyPatch):
    contents = {m: (weights_cache / "mediapipe" / f.name).read_bytes() for f, m in mediapipe_wheel.MEMBERS.items()}
    fake_pip(monkeypatch, contents)
    assert all(path.is_file() for path in fetch("mediapipe", tmp_path))


def test_a_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_pip(monkeypatch, None, stderr="ERROR: No matching distribution found for mediapipe==0.10.21")
    with pytest.raises(WeightsNotFound, match="No matching distribution"):
        fetch("mediapipe", tmp_path)


@pytest.mark.parametrize("members", [{}, {"mediapipe/modules/face_landmark/face_landmark.tflite": b"other"}])
def test_a_carrier_without_the_right_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members):
    fake_pip(monkeypatch, members)
    with pytest.raises(WrongWeights):
        fetch("mediapipe", tmp_path)
    assert not list(tmp_path.rglob("*.tflite"))
