"""CPU time of lip reading by stage, beside one plain forward pass of the network in the same run.

    python -m bench.speed CLIP [--rounds 7] [--threads 1] [--precision auto]

The forward pass is LipCoordNet over 75 frames in float32, eager torch, batch 1, default memory layout.
Both are counted in CPU time of all threads, in turn, and the medians are shown. One thread each unless told
otherwise: on a busy machine threads spin while they wait for one another, which is CPU time, too, but no work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from inference.lip_reading import LipReader
from inference.models import LipCoordNet
from inference.stages import StageClock


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    reader, forward = LipReader(device="cpu", precision=asked.precision), make_forward()
    reader.read(asked.clip)
    forward()
    rounds = [(stage_times(reader, asked.clip), cpu_time(forward)) for _ in range(asked.rounds)]
    stages = {name: statistics.median(stage[name] for stage, _ in rounds) for name in rounds[0][0]}
    once = statistics.median(seconds for _, seconds in rounds)
    ratios = sorted(sum(stage.values()) / seconds for stage, seconds in rounds)
    print(
        f"{asked.clip.name}, CPU ms, median of {asked.rounds} rounds, {asked.threads} threads, "
        f"network in {reader.device.precision}"
    )
    for name, seconds in stages.items():
        print(f"  {name:10}{seconds * 1000:8.0f}")
    print(f"  {'whole':10}{sum(stages.values()) * 1000:8.0f}")
    print(f"  {'forward':10}{once * 1000:8.0f}   (one plain f32 forward pass of 75 frames)")
    print(f"  whole / forward: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def stage_times(reader: LipReader, clip: Path) -> dict[str, float]:
    clock = StageClock(time.process_time)
    reader.read(clip, clock=clock)
    return clock.seconds


def make_forward() -> Callable[[], None]:
    net = LipCoordNet().eval()
    video, lips = torch.rand(1, 3, 75, 64, 128), torch.rand(1, 75, 20, 2)

    def forward() -> None:
        with torch.inference_mode():
            net(video, lips)

    return forward


def cpu_time(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
