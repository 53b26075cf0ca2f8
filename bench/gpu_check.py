"""Does lip reading on this GPU say what it says on the CPU?

    python -m bench.gpu_check [--clips 16] [--weights starter]

Rendered sentences go through the network on the CPU in float32 and on the GPU in each precision, one at a time and
in a batch. Every check compares greedy texts, which must be the same, and logits, which may differ by a share of
their range. Exits 0 where all hold, 1 where one fails, 2 where there is no GPU to check. No CUDA graphs are used.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from container.samples import make_samples
from inference.backends import Device, choose_device
from inference.backends.device import describe_gpu
from inference.lip_reading.decode import Logits, read_greedy
from inference.lip_reading.model import load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.windows import Network
from inference.settings import Settings
from inference.conversion.int8_lip_coord_net import Sample

HOLD, FAIL, NOTHING = 0, 1, 2  # exit codes
# Of the range of the CPU's logits, that the GPU's may differ by.
TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}
# bfloat16 keeps 8 bits of a number: a letter on the verge may turn. It is not what `auto` means on a GPU.
MUST_READ_ALIKE = ("f32", "f16")
N_ROUNDS = 5


@dataclass(frozen=True)
class Check:
    """One precision, in batches of so many. difference: the largest, as a share of the range of the logits."""

    precision: str
    n_batch: int
    n_clips: int
    n_same: int
    difference: float
    ms_per_clip: float

    @property
    def holds(self) -> bool:
        is_alike = self.n_same == self.n_clips or self.precision not in MUST_READ_ALIKE
        return is_alike and self.difference <= TOLERANCE[self.precision]  # false for nan


def main() -> int:
    """Check and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--weights", default="starter")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return NOTHING
    choose_device("cuda")  # says what is wrong where torch cannot use it
    print(", ".join(f"{name} {value}" for name, value in describe_gpu().items()))
    sources = Settings.from_env().weight_sources
    samples = list(make_samples(sources, n_samples=asked.clips))

    def load(device: str, precision: str) -> Network:
        return load_model(asked.weights, Device(device, precision), sources).network

    return report(check_all(load, "cuda", samples))


def check_all(load: Callable[[str, str], Network], device: str, samples: Sequence[Sample]) -> list[Check]:
    """Every precision of a device against float32 on the CPU. load: (device, precision) -> network."""
    expected, cpu_ms = run(load("cpu", "f32"), samples, 1)
    print(f"CPU, f32: {cpu_ms:.1f} ms a clip")
    checks = []
    for precision in TOLERANCE:
        network = load(device, precision)
        for n_batch in sorted({1, len(samples)}):
            found, ms = run(network, samples, n_batch)
            checks.append(compare(precision, n_batch, expected, found, ms))
    return checks


def run(network: Network, samples: Sequence[Sample], n_batch: int) -> tuple[Logits, float]:
    """Logits of all samples, (n, T, 28), and milliseconds a sample, the median of some rounds after a first one."""
    videos, lips = (np.concatenate(arrays) for arrays in zip(*samples, strict=True))

    def once() -> Logits:
        starts = range(0, len(samples), n_batch)
        return np.concatenate([network(videos[i : i + n_batch], lips[i : i + n_batch])[0] for i in starts])

    logits, took = once(), []
    for _ in range(N_ROUNDS):
        start = time.perf_counter()
        once()
        took.append(time.perf_counter() - start)
    return logits, 1000 * float(np.median(took)) / len(samples)


def compare(precision: str, n_batch: int, expected: Logits, found: Logits, ms: float) -> Check:
    texts = [[read_greedy(one, FPS).text for one in logits] for logits in (expected, found)]
    n_same = sum(a == b for a, b in zip(*texts, strict=True))
    difference = float(np.abs(found - expected).max() / np.ptp(expected))
    return Check(precision, n_batch, len(expected), n_same, difference, ms)


def report(checks: Sequence[Check]) -> int:
    """Print a row for each check; the exit code."""
    print(f"{'precision':10}{'batch':>6}{'same text':>12}{'difference':>12}{'at most':>9}{'ms a clip':>11}")
    for one in checks:
        print(
            f"{one.precision:10}{one.n_batch:6}{one.n_same:6} of {one.n_clips:<3}{one.difference:11.5f}"
            f"{TOLERANCE[one.precision]:9.3f}{one.ms_per_clip:11.2f}  {'ok' if one.holds else 'FAILED'}"
        )
    n_failed = sum(not one.holds for one in checks)
    print(f"{n_failed} of {len(checks)} checks failed" if n_failed else f"all {len(checks)} checks hold")
    return FAIL if n_failed else HOLD


if __name__ == "__main__":
    sys.exit(main())
