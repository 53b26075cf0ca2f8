"""The memory and CPU time that the decoder process may spend on one file.

A small file can declare millions of samples, or unpack to gigabytes of text that nothing uses. So the kernel holds soft
limits: memory by the size of the frames, and CPU time by the frames and samples that are really decoded.
"""

from __future__ import annotations

import resource
import time

from inference.media.frames import CHUNK_BYTES

PLAIN_PIXELS = 1920 * 1080  # frames up to this size need no more than MEMORY_BYTES
MEMORY_BYTES = 432 << 20  # private memory for any file; the interpreter and its libraries take 72 MiB of it
# Packets, attachments and the parser's copies of them are all in memory, before the size of a frame is known.
OPENING_PER_FILE_BYTE = 4
MAX_OPENING_BYTES = 3 << 29  # 1.5 GiB
# Whatever the size of the file and of its frames: 8K H.264 and HEVC of 10 bits take 1.65 with all reference frames.
MAX_MEMORY_BYTES = 7 << 28  # 1.75 GiB
# Larger frames: 8 of them at 3 bytes a pixel for the decoder's references and the conversion, twice that for samples of
# more than a byte. A bomb has few bytes, so no file gets more than a multiple of its size.
FRAME_BYTES_PER_PIXEL = 8 * 3
FRAME_MEMORY_PER_FILE_BYTE = 512
SHARED_BYTES_PER_PIXEL = 3  # of a frame in shared memory, which is not limited but counts for such a file

# Honest files take at most a quarter of this on one core at 2.5 GHz, so that they pass on a machine a quarter as fast.
CPU_S = 4.0  # for any file, beyond the rest
FILE_BYTES_PER_CPU_S = 4_000_000  # entropy decoding
PROBED_BYTES_PER_CPU_S = 1_000_000  # opening a file decodes its first frames, of whatever codec
MAX_PROBING_CPU_S = 20.0
PIXELS_PER_CPU_S = 40_000_000
CONVERTED_PIXELS_PER_CPU_S = 12_000_000  # to BT.709 in SDR, each by a look-up in a cube of colours
PIXELS_AHEAD = CHUNK_BYTES // 3  # decoded before the first clip is counted, beyond one frame
CPU_S_PER_FRAME = 0.01
CPU_S_PER_CLIP = 0.002  # of one frame that is shown for long
SAMPLES_PER_CPU_S = 500_000
SLOWNESS = {"jpeg2000": 16, "hevc": 2, "vp9": 2, "libdav1d": 2, "av1": 2}  # of codecs, for the same pixels


class ResourceBudget:
    """Limits of this process for one file; the next file gets new ones.

    If memory runs out, the decoder raises MemoryError. If CPU time runs out, the kernel ends the process with SIGXCPU.
    """

    def __init__(self, n_bytes: int) -> None:
        """Set the limits for opening a file. n_bytes: its size."""
        self._n_bytes = n_bytes
        self._start_s = time.process_time()
        self._pixels_ahead = 0
        self._pixels_per_cpu_s = float(PIXELS_PER_CPU_S)
        self.memory_bytes = min(MEMORY_BYTES + OPENING_PER_FILE_BYTE * n_bytes, MAX_OPENING_BYTES)
        set_soft_limit(resource.RLIMIT_DATA, self.memory_bytes)
        self.count()

    def set_video(self, codec: str, n_pixels: int, sample_bits: int, *, is_wide: bool = False) -> None:
        """Allow what frames of this size, codec and depth need.

        n_pixels: of one frame. is_wide: HDR or a wide gamut.
        """
        sample_bytes = 2 if sample_bits > 8 or is_wide else 1
        if n_pixels > PLAIN_PIXELS:
            needed = FRAME_BYTES_PER_PIXEL * sample_bytes * n_pixels
            earned = FRAME_MEMORY_PER_FILE_BYTE * self._n_bytes - SHARED_BYTES_PER_PIXEL * n_pixels
            allowed = min(MEMORY_BYTES + min(needed, max(earned, 0)), MAX_MEMORY_BYTES)
            self.memory_bytes = max(self.memory_bytes, allowed)
            set_soft_limit(resource.RLIMIT_DATA, self.memory_bytes)
        cpu_s_per_pixel = SLOWNESS.get(codec, 1) * sample_bytes / PIXELS_PER_CPU_S
        self._pixels_per_cpu_s = 1 / (cpu_s_per_pixel + is_wide / CONVERTED_PIXELS_PER_CPU_S)
        self._pixels_ahead = n_pixels + PIXELS_AHEAD
        self.count()

    def count(self, *, n_frames: int = 0, n_pixels: int = 0, n_clips: int = 0, n_samples: int = 0) -> None:
        """Allow the CPU time that decoding took at most so far, and some to go on. All counts are of the whole file."""
        allowed_s = CPU_S + self._n_bytes / FILE_BYTES_PER_CPU_S
        allowed_s += min(self._n_bytes / PROBED_BYTES_PER_CPU_S, MAX_PROBING_CPU_S)
        allowed_s += (n_pixels + self._pixels_ahead) / self._pixels_per_cpu_s
        allowed_s += CPU_S_PER_FRAME * n_frames + CPU_S_PER_CLIP * n_clips + n_samples / SAMPLES_PER_CPU_S
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
