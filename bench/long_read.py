"""Measure the CPU time of reading a long video by the default decoder, against the greedy one.

    python -m bench.long_read [VIDEO] [--sentences 20] [--rounds 3] [--threads 1] [--precision auto]

Without VIDEO, one person is rendered who says so many sentences of three seconds. Both decoders take turns. Prints the
median CPU seconds, over all threads, of each stage with each decoder, their share of the length of the video, and then
two ratios, the default decoder to the greedy one, as the median within a round with the minimum and maximum, and as the
least CPU seconds of each decoder in all rounds: other programs of the machine can only add to them.

  networks  LipCoordNet alone
  whole     all stages

Use one thread on a busy machine: threads that wait for one another spin, which counts as CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from inference.lip_reading import LipReader
from inference.lip_reading.options import ReadOptions
from inference.lip_reading.staged_network import Array, Network, StagedNetwork
from inference.speaker import SyntheticClip
from inference.stage_timer import StageClock
from training.common.synthetic_clips import draw_sentence

DECODERS = ("greedy", "auto")
FIRST_SEED = 100


@dataclass(frozen=True)
class Measurement:
    """One reading. seconds: of CPU, of each stage. networks_s: of the networks alone. text: what was read."""

    seconds: dict[str, float]
    networks_s: float
    length_s: float
    text: str

    @property
    def whole_s(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.seconds.values())


class TimedNetwork:
    """Adds up the CPU seconds of all calls of the stages of a network."""

    def __init__(self, network: StagedNetwork) -> None:
        self.seconds = 0.0
        self.staged = StagedNetwork(
            tuple(self._timed(stage) for stage in network.convolutions),
            self._timed(network.project),
            self._timed(network.recur),
            self._timed(network.hold),
            None if network.whole is None else self._timed(network.whole),
        )

    def _timed(self, stage: Network) -> Callable[..., Sequence[Array]]:
        def run(*inputs: Any) -> Sequence[Array]:
            start = time.process_time()
            outputs = stage(*inputs)
            self.seconds += time.process_time() - start
            return outputs

        return run


def main() -> None:
    """Print the stages of both decoders and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reader = LipReader(device="cpu", precision=args.precision)
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or render_sentences(args.sentences, Path(folder) / "long.mp4")
        rounds = [{name: measure(reader, video, name) for name in DECODERS} for _ in range(args.rounds + 1)][1:]
    print_results(rounds, args.threads, reader.device.precision)


def render_sentences(n_sentences: int, path: Path) -> Path:
    """Render one person who says random sentences; return the video."""
    text = " ".join(draw_sentence(FIRST_SEED + i) for i in range(n_sentences))
    SyntheticClip(text, FIRST_SEED).write(path, with_audio=False)
    return path


def measure(reader: LipReader, video: Path, decoder: str) -> Measurement:
    """Read the video with a decoder."""
    untimed, clock = reader.model, StageClock(time.process_time)
    timed = TimedNetwork(untimed.network)
    reader.model = replace(untimed, network=timed.staged)
    try:
        transcript = reader.read(video, ReadOptions(decoder=decoder), clock=clock)  # type: ignore[arg-type]
    finally:
        reader.model = untimed
    return Measurement(clock.seconds, timed.seconds, transcript.duration_s, transcript.text)


def stage_seconds(name: str, one: Measurement) -> float:
    return one.seconds.get(name, 0.0)


def print_results(rounds: Sequence[dict[str, Measurement]], n_threads: int, precision: str) -> None:
    length_s = rounds[0]["auto"].length_s
    print(
        f"{length_s:.0f} s of video, CPU s, median of {len(rounds)} rounds, {n_threads} threads, network in {precision}"
    )
    print(f"  {'':12}" + "".join(f"{name:>10}" for name in DECODERS))
    rows: dict[str, Callable[[Measurement], float]] = {
        name: partial(stage_seconds, name) for name in rounds[0]["auto"].seconds
    }
    rows |= {
        "networks": lambda one: one.networks_s,
        "whole": lambda one: one.whole_s,
        "of its length": lambda one: one.whole_s / length_s,
    }
    for name, value in rows.items():
        medians = [statistics.median(value(each[decoder]) for each in rounds) for decoder in DECODERS]
        print(f"  {name:13}" + "".join(f"{median:10.3f}" for median in medians))
    for name in ("networks", "whole"):
        ratios = sorted(rows[name](each["auto"]) / rows[name](each["greedy"]) for each in rounds)
        auto, greedy = (min(rows[name](each[decoder]) for each in rounds) for decoder in ("auto", "greedy"))
        print(
            f"  {name}, auto / greedy: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
            f"of the least {auto / greedy:.2f}"
        )


if __name__ == "__main__":
    main()
