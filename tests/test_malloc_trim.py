from __future__ import annotations

import subprocess
import sys

import pytest

from inference.malloc_trim import HeapTrimmer, find_malloc_trim

# Frees blocks between blocks that stay in use: glibc keeps them unless it is trimmed.
FRAGMENTED_HEAP = """
import sys
sys.path.insert(0, {root!r})
from inference.malloc_trim import HeapTrimmer
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
HeapTrimmer(1).count(1)
print(before - rss())
"""


def test_the_heap_is_trimmed_after_so_many_bytes():
    trims: list[int] = []
    trimmer = HeapTrimmer(1000, lambda: trims.append(1))
    for n_bytes in (400, 400, 400, 900, 1000):
        trimmer.count(n_bytes)
    assert len(trims) == 2  # at 1200, and at 1900 more


@pytest.mark.skipif(find_malloc_trim() is None, reason="the C library has no malloc_trim")
def test_freed_memory_returns_to_the_system(request: pytest.FixtureRequest):
    script = FRAGMENTED_HEAP.format(root=str(request.config.rootpath))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 40_000_000


FREED_BLOCKS = """
import ctypes, resource
from inference.malloc_trim import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = libc.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(find_malloc_trim() is None, reason="only glibc has thresholds")
def test_freed_blocks_are_used_again():
    """Each block of its own would take 4096 page faults."""
    run = subprocess.run([sys.executable, "-c", FREED_BLOCKS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2 * 4096
