"""Interpolate between two LipCoordNets, the first of which the second was trained from.

    python -m training.lip_reading.interpolate OLD.safetensors NEW.safetensors --share 0.5 -o model.safetensors

The result reads people of the second training nearly as well as the new weights, and those of the first nearly as well
as the old ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from inference.models import LipCoordNet
from inference.weights.checkpoint import load_into
from training.common.checkpoint import write_half_precision


@torch.no_grad()
def interpolate(old: Path, new: Path, share: float, output: Path) -> None:
    """Write weights that are `share` of the way from old to new ones, as float16."""
    network, other = LipCoordNet(), LipCoordNet()
    load_into(network, old)
    load_into(other, new)
    torch._foreach_lerp_(list(network.parameters()), list(other.parameters()), share)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_half_precision(network, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the weights that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_reading.interpolate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("old", type=Path, help="weights at share 0")
    parser.add_argument("new", type=Path, help="weights at share 1")
    parser.add_argument("--share", type=float, default=0.5, help="how far to go from old to new, 0 to 1")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    args = parser.parse_args(arguments)
    if not 0 <= args.share <= 1:
        parser.error(f"--share: expected 0 to 1, found {args.share:g}")
    interpolate(args.old, args.new, args.share, args.output)


if __name__ == "__main__":
    main()
