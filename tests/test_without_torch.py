"""What runs where torch is not installed, as in the image for CPUs, and what is refused there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.video_files import make_wav

from inference.backends import device
from inference.backends.device import GPU_DEVICES, choose_device, describe_gpu, driver_version
from inference.errors import DeviceUnavailable
from inference.weights.registry import STARTER

WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
"""
COMMAND = WITHOUT_TORCH + "from container.cli import main\nraise SystemExit(main(sys.argv[1:]))\n"
WORKER = (
    WITHOUT_TORCH
    + """
from container.worker.routes import WorkerRoutes
routes = WorkerRoutes.load(None)
health = routes.warm_up()
print(health["device"], health["torch_version"], health["torch_cuda"])
routes.close()
"""
)
has_gpu = driver_version() is not None or any(path.exists() for path in GPU_DEVICES)
on_cpu = pytest.mark.skipif(has_gpu, reason="a machine with a GPU needs torch")


@pytest.fixture
def data_dir(tmp_path: Path, weights_cache: Path) -> Path:
    """Return a data folder with the weights that were fetched."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "weights").symlink_to(weights_cache)
    return folder


def run(code: str, data_dir: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = os.environ | {"VISEME_DATA_DIR": str(data_dir)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300)


@on_cpu
@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_reading_gives_the_same_text(tmp_path: Path, talking_film: bytes, data_dir: Path, precision: str):
    """In float32 OpenVINO takes torch's place."""
    video = tmp_path / "talk.mp4"
    video.write_bytes(talking_film)
    with_torch = COMMAND.removeprefix(WITHOUT_TORCH)
    [found, expected] = [
        run(code, data_dir, "read", video, "--precision", precision) for code in (COMMAND, f"import sys\n{with_torch}")
    ]
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout
    assert found.stdout.split()


@on_cpu
def test_lip_sync_runs(tmp_path: Path, talking_film: bytes, data_dir: Path):
    video, speech, output = (tmp_path / name for name in ("talk.mp4", "speech.wav", "out.mp4"))
    video.write_bytes(talking_film)
    speech.write_bytes(make_wav(0.4))
    done = run(COMMAND, data_dir, "sync", video, speech, "-o", output)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 1000


@on_cpu
def test_a_worker_reports_that_it_has_none(data_dir: Path):
    done = run(WORKER, data_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "cpu None None"


def test_a_torch_file_is_refused(tmp_path: Path, talking_film: bytes, data_dir: Path):
    video, weights = tmp_path / "talk.mp4", tmp_path / "best.pt"
    video.write_bytes(talking_film)
    torch.save({"weight": torch.zeros(2)}, weights)
    done = run(COMMAND, data_dir, "read", video, "--weights", weights, "--device", "cpu")
    assert done.returncode == 2
    assert f"{weights}: reading a torch file needs torch, which is not installed here" in done.stderr


def test_conversion_is_refused(data_dir: Path):
    done = run(COMMAND, data_dir, "weights", "convert", STARTER.name, "--to", "onnx", "-o", data_dir / "w.onnx")
    assert done.returncode == 2
    assert "converting weights needs torch" in done.stderr


def test_super_resolution_is_refused(tmp_path: Path, talking_film: bytes, data_dir: Path):
    video, speech = tmp_path / "talk.mp4", tmp_path / "speech.wav"
    video.write_bytes(talking_film)
    speech.write_bytes(make_wav(0.4))
    arguments = ("sync", video, speech, "-o", tmp_path / "out.mp4", "--enhance", "swin2sr", "--device", "cpu")
    done = run(COMMAND, data_dir, *arguments)
    assert done.returncode == 2
    assert "the enhancer swin2sr needs torch" in done.stderr


def test_a_gpu_is_not_left_idle_in_silence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "has_torch", lambda: False)
    monkeypatch.setattr(device, "driver_version", lambda: "580.95.05")
    for name in ("auto", "cuda"):
        with pytest.raises(DeviceUnavailable, match=r"torch is not installed.*580\.95\.05.*choose the device cpu"):
            choose_device(name)
    assert choose_device("cpu").name == "cpu"
    assert describe_gpu() == {"gpu": None, "driver": "580.95.05", "torch_cuda": None}
