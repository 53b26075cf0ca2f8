"""The number of threads that the libraries of a process use."""

from __future__ import annotations

import os
import sys

THREADS = "OMP_NUM_THREADS"  # read by torch and BLAS when they are loaded; `wanted_threads` reads it, too


def limit_threads(n_threads: int | None) -> None:
    """Limit the threads that libraries use in one call, in this process and in those that it starts from now on.

    Networks of OpenVINO have the limit from when they are compiled. None: no other limit than the libraries have now.
    """
    if n_threads is None:
        return
    os.environ[THREADS] = str(n_threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(n_threads)
    import cv2

    cv2.setNumThreads(n_threads)
