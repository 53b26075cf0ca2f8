"""Models that a deployment fetches at its start, with the packages of either image.

LipCoordNet with dlib's landmarks from a Hub, and Wav2Lip's checkpoints from S3: seeded, under their published names.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.hub_server import HubServer, Repository
from support.image_packages import link_image_packages
from support.live_server import live_server
from support.published_weights import make_repository, register
from support.stock_layer import Layer
from support.stock_server import stock_server
from support.video_files import make_wav

from inference.weights.registry import DLIB, HUB, WAV2LIP

ROOT = Path(__file__).parents[2]
REPOSITORY = HUB.hub.repository
NAMES = {"HF_MODEL_ID": REPOSITORY, "VISEME_WEIGHTS": f"hf://{REPOSITORY}"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
Invoke = Callable[[bytes, str], tuple[int, bytes]]


@pytest.fixture(scope="module")
def repository(predictor: Path) -> Repository:
    return make_repository(predictor)


@pytest.fixture
def hub(repository: Repository) -> Iterator[HubServer]:
    with HubServer({REPOSITORY: repository}) as server:
        yield server


@pytest.fixture(scope="module")
def s3_url(checkpoints: list[Path]) -> Iterator[str]:
    """An S3 with the two checkpoints in the bucket `models`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
    s3.create_bucket(Bucket="models")
    for path in checkpoints:
        s3.upload_file(str(path), "models", path.name)
    yield url
    server.stop()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return the setting that names the repository."""
    found: str = request.param
    return found


@pytest.fixture
def syncs(name: str) -> bool:
    """Return whether lip sync is tried, too: that of checkpoints is the same with either setting."""
    return name == "VISEME_WEIGHTS"


@pytest.fixture
def environment(name: str, syncs: bool, hub: HubServer, s3_url: str) -> dict[str, str]:
    uris = ",".join(f"s3://models/{one}.pth" for one in ("wav2lip", "wav2lip_gan"))
    checkpoints = {"VISEME_CHECKPOINTS": uris} if syncs else {}
    return CREDENTIALS | checkpoints | {"HF_ENDPOINT": hub.url, "AWS_ENDPOINT_URL_S3": s3_url, name: NAMES[name]}


@pytest.fixture(scope="module")
def image(repository: Repository, weights_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Viseme's image: its code, its packages and its data."""
    folder = tmp_path_factory.mktemp("image")
    for name in ("inference", "container"):
        shutil.copytree(ROOT / name, folder / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    register(repository, folder / "code")
    link_image_packages(folder / "site-packages")
    shutil.copytree(weights_cache / "mediapipe", folder / "data" / "weights" / "mediapipe")
    return folder


@contextmanager
def serve_image(image: Path, home: Path, environment: dict[str, str]) -> Iterator[Invoke]:
    env = environment | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(str(image / name) for name in ("code", "site-packages")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VISEME_DATA_DIR": str(image / "data"),
        "VISEME_DEVICE": "cpu",
    }
    command = (sys._base_executable, "-s", "-P", "-m", "container.cli", "serve", "--port", "0")  # without this venv
    with live_server(home, env, command=command) as server, server.client() as client:

        def invoke(body: bytes, content_type: str) -> tuple[int, bytes]:
            response = client.post("/invocations", content=body, headers={"Content-Type": content_type})
            return response.status_code, response.content

        yield invoke


@contextmanager
def serve_archive(layer: Layer, unpacked: Path, environment: dict[str, str]) -> Iterator[Invoke]:
    with stock_server(layer, unpacked, **environment) as server:
        server.wait_until(lambda: "viseme is ready" in server.log() or server.process.poll() is not None)
        assert server.process.poll() is None, server.log()[-3000:]

        def invoke(body: bytes, content_type: str) -> tuple[int, bytes]:
            reply = server.invoke(body, content_type)
            return reply.status, reply.body

        yield invoke


@pytest.fixture(scope="module")
def registered(unpacked: Path, repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive, which knows the hashes of these weights."""
    folder = tmp_path_factory.mktemp("ml") / "model"
    shutil.copytree(unpacked, folder)
    register(repository, folder / "code")
    return folder


def list_files(folder: Path) -> set[Path]:
    """Return the files in a folder, except Python's compiled files."""
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def check_reading(invoke: Invoke, talking_film: bytes) -> None:
    status, body = invoke(talking_film, "video/mp4")
    answer = json.loads(body)
    assert status == 200, answer
    assert len(answer["text"].split()) == 6  # a sentence of the GRID corpus, as these weights read it
    assert (answer["num_frames"], answer["frames_without_face"]) == (75, 0)
    assert answer["model"]["weights"] == "hub"
    assert answer["warnings"] == [DLIB.notice]


def check_lip_sync(invoke: Invoke, talking_film: bytes) -> None:
    face, audio = (base64.b64encode(media).decode() for media in (talking_film, make_wav(0.4)))
    request = {"task": "lipsync", "face": face, "audio": audio, "models": ["wav2lip", "wav2lip_gan"]}
    status, body = invoke(json.dumps(request).encode(), "application/json")
    answer = json.loads(body)
    assert status == 200, answer
    assert [one["model"] for one in answer["outputs"]] == ["wav2lip", "wav2lip_gan"]
    assert [base64.b64decode(one["video"])[4:8] for one in answer["outputs"]] == [b"ftyp", b"ftyp"]
    assert WAV2LIP.notice in answer["warnings"]


def test_on_visemes_image(syncs: bool, image: Path, environment: dict[str, str], talking_film: bytes, tmp_path: Path):
    with serve_image(image, tmp_path, environment) as invoke:
        check_reading(invoke, talking_film)
        if syncs:
            check_lip_sync(invoke, talking_film)


@pytest.mark.skipif(shutil.which("java") is None, reason="the stock image's server needs Java")
def test_on_the_stock_image(
    name: str,
    syncs: bool,
    stock: tuple[Layer, dict],
    registered: Path,
    hub: HubServer,
    environment: dict[str, str],
    talking_film: bytes,
):
    packed = list_files(registered)
    with serve_archive(stock[0], registered, environment) as invoke:
        check_reading(invoke, talking_film)
        if syncs:
            check_lip_sync(invoke, talking_film)
    assert list_files(registered) == packed  # it is read-only on SageMaker
    downloads_all = any(path.endswith("README.md") for _, path, _ in hub.seen)
    assert downloads_all == (name == "HF_MODEL_ID")  # the toolkit takes that name for itself
