from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.avatar_source import make_source
from support.dlib_predictor import train_predictor
from support.small_wav2lip import write_checkpoints
from support.synthetic_frames import SEED, SENTENCE

from inference import handler
from inference.avatar import AvatarPackage
from inference.avatar.build import AvatarSource, build_package
from inference.backends.telemetry import disable_telemetry
from inference.engines import Engines
from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader
from inference.settings import Settings
from inference.speaker import SyntheticClip
from inference.weights.fetch import fetch

# Variables that change how the code behaves: tests must not inherit them from the caller's environment.
SETTINGS = ("VISEME_", "SAGEMAKER_", "SM_", "HF_", "AWS_")
KEPT = ("VISEME_DATA_DIR",)  # where the face models were fetched to
LOCAL = "127.0.0.1,localhost"
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    """Before anything is imported that reads the environment at once, as the Hub's client does."""
    disable_telemetry()
    for name in [name for name in os.environ if name.startswith(SETTINGS) and name not in KEPT]:
        del os.environ[name]
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the processes share the cores
    for name in ("NO_PROXY", "no_proxy"):  # the tests' servers are on this machine
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), LOCAL]))


class FailureNames:
    """Prints the name of each failed test at once: a run that is ended early prints no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f" {report.nodeid}: {report.when} failed")


def pytest_sessionstart(session: pytest.Session) -> None:
    if terminal := session.config.pluginmanager.getplugin("terminalreporter"):  # None in a process of pytest-xdist
        session.config.pluginmanager.register(FailureNames(terminal))


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """SVT-AV1 makes its process a real-time one if it may, and leaves it so: what runs beside it would hardly run."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.from_env()


@pytest.fixture(scope="session")
def weights_cache(settings: Settings) -> Path:
    fetch("mediapipe", settings.weights_cache)
    return settings.weights_cache


@pytest.fixture(scope="session")
def landmarker(weights_cache: Path) -> Landmarker:
    return load_landmarker("mediapipe", weights_cache)


@pytest.fixture(scope="session")
def predictor(landmarker: Landmarker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor of dlib's 68 points that works for drawn faces."""
    path = tmp_path_factory.mktemp("dlib") / "shape_predictor_68_face_landmarks_test.dat"
    train_predictor(landmarker, path)
    return path


@pytest.fixture(scope="session")
def reader(weights_cache: Path) -> LipReader:
    return LipReader(device="cpu")


@pytest.fixture(scope="session")
def talking_film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three seconds of the synthetic speaker at 25 fps, 360x288, with sound."""
    path = tmp_path_factory.mktemp("speaker") / "film.mp4"
    SyntheticClip(SENTENCE, SEED).write(path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def avatar_source(tmp_path_factory: pytest.TempPathFactory) -> AvatarSource:
    """What a tiny avatar of the synthetic speaker is built from."""
    return make_source(tmp_path_factory.mktemp("sitting"))


@pytest.fixture(scope="session")
def avatar_folder(
    avatar_source: AvatarSource, landmarker: Landmarker, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The package of that avatar, called `drawn`: 75 frames of 320x240, new speech."""
    folder = tmp_path_factory.mktemp("avatars") / "drawn"
    build_package(avatar_source, folder, landmarker)
    return folder


@pytest.fixture(scope="session")
def avatar_package(avatar_folder: Path) -> Iterator[AvatarPackage]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine they wait for one another
    package = AvatarPackage.load(avatar_folder, device="cpu", precision="f32")
    torch.set_num_threads(n_threads)
    yield package
    package.close()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """wav2lip.pth and wav2lip_gan.pth, narrow and of random weights, in a folder of their own."""
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def engines(checkpoints: list[Path], weights_cache: Path) -> Iterator[Engines]:
    """Of a deployment that brought two narrow checkpoints."""
    found = handler.model_fn(str(checkpoints[0].parent))
    yield found
    found.close()


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, contents: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(contents)
        return path

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data, if it is beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the reference material is not beside this checkout")
    return SHARED


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
