from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bench import gpu_check
from inference.backends import Device
from inference.backends.torch_network import TorchNetwork
from inference.models import LipCoordNet


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(4)
    return [
        (rng.random((1, 3, 6, 64, 128), dtype=np.float32), rng.random((1, 6, 20, 2), dtype=np.float32))
        for _ in range(2)
    ]


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    torch.manual_seed(6)
    return TorchNetwork(LipCoordNet(), Device("cpu", "f32"))


@pytest.fixture(autouse=True)
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "N_ROUNDS", 1)


def test_a_device_that_equals_the_cpu_passes_every_check(
    samples, network: TorchNetwork, capsys: pytest.CaptureFixture[str]
):
    loaded = []

    def load(device: str, precision: str):
        loaded.append((device, precision))
        return network

    checks = gpu_check.check_all(load, "simulated", samples)
    assert loaded == [("cpu", "f32"), ("simulated", "f32"), ("simulated", "f16"), ("simulated", "bf16")]
    assert [(one.precision, one.n_batch) for one in checks] == [(p, n) for p in ("f32", "f16", "bf16") for n in (1, 2)]
    assert gpu_check.report(checks) == 0
    assert "all 6 checks passed" in capsys.readouterr().out


def test_one_failed_precision_fails_the_command(samples, network: TorchNetwork, capsys: pytest.CaptureFixture[str]):
    def load(device: str, precision: str):
        shift = 0.5 if (device, precision) == ("simulated", "f16") else 0.0
        return lambda *inputs: [network(*inputs)[0] + np.float32(shift)]

    assert gpu_check.report(gpu_check.check_all(load, "simulated", samples)) == 1
    out = capsys.readouterr().out
    assert out.count("FAILED") == 2
    assert "2 of 6 checks failed" in out


@pytest.mark.parametrize(
    ("precision", "n_same", "difference", "passes"),
    [
        ("f16", 4, 0.01, True),
        ("f16", 3, 0.01, False),
        ("bf16", 3, 0.01, True),
        ("bf16", 4, 0.2, False),
        ("f32", 4, float("nan"), False),
    ],
)
def test_text_and_logits_are_compared(precision: str, n_same: int, difference: float, passes: bool):
    assert gpu_check.Check(precision, 1, 4, n_same, difference, 0.0).passes is passes


def test_without_a_gpu_nothing_passes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 2
    assert capsys.readouterr().out == "no CUDA device: nothing was checked\n"
