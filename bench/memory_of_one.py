"""Reads one film and prints the peak memory of this process in MiB; for `bench.memory`."""

from __future__ import annotations

import sys

from bench.memory import peak_of_this_process
from inference.lip_reading import LipReader

if __name__ == "__main__":
    LipReader(device="cpu").read(sys.argv[1])
    print(peak_of_this_process())
