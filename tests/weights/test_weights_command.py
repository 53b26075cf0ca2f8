from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import HubServer, Repository

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


def test_fetch_says_the_licence_on_stderr_and_the_path_on_stdout(
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
    brought = dict.fromkeys(("mediapipe", "hub", "wav2lip", "wav2lip_gan", "s3fd", "swin2sr", "ave"), "not fetched")
    shipped = dict.fromkeys(("starter", "starter_sync", "starter_avatar"), "shipped")
    assert states == shipped | {"dlib": "fetched"} | brought


def test_fetch_fails_with_one_line_that_says_why(hub: HubServer, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "fetch", "hub"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"viseme: {HUB.files[0].name} of SilentSpeak/LipCoordNet at ca51874: ")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["weights", "fetch", "hub"]) == 2
    assert "HF_HUB_OFFLINE forbids" in capsys.readouterr().err


def test_verify_tells_whose_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
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
def test_what_cannot_be_converted_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["weights", "convert", *arguments]) == 2
    assert words in capsys.readouterr().err
