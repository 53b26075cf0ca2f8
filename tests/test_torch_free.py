"""What OpenVINO runs starts without torch, which takes longer to import than everything else together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.video_files import make_wav

from inference.backends.device import GPU_DEVICES, driver_version

pytestmark = pytest.mark.skipif(
    driver_version() is not None or any(path.exists() for path in GPU_DEVICES),
    reason="torch runs on the GPU",
)
# Runs a command and prints whether torch was imported.
COMMAND = """
import sys
from container.cli import main
code = main(sys.argv[1:])
print("torch imported:", "torch" in sys.modules)
raise SystemExit(code)
"""
WORKER = """
import sys
from container.worker.routes import WorkerRoutes
routes = WorkerRoutes.load(None)
health = routes.warm_up()
print(health["device"], health["torch_version"])
print("torch imported:", "torch" in sys.modules)
routes.close()
"""


def imports_torch(code: str, data_dir: Path, *arguments: object) -> bool:
    """Run code in a process of its own, whose data folder is this one."""
    env = os.environ | {"VISEME_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] == "torch imported: True"


@pytest.fixture
def data_dir(tmp_path: Path, weights_cache: Path) -> Path:
    """Return a data folder with the weights that were fetched."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "weights").symlink_to(weights_cache)
    return folder


@pytest.fixture
def talk_mp4(tmp_path: Path, talking_film: bytes) -> Path:
    path = tmp_path / "talk.mp4"
    path.write_bytes(talking_film)
    return path


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_reading_needs_no_torch(talk_mp4: Path, data_dir: Path, precision: str):
    assert not imports_torch(COMMAND, data_dir, "read", talk_mp4, "--precision", precision)


def test_lip_sync_needs_no_torch(talk_mp4: Path, data_dir: Path, tmp_path: Path):
    speech = tmp_path / "speech.wav"
    speech.write_bytes(make_wav(0.4))
    assert not imports_torch(COMMAND, data_dir, "sync", talk_mp4, speech, "-o", tmp_path / "out.mp4")


def test_an_avatar_speaks_without_torch(avatar_folder: Path, data_dir: Path, tmp_path: Path):
    speech = tmp_path / "speech.wav"
    speech.write_bytes(make_wav(0.4))
    assert not imports_torch(COMMAND, data_dir, "avatar", "speak", avatar_folder, speech, "-o", tmp_path / "out.mp4")


def test_visemes_need_no_torch(data_dir: Path, tmp_path: Path):
    speech = tmp_path / "speech.wav"
    speech.write_bytes(make_wav(0.4))
    assert not imports_torch(COMMAND, data_dir, "visemes", speech, "-o", tmp_path / "out.json")


def test_a_worker_needs_no_torch(data_dir: Path):
    assert not imports_torch(WORKER, data_dir)
