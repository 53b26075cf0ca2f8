from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_wav2lip import NARROW
from torch import nn

from bench import gpu_check, gpu_measures
from bench.gpu_check import Plan, check, compare, main
from bench.gpu_measures import Occupation, Peak, Transfer, occupation_of
from bench.gpu_networks import Autocast, CheckedNetwork, count_same_pixels, in_stages, random_maker
from bench.gpu_table import Row, to_markdown
from inference.backends import Device
from inference.models import AvatarGenerator, AvatarUNet, LipCoordNet, Wav2Lip

UNET_WIDTHS, N_AUDIO = (4, 6, 8, 10, 12), 2


@pytest.fixture(scope="module")
def tiny() -> dict[str, CheckedNetwork]:
    rng = np.random.default_rng(4)

    def draw(*shape: int) -> np.ndarray:
        return rng.random((2, *shape), dtype=np.float32)

    reading = CheckedNetwork(
        "LipCoordNet", "clip", random_maker(LipCoordNet), (draw(3, 2, 64, 128), draw(2, 20, 2)), lambda *_: 1.0, "texts"
    )
    unet = random_maker(lambda: AvatarGenerator(AvatarUNet("ave", UNET_WIDTHS, N_AUDIO)))
    faces = rng.integers(0, 256, (2, 320, 320, 3), np.uint8)
    return {
        "wav2lip": CheckedNetwork(
            "Wav2Lip",
            "frame",
            random_maker(lambda: Wav2Lip(NARROW)),
            (draw(1, 80, 16), draw(6, 96, 96)),
            count_same_pixels,
            "pixels",
        ),
        "unet": CheckedNetwork(
            "U-Net", "frame", unet, (faces, draw(N_AUDIO, 16, 16)), count_same_pixels, "pixels", 1.0
        ),
        "reading-stages": in_stages(reading),
    }


@pytest.fixture(autouse=True)
def only_tiny_networks(monkeypatch: pytest.MonkeyPatch, tiny: dict[str, CheckedNetwork]) -> None:
    makers = {name: lambda one=one: one for name, one in tiny.items()}
    monkeypatch.setattr(gpu_check, "list_networks", lambda *_: makers)
    monkeypatch.setattr(gpu_measures, "N_ROUNDS", 1)


def test_the_cpu_stands_in_for_every_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ["--networks", "wav2lip", "--precisions", "f32,bf16", "--batches", "3,1"]
    assert main(["--device", "cpu", "-o", str(tmp_path / "new" / "gpu"), *names]) == 0
    assert "all 4 checks passed" in capsys.readouterr().out
    found = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert found["n_failed"] == 0
    assert found["machine"]["torch"] == torch.__version__
    rows = found["rows"]
    assert [(row["n_batch"], row["precision"]) for row in rows[:4]] == [
        (1, "f32"),
        (3, "f32"),
        (1, "bf16"),
        (3, "bf16"),
    ]
    assert {row["run_as"] for row in rows} == {"eager"}
    assert all("no CUDA graph" in row["note"] and row["peak"] is None and row["ms"] > 0 for row in rows)
    # (3, 1, 80, 16) and (3, 6, 96, 96) float32 go to the device, (3, 3, 96, 96) comes back.
    assert (rows[1]["upload"]["n_bytes"], rows[1]["download"]["n_bytes"]) == (4 * 3 * (1280 + 55296), 4 * 3 * 27648)
    assert all(0 < row["occupation"]["busy"] <= 1 for row in rows)
    assert rows[0]["same"] == 1
    assert 0 < rows[2]["difference"] < 0.1
    table = (tmp_path / "new" / "gpu.md").read_text()
    assert table.count("\n|") == 2 + 2
    assert "no CUDA graph" in table


def test_images_of_bytes_are_compared(tiny: dict[str, CheckedNetwork]):
    (row,) = check(tiny["unet"], Plan("cpu", ("f32",), (1,)))
    assert (row.same, row.difference, row.passes) == (1, 0, True)


def test_networks_in_stages_have_no_graph(tiny: dict[str, CheckedNetwork]):
    (row,) = check(tiny["reading-stages"], Plan("cpu", ("f32",), (2,)))
    assert row.passes
    assert row.difference < 1e-5
    assert row.run_as == "eager"


def test_float16_on_a_cpu(tiny: dict[str, CheckedNetwork]):
    (row,) = check(tiny["wav2lip"], Plan("cpu", ("f16",), (2,)))
    assert row.passes
    assert 0 < row.difference < 0.02


def test_a_batch_that_cannot_run_fails_alone(tiny: dict[str, CheckedNetwork], tmp_path: Path):
    class Full(nn.Module):
        def forward(self, mel: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
            if len(mel) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
            return face[:, :3] + mel.mean()

    network = replace(tiny["wav2lip"], make=Full)
    one, two = check(network, Plan("cpu", ("f32",), (1, 2)))
    assert one.passes
    assert not two.passes
    assert two.fault == "CUDA out of memory."
    assert "batch 2: CUDA out of memory." in to_markdown([one, two], "a GPU")


def test_one_failed_network_fails_the_command(
    tiny: dict[str, CheckedNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    made = []

    def make_another() -> nn.Module:
        made.append(None)
        torch.manual_seed(len(made))
        return Wav2Lip(NARROW).eval()

    another = replace(tiny["wav2lip"], make=make_another)
    monkeypatch.setattr(gpu_check, "list_networks", lambda *_: {"wav2lip": lambda: another})
    assert main(["--device", "cpu", "-o", str(tmp_path / "gpu"), "--precisions", "f32", "--batches", "1"]) == 1
    assert "1 of 1 checks failed" in capsys.readouterr().out


def test_autocast_takes_and_returns_float32(tiny: dict[str, CheckedNetwork]):
    network = tiny["wav2lip"]
    module = Autocast(network.make().to(torch.bfloat16), Device("cpu", "bf16"))
    with torch.inference_mode():
        (found,) = module(*map(torch.from_numpy, network.inputs))
    (expected,) = network.run_eager(Device("cpu", "f32"))(*network.inputs)
    assert found.dtype == torch.float32
    assert 0 < np.abs(found.numpy() - expected).max() < 0.1


@pytest.mark.parametrize(
    ("same", "difference", "precision", "passes"),
    [
        (1.0, 0.01, "f16", True),
        (0.75, 0.01, "f16", False),
        (0.75, 0.01, "bf16", True),
        (1.0, 0.2, "bf16", False),
        (1.0, float("nan"), "f32", False),
    ],
)
def test_texts_and_logits_are_compared(same: float, difference: float, precision: str, passes: bool):
    limit = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}[precision]
    row = Row("LipCoordNet", "clip", precision, "eager", 1, same, "texts", difference, 1.0, limit)
    assert row.passes is passes


def test_the_worst_output_counts_and_a_level_may_flip(tiny: dict[str, CheckedNetwork]):
    row = Row("U-Net", "frame", "f32", "eager", 1)
    bytes_of = lambda *values: np.array([values], np.uint8)  # noqa: E731
    flipped = compare(row, tiny["unet"], [bytes_of(0, 255)], [bytes_of(1, 255)])
    assert flipped.passes
    assert (flipped.same, flipped.difference) == (0.5, 1)
    assert not compare(row, tiny["unet"], [bytes_of(0, 255)], [bytes_of(2, 255)]).passes
    two = replace(tiny["wav2lip"], count_same=None)
    outputs = [np.array([0.0, 1]), np.array([0.0, 100])]
    found = compare(row, two, outputs, [outputs[0] + 0.5, outputs[1] + 1])
    assert (found.difference, found.output_range) == (0.5, 1)
    lost = compare(row, two, outputs, [outputs[0], outputs[1] * np.nan])
    assert np.isnan(lost.difference)
    assert not lost.passes


def test_the_share_of_a_span_that_kernels_cover():
    assert occupation_of([]) is None
    # 0..2 and 6..10 of 0..10; the second interval lies within the first, the third overlaps the fourth.
    found = occupation_of([(0, 2), (0.5, 1), (6, 9), (8, 10)])
    assert found == Occupation(0.6, 0.004, 4)


def test_a_line_of_the_table():
    row = Row("U-Net", "frame", "f16", "CUDA graph", 1, 0.5, "pixels", 2.55, 255.0, 0.02, 3.0)
    row = replace(row, peak=Peak(10, 20), upload=Transfer(1 << 20, 0.5), download=Transfer(1 << 19, 0.25))
    row = replace(row, occupation=Occupation(0.5, 1.5, 3))
    *_, line = to_markdown([row], "a GPU").splitlines()
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells == [
        "U-Net",
        "f16",
        "CUDA graph",
        "50 % of pixels",
        "0.01",
        "3",
        "10, 20",
        "0.5 (1), 0.25 (0.5)",
        "50 %",
        "1.5",
    ]


def test_without_a_gpu_nothing_passes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert capsys.readouterr().out == "no CUDA device: nothing was checked\n"
