"""Measure the CPU time of lip reading by stage, against one plain forward pass of the network.

    python -m bench.speed CLIP [--rounds 7] [--threads 1] [--precision auto]

Prints the median CPU milliseconds, over all threads, of each stage of reading the clip, then

  whole            the sum of the stages
  forward          LipCoordNet over 75 frames in float32, eager torch, batch 1, default memory layout
  whole / forward  the median ratio within a round, with the minimum and maximum

Both take turns. Use one thread on a busy machine: threads that wait for one another spin, which counts as CPU time.
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
from inference.stage_timer import StageClock


def main() -> None:
    """Print one row per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reader, forward = LipReader(device="cpu", precision=args.precision), make_forward()
    reader.read(args.clip)
    forward()
    rounds = [(time_stages(reader, args.clip), cpu_time(forward)) for _ in range(args.rounds)]
    stages = {name: statistics.median(stage[name] for stage, _ in rounds) for name in rounds[0][0]}
    forward_s = statistics.median(seconds for _, seconds in rounds)
    ratios = sorted(sum(stage.values()) / seconds for stage, seconds in rounds)
    print(
        f"{args.clip.name}, CPU ms, median of {args.rounds} rounds, {args.threads} threads, "
        f"network in {reader.device.precision}"
    )
    for name, seconds in stages.items():
        print(f"  {name:10}{seconds * 1000:8.0f}")
    print(f"  {'whole':10}{sum(stages.values()) * 1000:8.0f}")
    print(f"  {'forward':10}{forward_s * 1000:8.0f}   (one plain f32 forward pass of 75 frames)")
    print(f"  whole / forward: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def time_stages(reader: LipReader, clip: Path) -> dict[str, float]:
    """Return the CPU seconds of each stage."""
    clock = StageClock(time.process_time)
    reader.read(clip, clock=clock)
    return clock.seconds


def make_forward() -> Callable[[], None]:
    """Return a function that runs one plain forward pass."""
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
