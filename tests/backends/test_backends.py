from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inference.backends import Device, TorchNetwork, choose_device
from inference.backends.device import driver_version
from inference.errors import DeviceUnavailable, InvalidRequest
from inference.models import LipCoordNet


def test_auto_is_a_device_this_machine_has():
    assert choose_device() == Device("cuda" if torch.cuda.is_available() else "cpu", "f32")


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("tpu", "auto", "expected one of auto, cpu, cuda"), ("cpu", "f64", "f32"), ("cpu", "f16", "needs a GPU")],
)
def test_a_wrong_choice_is_named(device: str, precision: str, words: str):
    with pytest.raises(InvalidRequest, match=words):
        choose_device(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_which_torch_this_is():
    with pytest.raises(DeviceUnavailable, match=torch.__version__.split("+")[0]):
        choose_device("cuda")


def test_the_driver_is_named_by_its_version(tmp_path: Path):
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8\n")
    assert driver_version(tmp_path / "version") == "550.163.01"
    assert driver_version(tmp_path / "none") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that works")
def test_a_gpu_that_cannot_be_used_is_never_passed_over_in_silence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.backends.device.driver_version", lambda: "470.57.02")
    with pytest.raises(DeviceUnavailable, match=r"this machine has a GPU, but torch .*NVIDIA driver: 470\.57\.02"):
        choose_device()
    assert choose_device("cpu").name == "cpu"


def test_a_network_takes_and_gives_arrays():
    double = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        double.weight.copy_(torch.eye(2) * 2)
    (result,) = TorchNetwork(double, Device("cpu", "f32"))(np.array([[1, 2]], np.float32))
    assert result.dtype == np.float32
    assert result.tolist() == [[2, 4]]


def test_the_memory_layout_and_bf16_change_little():
    torch.manual_seed(0)
    net = LipCoordNet().eval()
    rng = np.random.default_rng(0)
    video = rng.random((1, 3, 20, 64, 128), dtype=np.float32)
    lips = rng.random((1, 20, 20, 2), dtype=np.float32)
    with torch.inference_mode():
        plain = net(torch.from_numpy(video), torch.from_numpy(lips)).numpy()
    (f32,) = TorchNetwork(net, Device("cpu", "f32"))(video, lips)
    (bf16,) = TorchNetwork(net, Device("cpu", "bf16"))(video, lips)
    assert np.abs(f32 - plain).max() < 1e-5
    assert 0 < np.abs(bf16 - plain).max() < 0.05
