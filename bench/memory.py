"""Peak memory of reading ten seconds and ten minutes of video: it must not grow with the length.

    python -m bench.memory CLIP [--long 600]

Each film is the clip played there and back until it is long enough, and read by a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.films import frames_of, repeated

MIB = 1024  # KiB, the unit of ru_maxrss on Linux


def main() -> None:
    """Measure and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--long", type=float, default=600.0, help="seconds of the long film")
    asked = parser.parse_args()
    frames = frames_of(asked.clip)
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for seconds in (10.0, asked.long):
            film = repeated(frames, Path(folder) / f"{seconds:.0f}.mp4", seconds)
            peaks.append(peak_of_reading(film))
            print(f"  {seconds:6.0f} s: peak {peaks[-1]:.0f} MiB", flush=True)
    print(f"  difference: {peaks[1] - peaks[0]:.0f} MiB")


def peak_of_reading(film: Path) -> float:
    """MiB of resident memory at most, in a fresh process that reads the film."""
    run = subprocess.run(
        [sys.executable, "-m", "bench.memory_of_one", str(film)], capture_output=True, text=True, check=True
    )
    return float(run.stdout)


def peak_of_this_process() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


if __name__ == "__main__":
    main()
