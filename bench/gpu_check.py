"""Compare the networks of reading, lip sync and live avatars on this GPU with the CPU, and measure them.

    python -m bench.gpu_check [-o out/gpu] [--networks reading,unet] [--batches 1,8,64] [--device cpu]

Each network runs on the CPU in float32, and on the GPU in each precision, each batch size, operator by operator
(eager) and as one recorded CUDA graph. Writes -o .json with every row and -o .md with a table. Networks:

  reading, reading-stages   LipCoordNet in one call, and in stages as long videos run it; rendered sentences
  wav2lip, wav2lip-full     the starter of lip sync; the published size with random weights
  s3fd                      the face detector; random weights unless the user has supplied it
  unet, unet-full           the starter avatar's generator; upstream's size with random weights
  encoder                   the starter avatar's audio encoder

Columns of the table:

  same as the CPU    texts or pixels that equal the CPU's; all texts must, except in bf16
  largest difference of an output from the CPU's / range of the CPU's outputs; at most 0.001 in f32, 0.02 in f16, 0.1 in
                     bf16, or one level of 255
  ms of one          median wall time, copies included
  MiB                peak of the largest batch, weights included
  to, from           copies of the inputs and outputs of the largest batch
  device busy, gaps  from the first kernel to the last, by torch's profiler, in the smallest batch

--device cpu runs the same code without a GPU: no CUDA graph and no memory is measured, and times are those of the CPU.
Exits with status 0 if all checks pass, 1 if one fails, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench.gpu_measures import (
    measure_download,
    measure_ms,
    measure_occupation,
    measure_upload,
    read_peak,
    reset_memory,
)
from bench.gpu_networks import CheckedNetwork, Network, list_networks, take
from bench.gpu_table import TOLERANCE, Row, count_failed, describe, to_markdown
from inference.backends import Device, choose_device
from inference.backends.device import describe_gpu
from inference.backends.openvino_network import Array
from inference.settings import Settings

EXIT_PASSED, EXIT_FAILED, EXIT_NO_GPU = 0, 1, 2
BATCH_SIZES = {"cuda": (1, 2, 4, 8, 16, 32, 64), "cpu": (1, 2)}
# Convolutions in float16 take minutes on a CPU.
PRECISIONS = {"cuda": tuple(TOLERANCE), "cpu": ("f32", "bf16")}
EAGER, GRAPH = "eager", "CUDA graph"
ON_CPU = "On a CPU there is no CUDA graph, and torch does not count memory."
Report = Callable[[Row], None]


@dataclass(frozen=True)
class Plan:
    """What to run each network in."""

    device: str
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]

    @property
    def ways(self) -> tuple[str, ...]:
        return (EAGER, GRAPH) if self.device == "cuda" else (EAGER,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/gpu"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--networks", type=split, help="default: all")
    parser.add_argument("--precisions", type=split, help="default: f32,f16,bf16, without f16 on a CPU")
    parser.add_argument("--batches", type=lambda text: tuple(sorted(map(int, split(text)))))
    parser.add_argument("--inputs", type=int, default=16, help="different inputs of each network")
    parser.add_argument("--weights", default="starter", help="of lip reading")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return EXIT_NO_GPU
    choose_device(args.device)  # raises an error with the reason if torch cannot use it
    networks = list_networks(Settings.from_env(), args.weights, args.inputs)
    if unknown := [name for name in args.networks or () if name not in networks]:
        parser.error(f"--networks {unknown[0]}: expected some of {','.join(networks)}")
    if unknown := [name for name in args.precisions or () if name not in TOLERANCE]:
        parser.error(f"--precisions {unknown[0]}: expected some of {','.join(TOLERANCE)}")
    about = describe_machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    device: str = args.device
    plan = Plan(device, args.precisions or PRECISIONS[device], args.batches or BATCH_SIZES[device])
    rows = []
    for name in args.networks or networks:
        for row in check(networks[name](), plan):
            print(describe(row), flush=True)
            rows.append(row)
    write_results(args.output, rows, about)
    n_failed = count_failed(rows)
    print(f"{n_failed} of {len(rows)} checks failed" if n_failed else f"all {len(rows)} checks passed")
    return EXIT_FAILED if n_failed else EXIT_PASSED


def split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def describe_machine(device: str) -> dict[str, str | None]:
    on_cpu: dict[str, str | None] = {"cpu": platform.machine(), "threads": str(torch.get_num_threads())}
    about = describe_gpu() if device == "cuda" else on_cpu
    return about | {"torch": torch.__version__}


def check(network: CheckedNetwork, plan: Plan) -> Iterator[Row]:
    """Yield one row per precision, way to run it and batch size."""
    expected = run_all(network.run_eager(Device("cpu", "f32")), network.inputs, 1)
    for precision in plan.precisions:
        for run_as in plan.ways if network.load is None else (EAGER,):
            for n_batch in plan.batch_sizes:
                yield check_one(network, Device(plan.device, precision), run_as, n_batch, expected)


def check_one(network: CheckedNetwork, device: Device, run_as: str, n_batch: int, expected: Sequence[Array]) -> Row:
    """Run a network in batches of one size and compare it. A batch that cannot run is a row that failed."""
    row = Row(
        network.name,
        network.unit,
        device.precision,
        run_as,
        n_batch,
        same_is=network.same_is,
        note="" if device.name == "cuda" else ON_CPU,
    )
    reset_memory(device.name)
    try:
        run = network.run_eager(device) if run_as == EAGER else network.record(device, n_batch)
        outputs = run_all(run, network.inputs, n_batch)
        return compare(measure(row, run, network, device.name), network, expected, outputs)
    except RuntimeError as err:  # such as too little memory, or an operator that the device lacks
        return replace(row, fault=str(err).strip().partition("\n")[0])


def run_all(run: Network, inputs: Sequence[Array], n_batch: int) -> list[Array]:
    """Return the outputs of all inputs, in batches of one size: the last batch has some of the first inputs again."""
    n = len(inputs[0])
    batches = [run(*take(inputs, range(i, i + n_batch))) for i in range(0, n, n_batch)]
    return [np.concatenate(each)[:n] for each in zip(*batches, strict=True)]


def measure(row: Row, run: Network, network: CheckedNetwork, device: str) -> Row:
    """Measure one batch of a network that has run before."""
    batch = take(network.inputs, range(row.n_batch))
    outputs = run(*batch)
    return replace(
        row,
        ms=measure_ms(lambda: run(*batch)) / row.n_batch,
        peak=read_peak(device),
        upload=measure_upload(batch, device),
        download=measure_download(outputs, device),
        occupation=measure_occupation(lambda: run(*batch), device),
    )


def compare(row: Row, network: CheckedNetwork, expected: Sequence[Array], outputs: Sequence[Array]) -> Row:
    """Compare the outputs with the CPU's: the one that differs most for its range counts."""
    ranges = [max(float(np.ptp(one)), network.step) or 1.0 for one in expected]
    # In float64: numpy would compute unsigned bytes modulo 256.
    differences = [
        float(np.abs(found - one.astype(np.float64)).max()) for one, found in zip(expected, outputs, strict=True)
    ]
    # NaN counts as the largest.
    worst = max(range(len(ranges)), key=lambda i: np.nan_to_num(differences[i] / ranges[i], nan=np.inf))
    same = None if network.count_same is None else network.count_same(expected[0], outputs[0])
    limit = max(TOLERANCE[row.precision], network.step / ranges[worst])
    return replace(row, same=same, difference=differences[worst], output_range=ranges[worst], limit=limit)


def write_results(output: Path, rows: Sequence[Row], about: dict[str, str | None]) -> None:
    """Write the JSON and the table."""
    output.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": about, "n_failed": count_failed(rows), "rows": [row.as_dict() for row in rows]}
    output.with_name(f"{output.name}.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    device = ", ".join(f"{name} {value}" for name, value in about.items())
    output.with_name(f"{output.name}.md").write_text(to_markdown(rows, device))


if __name__ == "__main__":
    sys.exit(main())
