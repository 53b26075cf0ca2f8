from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.hub_server import HubServer, Repository

from container.cli import main
from inference.weights.registry import DLIB, HUB, REGISTRY, STARTER, WeightFile

PREDICTOR = b"a predictor's bytes"
STARTER_FILE = STARTER.shipped_in / STARTER.files[0].name


@pytest.fixture(autouse=True)
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISEME_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    file = WeightFile(DLIB.files[0].name, hashlib.sha256(PREDICTOR).hexdigest())
    monkeypatch.setitem(REGISTRY, "dlib", replace(DLIB, files=(file,)))
    with HubServer({DLIB.hub.repository: Repository(DLIB.hub.revision, {file.name: PREDICTOR})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_fetch_prints_the_licence_on_stderr_and_the_path_on_stdout(
    hub: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert main(["weights", "fetch", "dlib"]) == 0
    out, err = capfd.readouterr()
    path = Path(out.strip())
    assert path.read_bytes() == PREDICTOR
    assert path.is_relative_to(tmp_path / "data")
    assert err.splitlines()[:2] == [f"viseme: dlib: licence: {DLIB.licence}", f"viseme: warning: {DLIB.notice}"]
    assert "commercial" in err
    assert main(["weights", "verify", "dlib"]) == 0
    assert capfd.readouterr().out == f"{hashlib.sha256(PREDICTOR).hexdigest()}  {path}\n"
    assert main(["weights", "list"]) == 0
    states = {row.split("\t")[0]: row.split("\t")[2] for row in capfd.readouterr().out.splitlines()}
    others = dict.fromkeys(("mediapipe", "hub", "wav2lip", "wav2lip_gan", "s3fd", "swin2sr", "ave"), "not fetched")
    shipped = dict.fromkeys(("starter", "starter_sync", "starter_avatar", "starter_visemes"), "shipped")
    assert states == shipped | {"dlib": "fetched"} | others


def test_fetch_fails_with_the_reason_in_one_line(hub: HubServer, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "fetch", "hub"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"viseme: {HUB.files[0].name} of SilentSpeak/LipCoordNet at ca51874: ")


def test_fetch_offline_names_the_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["weights", "fetch", "hub"]) == 2
    assert "HF_HUB_OFFLINE forbids" in capsys.readouterr().err


def test_verify_names_the_set_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(STARTER_FILE.read_bytes())
    assert main(["weights", "verify", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{STARTER.files[0].sha256}  {path}\n"
    assert "these are the weights 'starter'" in err
    path.write_bytes(b"<html>")
    assert main(["weights", "verify", str(path)]) == 2
    assert "HTML page" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_convert_prints_the_files(tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str):
    assert main(["weights", "convert", "starter", "--to", form, "--precision", "f16", "-o", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert out == f"{tmp_path / f'starter-f16.{form}'}\n"
    assert Path(out.strip()).stat().st_size > 10_000_000
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["starter"], "--output"),
        (["starter", "-o", "x", "--to", "tflite"], "'safetensors', 'onnx', 'openvino'"),
        (["starter", "-o", "x", "--precision", "f64"], "'f32', 'f16', 'bf16', 'int8'"),
        (["starter", "-o", "x", "--precision", "int8"], "--precision for safetensors 'int8': expected one of f32, f16"),
        (["mediapipe", "-o", "x"], "known: starter, hub"),
        (["missing.pt", "-o", "x"], "missing.pt: no such file"),
    ],
)
def test_an_invalid_conversion_exits_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "convert", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_list_shows_licences_and_landmarks(capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "list"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[:4]] == ["starter", "starter_sync", "mediapipe", "hub"]
    assert [row[0] for row in rows[4:]] == [
        "dlib",
        "wav2lip",
        "wav2lip_gan",
        "s3fd",
        "swin2sr",
        "ave",
        "starter_avatar",
        "starter_visemes",
    ]
    assert [row[4].split(";")[0] for row in rows[:4]] == ["Apache-2.0", "Apache-2.0", "Apache-2.0", "MIT"]
    assert "no commercial use" in rows[4][4]
    assert all("no commercial use" in row[4] for row in rows[5:7])
    assert [row[5] for row in rows] == ["mediapipe", "-", "-", "dlib", *"--------"]


def test_verify_and_fetch_print_files(
    weights_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("VISEME_DATA_DIR", str(weights_cache.parent))
    assert main(["weights", "verify", "starter"]) == 0
    assert main(["weights", "fetch", "mediapipe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("model.safetensors")
    assert Path(lines[1]).is_file()
    assert main(["weights", "fetch", "nope"]) == 2
