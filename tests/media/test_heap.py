from __future__ import annotations

import subprocess
import sys

import pytest

from inference.media.heap import HeapTrimmer, find_trim

# Blocks freed between blocks that live on: what glibc keeps unless it is told.
HOLES = """
import sys
sys.path.insert(0, {root!r})
from inference.media.heap import HeapTrimmer
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
large, small = [], []
for _ in range(600):
    large.append(libc.malloc(100_000)); ctypes.memset(large[-1], 1, 100_000)
    small.append(libc.malloc(64))
for block in large:
    libc.free(block)
before = rss()
HeapTrimmer(1).passed(1)
print(before - rss())
"""


def test_it_trims_after_so_many_bytes():
    asked: list[int] = []
    trimmer = HeapTrimmer(1000, asked.append)
    for n_bytes in (400, 400, 400, 900, 1000):
        trimmer.passed(n_bytes)
    assert asked == [0, 0]  # at 1200, and at 1900 again


@pytest.mark.skipif(find_trim() is None, reason="the C library has no malloc_trim")
def test_holes_go_back_to_the_system(request: pytest.FixtureRequest):
    script = HOLES.format(root=str(request.config.rootpath))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 40_000_000
