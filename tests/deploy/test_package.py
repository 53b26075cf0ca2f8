"""The model archive: its contents, and that it answers requests without this checkout."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.stock_layer import Layer

from deploy import package
from deploy.models import WAV2LIP_NOTICE, ModelSelection
from deploy.package import build_archive, main, make_requirements
from inference import handler
from inference.weights.registry import DLIB, STARTER

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
COMPILED = ROOT / "build" / "stock-image" / "compiled"  # compiled files of the stock image's packages
# Must not be replaced in the stock image: its torch fits its CUDA, the rest fits its torch.
UNTOUCHED = {"torch", "torchvision", "transformers", "sagemaker", "sagemaker-inference", "boto3", "opencv-python"}


def test_contents(archive: Path):
    with tarfile.open(archive) as packed:
        entries = packed.getmembers()
    names = [entry.name for entry in entries]
    assert {
        "code/viseme_entry.py",
        "code/requirements.txt",
        "code/inference/__init__.py",
        "code/inference/weights/starter/lipcoordnet/card.json",
        "data/weights/mediapipe/face_detection_short_range.tflite",
        "data/weights/mediapipe/face_landmark.tflite",
    } <= set(names)
    assert names == sorted(names)
    assert "code/inference.py" not in names  # it would shadow the package beside it
    assert [name for name in names if name.endswith((".safetensors", ".pt"))] == [
        "code/inference/weights/starter/lipcoordnet/model.safetensors",
        "code/inference/weights/starter/visemes/model.safetensors",
        "code/inference/weights/starter/wav2lip/model.safetensors",
    ]
    assert not [name for name in names if "__pycache__" in name or name.startswith(("/", ".."))]
    assert {(entry.mtime, entry.mode, entry.uid, entry.uname) for entry in entries} == {(315532800, 0o644, 0, "")}


def test_the_same_files_make_the_same_bytes(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    build_archive(tmp_path / "other-name.tgz")
    assert (tmp_path / "other-name.tgz").read_bytes() == archive.read_bytes()


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """Return the arguments that choose weights, a checkpoint and a predictor of the caller's own."""
    for name, contents in (("mine.pt", b"tensors"), ("wav2lip_gan.pth", b"checkpoint"), ("lips.dat", b"predictor")):
        (tmp_path / name).write_bytes(contents)
    flags = {"--weights": "mine.pt", "--checkpoint": "wav2lip_gan.pth", "--landmarks": "lips.dat"}
    return [word for flag, name in flags.items() for word in (flag, str(tmp_path / name))]


def test_custom_models(weights_cache: Path, tmp_path: Path, mine: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["-o", str(tmp_path / "m.tar.gz"), *mine]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'm.tar.gz'}\n"
    assert printed.err.splitlines() == [
        f"warning: {DLIB.notice}",
        f"warning: {WAV2LIP_NOTICE}",
        "the endpoint needs --env VISEME_LANDMARKS=dlib",
    ]
    with tarfile.open(tmp_path / "m.tar.gz") as packed:
        assert packed.extractfile("model.pt").read() == b"tensors"
        assert packed.extractfile("wav2lip_gan.pth").read() == b"checkpoint"
        assert packed.extractfile("shape_predictor_68_face_landmarks.dat").read() == b"predictor"
        assert "code/viseme_entry.py" in packed.getnames()


def test_the_published_sets_are_fetched_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "x.pt").write_bytes(b"published")
    (tmp_path / "p.dat").write_bytes(b"predictor")
    sets = {"hub": [tmp_path / "x.pt"], "dlib": [tmp_path / "p.dat"], "mediapipe": []}
    monkeypatch.setattr(package, "fetch", sets.get)
    assert main(["-o", str(tmp_path / "m.tar.gz"), "--weights", "hub", "--checkpoint", "s3://b/wav2lip.pth"]) == 0
    assert capsys.readouterr().err.splitlines()[2:] == [
        "the endpoint needs --env VISEME_CHECKPOINTS=s3://b/wav2lip.pth",
        "the endpoint needs --env VISEME_LANDMARKS=dlib",
    ]
    with tarfile.open(tmp_path / "m.tar.gz") as packed:
        assert packed.extractfile("model.pt").read() == b"published"
        assert packed.extractfile("shape_predictor_68_face_landmarks.dat").read() == b"predictor"


def test_an_archive_for_visemes_image_has_only_the_models(tmp_path: Path, mine: list[str]):
    models = ModelSelection.from_arguments(package.make_parser().parse_args(["-o", "m.tar.gz", *mine]))
    build_archive(tmp_path / "m.tar.gz", models.files, with_code=False)
    with tarfile.open(tmp_path / "m.tar.gz") as packed:
        assert packed.getnames() == ["model.pt", "shape_predictor_68_face_landmarks.dat", "wav2lip_gan.pth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "no/such/folder/m.tar.gz"], "no such folder"),
        (["-o", "m.tar.gz", "--weights", "missing.pt"], "missing.pt: no such file"),
        (["-o", "m.tar.gz", "--weights", "video.mp4"], "expected starter, hub, a file (.safetensors, .pt, .pth)"),
        (["-o", "m.tar.gz", "--weights", "a/b"], "a repository of the Hub is written hf://a/b"),
        (["-o", "m.tar.gz", "--landmarks", "openface"], "expected mediapipe, dlib, or dlib's predictor (FILE.dat)"),
        (["-o", "m.tar.gz", "--landmarks", "missing.dat"], "missing.dat: no such file"),
        (["-o", "m.tar.gz", "--checkpoint", "lips.pth"], "expected a file named wav2lip.pth or wav2lip_gan.pth"),
        (["-o", "m.tar.gz", "--checkpoint", "wav2lip.pth"], "wav2lip.pth: no such file"),
    ],
)
def test_the_callers_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_without_face_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    failed = subprocess.CompletedProcess([], 1, "", "viseme: no network\n")
    monkeypatch.setattr(package.subprocess, "run", lambda *_, **__: failed)
    assert main(["-o", str(tmp_path / "m.tar.gz")]) == 1
    assert "the weights 'mediapipe' cannot be fetched: viseme: no network" in capsys.readouterr().err
    assert not (tmp_path / "m.tar.gz").exists()


# Requirements


def names_of(requirements: str) -> set[str]:
    return {line.partition("==")[0] for line in requirements.splitlines()}


def test_requirements_are_pinned_as_ours_and_touch_nothing_of_the_images():
    ours = (ROOT / "requirements.txt").read_text().splitlines()
    assert set(make_requirements().splitlines()) <= set(ours)
    assert not names_of(make_requirements()) & (UNTOUCHED | {"numpy", "safetensors"})
    assert "dlib-bin" in names_of(make_requirements())  # the landmarks of the published weights


def test_requirements_install_on_the_stock_image_and_leave_torch_alone(stock: tuple[Layer, dict[str, tuple[str, str]]]):
    layer, before = stock
    after = layer.installed()
    assert {name: after[name] for name in before} == before  # version and location, of torch and everything else
    assert before["torch"] == ("2.13.0+cpu", str(layer.below)) or before["torch"] == ("2.13.0", str(layer.below))
    assert (before["numpy"][0], before["opencv-python-headless"][0]) == ("1.26.4", "4.11.0.86")
    added = set(after) - set(before)
    assert names_of(make_requirements()) <= added
    assert {after[name][1] for name in added} == {str(layer.site_packages)}
    ask = "import torch; print(torch.__file__)"
    run = subprocess.run([str(layer.python), "-c", ask], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(layer.below / "torch" / "__init__.py")


def test_requirements_install_the_same_without_constraints(
    stock: tuple[Layer, dict[str, tuple[str, str]]], unpacked: Path, tmp_path: Path
):
    layer, before = stock
    command = [str(layer.python), "-m", "pip", "install", "--quiet", "--dry-run", "--disable-pip-version-check"]
    command += ["--report", str(tmp_path / "report.json"), "-r", str(unpacked / "code" / "requirements.txt")]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads((tmp_path / "report.json").read_text())["install"]
    assert not {one["metadata"]["name"].lower() for one in found} & set(before)


def test_requirements_install_for_the_stock_images_python(tmp_path: Path):
    """Resolve for Python 3.12 with the image's pins as constraints: wheels exist, and torch is not among them."""
    pinned = {"torch": "2.6.0", "transformers": "4.51.3", "huggingface-hub": "0.30.0", "numpy": "1.26.4"}
    (tmp_path / "requirements.txt").write_text(make_requirements())
    (tmp_path / "frozen.txt").write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--report", str(tmp_path / "report.json"), "--target", str(tmp_path / "nowhere")]
    command += ["--python-version", "3.12", "--only-binary=:all:"]
    command += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"]
    command += ["-r", str(tmp_path / "requirements.txt"), "-c", str(tmp_path / "frozen.txt")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "Could not find a version" in run.stderr and "from versions: none" in run.stderr:
        pytest.skip("no package index can be reached")
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "report.json").read_text())["install"]
    versions = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in found}
    assert not set(versions) & UNTOUCHED
    assert {name: versions[name] for name in pinned if name in versions} == {"numpy": pinned["numpy"]}


# Answering requests


def test_visemes_image_loads_the_archives_weights(weights_cache: Path, tmp_path: Path):
    models = ModelSelection(weights=str(STARTER.shipped_in / STARTER.files[0].name))
    build_archive(tmp_path / "m.tar.gz", models.files, with_code=False)
    with tarfile.open(tmp_path / "m.tar.gz") as packed:
        packed.extractall(tmp_path / "model", filter="data")
    engines = handler.model_fn(str(tmp_path / "model"))
    assert engines.warm_up()["weights"] == "model.safetensors"
    engines.close()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def run_toolkit(
    toolkit: str, python: Path, below: list[Path], unpacked: Path, home: Path, requests: list[dict], **environment: str
) -> dict:
    """Run the archive under a toolkit, in a process without access to this checkout or its cache.

    below: folders with the packages. With -S no .pth file is read: one of them leads to this checkout.
    """
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(str(path) for path in [unpacked / "code", *below]),
        **({"PYTHONDONTWRITEBYTECODE": "1"} if below == [SITE_PACKAGES] else {"PYTHONPYCACHEPREFIX": str(COMPILED)}),
        "SAGEMAKER_BASE_DIR": str(unpacked.parent),
        "SAGEMAKER_PROGRAM": "viseme_entry.py",
        "VISEME_DEVICE": "cpu",
        **environment,
    }
    command = [str(python), "-S", "-P", str(Path(__file__).with_name("toolkit_run.py")), toolkit, str(unpacked)]
    run = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, check=False, env=env, cwd=home, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout) | {"log": run.stderr}


def request(body: bytes, content_type: str, accept: str = "application/json", kind: str = "bytes") -> dict:
    return {"body": base64.b64encode(body).decode(), "content_type": content_type, "accept": accept, "as": kind}


def modification_times(folder: Path) -> dict[Path, int]:
    """Return the modification time of every file except Python's compiled files."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture(params=["ours", "stock", "stock, Hugging Face's toolkit"])
def host(request: pytest.FixtureRequest) -> tuple[str, Path, list[Path]]:
    """Return toolkit, Python and packages: ours (numpy 2, OpenCV 5) or the stock image's (numpy 1.26, OpenCV 4.11)."""
    if request.param == "ours":
        pytest.importorskip("sagemaker_inference")
        return "sagemaker", Path(sys.executable), [SITE_PACKAGES]
    layer, _ = request.getfixturevalue("stock")
    toolkit = "huggingface" if "Hugging" in request.param else "sagemaker"
    return toolkit, layer.python, [layer.site_packages, layer.below]


def test_unpacked_into_an_empty_folder_it_answers(
    host: tuple[str, Path, list[Path]], unpacked: Path, s3_url: str, talking_film: bytes, tmp_path: Path
):
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    s3 = boto3.client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t"
    )
    s3.create_bucket(Bucket="videos")
    s3.put_object(Bucket="videos", Key="uploads/a b.mp4", Body=talking_film)
    s3_request = json.dumps({"s3_bucket": "videos", "s3_video_key": "uploads/a b.mp4", "fps": 25}).encode()
    files = modification_times(unpacked)
    toolkit, python, below = host
    found = run_toolkit(
        toolkit,
        python,
        below,
        unpacked,
        tmp_path,
        [
            request(s3_request, "application/json"),
            request(talking_film, "video/mp4", "text/vtt", kind="bytearray"),
            request(b"{}", "application/json"),
        ],
        AWS_ENDPOINT_URL_S3=s3_url,
        **keys,
    )
    by_s3, raw, wrong = found["answers"]
    assert (by_s3["status"], by_s3["type"]) == (200, "application/json")
    assert by_s3["kind"] == "bytes"  # some toolkits cannot send the tuple that our own handler returns
    answer = json.loads(by_s3["answer"])
    assert answer["num_frames"] == 75
    assert answer["model"]["weights"] == "starter"
    assert (raw["status"], raw["type"]) == (200, "text/vtt")
    assert raw["answer"].startswith("WEBVTT")
    assert wrong["status"] == 400
    assert "expected either" in wrong["answer"]
    (ready,) = [line for line in found["log"].splitlines() if line.startswith("viseme is ready: ")]
    assert json.loads(ready.removeprefix("viseme is ready: "))["device"] == "cpu"
    assert found["inference"] == str(unpacked / "code" / "inference" / "__init__.py")
    assert not [path for path in found["path"] if Path(path).resolve() == ROOT]
    assert modification_times(unpacked) == files  # it is read-only on SageMaker
    made = {path.name for path in (tmp_path / ".cache" / "viseme").iterdir()}
    assert made == {"compiled"}  # no weights were fetched
