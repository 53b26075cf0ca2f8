"""Frames that FFmpeg had no memory for. Its H.264 decoder, among others, only logs it and leaves them out."""

from __future__ import annotations

import logging
import mmap

import av.logging

from inference.errors import MediaTruncated, UnsupportedMedia

NO_BUFFER = "get_buffer() failed"
# What precedes it if the size is the reason: the limit of pixels, or none at all.
WRONG_SIZE = ("image parameters invalid", "Picture size", "exceeds specified max pixel count")
BAD_FRAME = ("decode_slice_header error", "no frame!")
# Motion vectors and so on of one frame: 17 MiB for 8K. Their lack is not logged as such.
TABLE_BYTES_PER_PIXEL = 0.6
MIN_TABLE_BYTES = 1 << 20


class AllocationWatch(logging.Handler):
    """Reads FFmpeg's log for frames without memory."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._has_failed = False
        self._has_wrong_size = False  # by the last message
        self._table_bytes = MIN_TABLE_BYTES

    def install(self) -> None:
        """Receive FFmpeg's errors, which are logged nowhere else. Decode in one thread only from now on."""
        av.logging.set_level(av.logging.ERROR)
        log = logging.getLogger("libav")
        log.addHandler(self)
        log.propagate = False

    def set_frame_size(self, n_pixels: int) -> None:
        self._table_bytes = max(int(n_pixels * TABLE_BYTES_PER_PIXEL), MIN_TABLE_BYTES)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a frame without memory."""
        message = record.getMessage()
        if NO_BUFFER in message:
            self._has_failed |= not self._has_wrong_size
        elif message.startswith(BAD_FRAME):
            self._has_failed |= not has_memory(self._table_bytes)
        self._has_wrong_size = any(one in message for one in WRONG_SIZE)

    def check(self) -> None:
        """Raise MemoryError if a frame of this file had no memory."""
        if self._has_failed:
            raise MemoryError("a frame could not be allocated")

    def reason_of(self, err: Exception) -> Exception:
        """Return the reason for an error: lack of memory, if it came before, unless the error names a reason itself."""
        return MemoryError() if self._has_failed and isinstance(err, (UnsupportedMedia, MediaTruncated)) else err


def has_memory(n_bytes: int) -> bool:
    """Return whether this process may allocate so many bytes. They are not touched."""
    try:
        mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True
