"""Measure the peak memory of lip reading on a short and a long video: it must not grow with the length.

    python -m bench.memory CLIP [--long 600]

The clip is played forwards and backwards until the video is long enough. Each video is read by a fresh process. Prints
the peak resident memory of reading 10 seconds and --long seconds, and the difference, in MiB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.video_variants import read_frames, repeat_frames

MIB = 1024  # KiB, the unit of ru_maxrss on Linux
SHORT_S = 10.0  # length of the short video


def main() -> None:
    """Print the peaks and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--long", type=float, default=600.0, help="length of the long video in seconds")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)  # read the clip in this process
    args = parser.parse_args()
    if args.job:
        print(read_video(args.clip))
        return
    frames = read_frames(args.clip)
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for seconds in (SHORT_S, args.long):
            video = repeat_frames(frames, Path(folder) / f"{seconds:.0f}.mp4", seconds)
            peaks.append(measure_peak(video))
            print(f"  {seconds:6.0f} s: peak {peaks[-1]:.0f} MiB", flush=True)
    print(f"  difference: {peaks[1] - peaks[0]:.0f} MiB")


def measure_peak(video: Path) -> float:
    """Return the peak resident memory of a fresh process that reads the video, in MiB."""
    command = [sys.executable, "-m", "bench.memory", "--job", str(video)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_video(video: Path) -> float:
    """Read the video in this process; return the peak resident memory of the process, in MiB."""
    from inference.lip_reading import LipReader

    LipReader(device="cpu").read(video)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


if __name__ == "__main__":
    main()
