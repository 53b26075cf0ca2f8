"""A limit on the size of files: as on a full disk, for tests that cannot mount one."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow over n_bytes.

    Put only the call under test inside: pytest's own output may be a larger file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
