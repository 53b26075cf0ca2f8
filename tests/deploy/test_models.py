"""The models that the caller chooses: what is packed, what is named, and the notes about licences."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from deploy import endpoint, models
from deploy.endpoint import main
from deploy.models import DLIB_NOTICE, WAV2LIP_NOTICE
from inference.faces.load import LANDMARKERS, PREDICTOR_PATTERN
from inference.settings import EXTERNAL_VARIABLES, PREFIX, Settings
from inference.weights import registry
from inference.weights.resolve import SUFFIXES

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/viseme:1.0"
FLAGS = ["--endpoint-name", "viseme", "--role-arn", "arn:aws:iam::123456789012:role/SageMaker"]


def dry_run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict[str, dict], str]:
    """Return the parameters of each call, by its name, and what was printed on stderr."""
    assert main([*FLAGS, "--dry-run", *flags]) == 0
    printed = capsys.readouterr()
    calls = [json.loads(line) for line in printed.out.splitlines()]
    return {call["operation"]: call["parameters"] for call in calls}, printed.err


def environment_of(calls: dict[str, dict]) -> dict[str, str]:
    found = calls["CreateModel"]["PrimaryContainer"]["Environment"]
    return {name: value for name, value in found.items() if name.startswith("VISEME_")}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the caller in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.pt", "wav2lip.pth", "wav2lip_gan.pth", "lips.dat"):
        Path(name).write_bytes(name.encode())


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], {}),
        (["--weights", "hub"], {"VISEME_WEIGHTS": "hub"}),
        (
            ["--weights", "hf://SilentSpeak/LipCoordNet", "--landmarks", "mediapipe"],
            {"VISEME_WEIGHTS": "hf://SilentSpeak/LipCoordNet", "VISEME_LANDMARKS": "mediapipe"},
        ),
        (["--weights", "mine.pt", "--checkpoint", "wav2lip.pth"], {}),
        (["--landmarks", "lips.dat"], {"VISEME_LANDMARKS": "dlib"}),
        (
            ["--checkpoint", "wav2lip.pth", "--checkpoint", "s3://models/wav2lip_gan.pth"],
            {"VISEME_CHECKPOINTS": "wav2lip,s3://models/wav2lip_gan.pth"},
        ),
        (["--weights", "hub", "--env", "VISEME_WEIGHTS=starter"], {"VISEME_WEIGHTS": "starter"}),
    ],
)
@pytest.mark.parametrize("image", [[], ["--image-uri", IMAGE]])
def test_what_is_not_a_file_is_named_in_the_environment(mine, capsys, image: list[str], flags: list[str], named: dict):
    calls, _ = dry_run(capsys, *image, *flags)
    assert environment_of(calls) == named
    has_files = any(flag.startswith(("mine", "wav2lip", "lips")) for flag in flags)
    assert ("PutObject" in calls) == (not image or has_files)
    assert ("ModelDataUrl" in calls["CreateModel"]["PrimaryContainer"]) == (not image or has_files)


@pytest.mark.parametrize("image", [[], ["--image-uri", IMAGE]])
def test_files_are_packed(mine, moto, monkeypatch: pytest.MonkeyPatch, image: list[str]):
    packed: dict[str, list[str]] = {}

    def keep(aws, file, bucket: str, key: str, *_: str) -> None:
        with tarfile.open(fileobj=file) as archive:
            packed[key] = archive.getnames()

    monkeypatch.setattr("deploy.package.list_face_models", lambda: iter(()))
    monkeypatch.setattr(endpoint, "upload_file", keep)
    flags = ["--weights", "mine.pt", "--checkpoint", "wav2lip_gan.pth", "--landmarks", "lips.dat", "--no-smoke-test"]
    assert main([*FLAGS, *image, *flags]) == 0
    (names,) = packed.values()
    models_packed = ["model.pt", "shape_predictor_68_face_landmarks.dat", "wav2lip_gan.pth"]
    assert [name for name in names if "/" not in name] == models_packed
    assert (names == models_packed) == bool(image)  # Viseme's image has the code


@pytest.mark.parametrize(
    ("flags", "notices"),
    [
        ([], []),
        (["--weights", "hub"], [DLIB_NOTICE]),
        (["--weights", "hf://SilentSpeak/LipCoordNet"], [DLIB_NOTICE]),
        (["--weights", "hub", "--landmarks", "mediapipe"], []),
        (["--env", "HF_MODEL_ID=SilentSpeak/LipCoordNet", "--image-uri", IMAGE], [DLIB_NOTICE]),
        (["--env", "VISEME_LANDMARKS=dlib"], [DLIB_NOTICE]),
        (["--landmarks", "dlib"], [DLIB_NOTICE]),
        (["--landmarks", "lips.dat", "--checkpoint", "wav2lip.pth"], [DLIB_NOTICE, WAV2LIP_NOTICE]),
        (["--checkpoint", "s3://models/wav2lip_gan.pth"], [WAV2LIP_NOTICE]),
    ],
)
def test_licences_are_named(mine, capsys, flags: list[str], notices: list[str]):
    _, printed = dry_run(capsys, *flags)
    assert [line for line in printed.splitlines() if "warning" in line] == [f"warning: {one}" for one in notices]


def test_the_stock_images_own_use_of_hf_model_id_is_explained(capsys):
    calls, printed = dry_run(capsys, "--env", "HF_MODEL_ID=SilentSpeak/LipCoordNet")
    assert "the stock image downloads all files of SilentSpeak/LipCoordNet when HF_MODEL_ID is set" in printed
    assert "--weights hf://SilentSpeak/LipCoordNet avoids that" in printed
    assert calls["CreateModel"]["PrimaryContainer"]["Environment"]["HF_MODEL_ID"] == "SilentSpeak/LipCoordNet"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "nope"], "--weights nope: expected starter, hub, a file"),
        (["--weights", "SilentSpeak/LipCoordNet"], "a repository of the Hub is written hf://SilentSpeak/LipCoordNet"),
        (["--weights", "hf://LipCoordNet"], "--weights hf://LipCoordNet: expected"),
        (["--weights", "missing.pt"], "missing.pt: no such file"),
        (["--checkpoint", "hub"], "--checkpoint hub: expected starter, a file"),
        (["--checkpoint", "mine.pt"], "expected a file named wav2lip.pth or wav2lip_gan.pth"),
        (["--checkpoint", "wav2lip.pth", "--checkpoint", "s3://b/wav2lip.pth"], "have the same name"),
        (["--landmarks", "openface"], "--landmarks openface: expected mediapipe, dlib"),
        (["--weights", "mine.pt", "--model-data", "s3://b/m.tar.gz"], "mine.pt: cannot be added to the archive"),
    ],
)
def test_the_callers_mistakes_end_before_any_call(mine, capsys, flags: list[str], message: str):
    assert main([*FLAGS, "--dry-run", *flags]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_names_and_notices_are_those_of_the_engines():
    """`deploy` does not import the engines, so that it repeats these."""
    fetched = [one for one in registry.REGISTRY.values() if not one.is_user_supplied]
    assert set(models.READING_SETS) == {one.name for one in fetched if one.task == registry.LIP_READING}
    assert set(models.SYNC_SETS) == {one.alias for one in fetched if one.task == registry.LIP_SYNC}
    assert set(models.CHECKPOINT_NAMES) == {one.files[0].name for one in (registry.WAV2LIP, registry.WAV2LIP_GAN)}
    assert registry.HUB.hub.repository == models.PUBLISHED_REPOSITORY
    assert (registry.DLIB.notice, registry.WAV2LIP.notice) == (DLIB_NOTICE, WAV2LIP_NOTICE)
    assert (models.WEIGHT_SUFFIXES, models.LANDMARKERS) == (SUFFIXES, LANDMARKERS)
    assert Path(models.PACKED_PREDICTOR).match(PREDICTOR_PATTERN)
    variables = {models.WEIGHTS_VARIABLE, models.CHECKPOINTS_VARIABLE, models.LANDMARKS_VARIABLE}
    assert variables <= {PREFIX + field.upper() for field in Settings.model_fields}
    assert EXTERNAL_VARIABLES[models.HUB_VARIABLE] == "hf_model_id"
