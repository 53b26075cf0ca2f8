"""Compare lip reading on this GPU with the CPU.

    python -m bench.gpu_check [--clips 16] [--weights starter]

Rendered sentences are run through the network on the CPU in float32, and on the GPU in each precision, one at a time
and in one batch. CUDA graphs are not used. Columns of the table:

  precision, batch  of the GPU
  same text         clips whose greedy text equals the CPU's; all must, except in bf16
  difference        largest difference of a logit from the CPU's, over the range of the CPU's logits
  at most           limit of the difference
  ms a clip         median time on the GPU

Exits with status 0 if all checks pass, 1 if one fails, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from container.commands.calibration_data import make_lip_reading_samples
from inference.backends import Device, choose_device
from inference.backends.device import describe_gpu
from inference.conversion.int8_lip_coord_net import CalibrationSample
from inference.lip_reading.greedy_decoder import Logits, read_greedy
from inference.lip_reading.model import load_model
from inference.lip_reading.options import FPS
from inference.lip_reading.staged_network import Network
from inference.settings import Settings

EXIT_PASSED, EXIT_FAILED, EXIT_NO_GPU = 0, 1, 2
TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}  # difference of logits / range of the CPU's logits
# bfloat16 has 8 significant bits, so a character that is nearly a tie may change. `auto` never means it on a GPU.
EXACT_TEXT = ("f32", "f16")  # precisions whose text must equal the CPU's
N_ROUNDS = 5  # timed repetitions


@dataclass(frozen=True)
class Check:
    """The result for one precision and batch size.

    n_same: clips whose text equals the CPU's. difference: the largest difference of a logit / range of the logits.
    """

    precision: str
    n_batch: int
    n_clips: int
    n_same: int
    difference: float
    ms_per_clip: float

    @property
    def passes(self) -> bool:
        is_text_ok = self.n_same == self.n_clips or self.precision not in EXACT_TEXT
        return is_text_ok and self.difference <= TOLERANCE[self.precision]  # false for NaN


def main() -> int:
    """Print a table of all checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--weights", default="starter")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return EXIT_NO_GPU
    choose_device("cuda")  # raises an error with the reason if torch cannot use it
    print(", ".join(f"{name} {value}" for name, value in describe_gpu().items()))
    sources = Settings.from_env().weight_sources
    samples = list(make_lip_reading_samples(sources, n_samples=args.clips))

    def load(device: str, precision: str) -> Network:
        return load_model(args.weights, Device(device, precision), sources).network

    return report(check_all(load, "cuda", samples))


def check_all(load: Callable[[str, str], Network], device: str, samples: Sequence[CalibrationSample]) -> list[Check]:
    """Compare every precision of a device with float32 on the CPU. load: (device, precision) -> network."""
    expected, cpu_ms = run_timed(load("cpu", "f32"), samples, 1)
    print(f"CPU, f32: {cpu_ms:.1f} ms a clip")
    checks = []
    for precision in TOLERANCE:
        network = load(device, precision)
        for n_batch in sorted({1, len(samples)}):
            logits, ms = run_timed(network, samples, n_batch)
            checks.append(compare(precision, n_batch, expected, logits, ms))
    return checks


def run_timed(network: Network, samples: Sequence[CalibrationSample], n_batch: int) -> tuple[Logits, float]:
    """Return the logits of all samples, (n, T, 28), and the median milliseconds per sample after a first run."""
    videos, lips = (np.concatenate(arrays) for arrays in zip(*samples, strict=True))

    def run_all() -> Logits:
        starts = range(0, len(samples), n_batch)
        return np.concatenate([network(videos[i : i + n_batch], lips[i : i + n_batch])[0] for i in starts])

    logits, times = run_all(), []
    for _ in range(N_ROUNDS):
        start = time.perf_counter()
        run_all()
        times.append(time.perf_counter() - start)
    return logits, 1000 * float(np.median(times)) / len(samples)


def compare(precision: str, n_batch: int, expected: Logits, logits: Logits, ms: float) -> Check:
    texts = [[read_greedy(one, FPS).text for one in batch] for batch in (expected, logits)]
    n_same = sum(a == b for a, b in zip(*texts, strict=True))
    difference = float(np.abs(logits - expected).max() / np.ptp(expected))
    return Check(precision, n_batch, len(expected), n_same, difference, ms)


def report(checks: Sequence[Check]) -> int:
    """Print one row per check; return the exit status."""
    print(f"{'precision':10}{'batch':>6}{'same text':>12}{'difference':>12}{'at most':>9}{'ms a clip':>11}")
    for one in checks:
        print(
            f"{one.precision:10}{one.n_batch:6}{one.n_same:6} of {one.n_clips:<3}{one.difference:11.5f}"
            f"{TOLERANCE[one.precision]:9.3f}{one.ms_per_clip:11.2f}  {'ok' if one.passes else 'FAILED'}"
        )
    n_failed = sum(not one.passes for one in checks)
    print(f"{n_failed} of {len(checks)} checks failed" if n_failed else f"all {len(checks)} checks passed")
    return EXIT_FAILED if n_failed else EXIT_PASSED


if __name__ == "__main__":
    sys.exit(main())
