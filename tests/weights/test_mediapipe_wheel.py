from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from inference.errors import WeightsNotFound, WrongWeights
from inference.weights import mediapipe_wheel
from inference.weights.fetch import fetch
from inference.weights.registry import MEDIAPIPE


def test_cached_files_are_not_downloaded(weights_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was run"))
    assert [path.name for path in fetch("mediapipe", weights_cache)] == [file.name for file in MEDIAPIPE.files]


def fake_pip(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes] | None, stderr: str = "") -> None:
    """Replace `pip download` by one that writes a wheel of these members; by one that fails if None."""

    def run(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        if members is not None:
            with zipfile.ZipFile(folder / "mediapipe.whl", "w") as wheel:
                for name, contents in members.items():
                    wheel.writestr(name, contents)
        return subprocess.CompletedProcess(command, 0 if members is not None else 1, "", stderr)

    monkeypatch.setattr(mediapipe_wheel.subprocess, "run", run)


def test_the_files_are_extracted_and_checked(tmp_path: Path, weights_cache: Path, monkeypatch: pytest.MonkeyPatch):
    contents = {m: (weights_cache / "mediapipe" / f.name).read_bytes() for f, m in mediapipe_wheel.MEMBERS.items()}
    fake_pip(monkeypatch, contents)
    assert all(path.is_file() for path in fetch("mediapipe", tmp_path))


def test_a_failed_download_reports_the_error_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_pip(monkeypatch, None, stderr="ERROR: No matching distribution found for mediapipe==0.10.21")
    with pytest.raises(WeightsNotFound, match="No matching distribution"):
        fetch("mediapipe", tmp_path)


@pytest.mark.parametrize("members", [{}, {"mediapipe/modules/face_landmark/face_landmark.tflite": b"other"}])
def test_a_wheel_without_the_right_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members):
    fake_pip(monkeypatch, members)
    with pytest.raises(WrongWeights):
        fetch("mediapipe", tmp_path)
    assert not list(tmp_path.rglob("*.tflite"))
