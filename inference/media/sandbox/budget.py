"""The memory and CPU time that the decoder process may spend on one file.

A small file can declare millions of samples, or unpack to gigabytes of text that nothing uses. So the kernel holds soft
limits: memory by the size of the frames, and CPU time by the frames and samples that are really decoded.
"""

from __future__ import annotations

import resource
import time

PLAIN_PIXELS = 1920 * 1080  # frames up to this size need no more than MEMORY_BYTES
MEMORY_BYTES = 432 << 20  # private memory for any file; the interpreter and its libraries take 72 MiB of it
# Larger frames: 12 of them at 3 bytes a pixel (10 bits, 4:2:0) for the decoder's references and the conversion. A file
# of few bytes has no use for so many, so it gets no more than a multiple of its size.
FRAME_BYTES_PER_PIXEL = 12 * 3
MEMORY_PER_FILE_BYTE = 64

CPU_S = 4.0  # for any file, beyond the rest
FILE_BYTES_PER_CPU_S = 20_000_000  # read, whether they contain frames or not
PIXELS_PER_CPU_S = 40_000_000  # an eighth of what software decoders reach
CPU_S_PER_FRAME = 0.01
SAMPLES_PER_CPU_S = 500_000


class ResourceBudget:
    """Limits of this process for one file; the next file gets new ones.

    If memory runs out, the decoder raises MemoryError. If CPU time runs out, the kernel ends the process with SIGXCPU.
    """

    def __init__(self, n_bytes: int) -> None:
        """Set the limits for opening a file. n_bytes: its size."""
        self._n_bytes = n_bytes
        self._start_s = time.process_time()
        self.set_frame_size(0)
        self.count(0, 0, 0)

    def set_frame_size(self, n_pixels: int) -> None:
        """Allow the memory that frames of this size need."""
        needed = FRAME_BYTES_PER_PIXEL * max(n_pixels - PLAIN_PIXELS, 0)
        self.memory_bytes = MEMORY_BYTES + min(needed, MEMORY_PER_FILE_BYTE * self._n_bytes)
        set_soft_limit(resource.RLIMIT_DATA, self.memory_bytes)

    def count(self, n_frames: int, n_pixels: int, n_samples: int) -> None:
        """Allow the CPU time that decoding took at most so far, and some to go on. All counts are of the whole file."""
        allowed_s = CPU_S + self._n_bytes / FILE_BYTES_PER_CPU_S + n_pixels / PIXELS_PER_CPU_S
        allowed_s += CPU_S_PER_FRAME * n_frames + n_samples / SAMPLES_PER_CPU_S
        set_soft_limit(resource.RLIMIT_CPU, int(self._start_s + allowed_s))

    def close(self) -> None:
        """Lift the limits of CPU time, so that waiting for the next file costs nothing."""
        set_soft_limit(resource.RLIMIT_CPU, resource.RLIM_INFINITY)


def set_soft_limit(kind: int, value: int) -> None:
    """Set a soft limit of this process, at most the hard one."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard):
        value = hard
    resource.setrlimit(kind, (value, hard))
