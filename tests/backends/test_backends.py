from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inference.backends import Device, choose_device, has_int8, resolve_auto_precision
from inference.backends import device as device_module
from inference.backends.device import count_threads, describe_gpu, driver_version
from inference.backends.torch_network import TorchNetwork
from inference.errors import DeviceUnavailable, InvalidRequest
from inference.models import LipCoordNet


def test_auto_is_a_device_of_this_machine():
    assert choose_device() == (Device("cuda", "f16") if torch.cuda.is_available() else Device("cpu", "auto"))


def test_auto_becomes_a_precision_recorded_for_the_weights(monkeypatch: pytest.MonkeyPatch):
    auto = Device("cpu", "auto")
    monkeypatch.setattr(device_module, "has_bf16", lambda: True)
    assert resolve_auto_precision(auto) == Device("cpu", "f32")
    assert resolve_auto_precision(auto, "bf16") == Device("cpu", "bf16")
    assert resolve_auto_precision(Device("cpu", "f32"), "bf16") == Device("cpu", "f32")
    monkeypatch.setattr(device_module, "has_int8", lambda: True)
    assert resolve_auto_precision(auto, "int8", "bf16") == Device("cpu", "int8")
    monkeypatch.setattr(device_module, "has_int8", lambda: False)
    assert resolve_auto_precision(auto, "int8", "bf16") == Device("cpu", "bf16")
    monkeypatch.setattr(device_module, "has_bf16", lambda: False)
    assert resolve_auto_precision(auto, "int8", "bf16") == Device("cpu", "f32")


def test_int8_needs_a_cpu_with_32_bit_accumulation(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    assert not has_int8(cpuinfo)
    for flags, expected in (("avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512f avx512_vnni", True)):
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} xsave\n")
        assert has_int8(cpuinfo) == expected


def test_bf16_is_rejected_if_the_cpu_would_emulate_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "has_bf16", lambda: False)
    with pytest.raises(InvalidRequest, match="this CPU does not support it; expected auto, f32 or int8"):
        choose_device("cpu", "bf16")


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("tpu", "auto", "expected one of auto, cpu, cuda"), ("cpu", "f64", "f32"), ("cpu", "f16", "needs a GPU")],
)
def test_a_wrong_choice_is_reported(device: str, precision: str, words: str):
    with pytest.raises(InvalidRequest, match=words):
        choose_device(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_reports_the_torch_version():
    with pytest.raises(DeviceUnavailable, match=torch.__version__.split("+")[0]):
        choose_device("cuda")


def test_the_driver_version(tmp_path: Path):
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8\n")
    assert driver_version(tmp_path / "version") == "550.163.01"
    assert driver_version(tmp_path / "none") is None


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes `choose_device` find a GPU and a CUDA build of torch."""

    def pretend(driver: str, *, is_available: bool, fault: str | None = None) -> None:
        def run() -> None:
            if fault is not None:
                raise RuntimeError(fault)

        monkeypatch.setattr(device_module, "driver_version", lambda: driver)
        monkeypatch.setattr(device_module, "run_on_gpu", run)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10G")

    return pretend


def test_a_driver_too_old_for_torch_is_reported(gpu_machine: Callable[..., None]):
    gpu_machine("470.57.02", is_available=False)
    with pytest.raises(
        DeviceUnavailable,
        match=r"this machine has a GPU, but torch .* \(built for CUDA 13\.0\) .*NVIDIA driver: 470\.57\.02",
    ):
        choose_device()
    with pytest.raises(DeviceUnavailable, match=r"device cuda was requested, but .*470\.57\.02"):
        choose_device("cuda")
    assert choose_device("cpu").name == "cpu"


def test_a_gpu_without_kernels_in_torch_is_reported(gpu_machine: Callable[..., None]):
    gpu_machine("580.65.06", is_available=True, fault="CUDA error: no kernel image is available\nCompile with ...")
    with pytest.raises(DeviceUnavailable, match=r"580\.65\.06\): CUDA error: no kernel image is available; install"):
        choose_device()


def test_a_working_gpu_is_chosen_and_described(gpu_machine: Callable[..., None]):
    gpu_machine("580.65.06", is_available=True)
    assert choose_device("auto", "f16") == choose_device() == Device("cuda", "f16")
    assert choose_device("cuda", "f32") == Device("cuda", "f32")
    with pytest.raises(InvalidRequest, match="int8 needs a CPU; on a GPU expected auto, f32, f16 or bf16"):
        choose_device("cuda", "int8")
    assert describe_gpu() == {"gpu": "NVIDIA A10G", "driver": "580.65.06", "torch_cuda": "13.0"}


def test_without_a_gpu_the_description_is_empty(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "driver_version", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert describe_gpu() == {"gpu": None, "driver": None, "torch_cuda": None}


def test_a_network_takes_and_returns_arrays():
    double = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        double.weight.copy_(torch.eye(2) * 2)
    (result,) = TorchNetwork(double, Device("cpu", "f32"))(np.array([[1, 2]], np.float32))
    assert result.dtype == np.float32
    assert result.tolist() == [[2, 4]]


def test_memory_layout_and_bf16_change_outputs_little():
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


def test_threads_are_the_physical_cores_unless_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert count_threads(7) == torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "torch")
    assert count_threads(7) == 7
    for cpu, siblings in ((0, "0,2\n"), (1, "1,3\n"), (2, "0,2\n")):  # 3 has no file
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(device_module, "CORE_SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(device_module, "cpu_quota", lambda: 8)
    assert count_threads() == 3
    monkeypatch.setattr(device_module, "cpu_quota", lambda: 2)
    assert count_threads() == 2


@pytest.mark.parametrize(("driver", "device"), [("580.65.06", ""), (None, "nvidiactl")])
def test_torch_is_needed_only_if_there_may_be_a_gpu(
    driver: str | None, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device_module, "driver_version", lambda: None)
    monkeypatch.setattr(device_module, "GPU_DEVICES", (tmp_path / "nvidiactl",))
    monkeypatch.setattr(device_module, "has_cuda", lambda: pytest.fail("torch was asked"))
    monkeypatch.delitem(sys.modules, "torch")
    assert choose_device().name == "cpu"
    assert describe_gpu() == {"gpu": None, "driver": None, "torch_cuda": None}
    monkeypatch.setattr(device_module, "driver_version", lambda: driver)
    if device:
        (tmp_path / device).touch()
    assert device_module.may_have_gpu()
