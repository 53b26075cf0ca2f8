"""Matrix products of one thread."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Real = TypeVar("Real", np.float32, np.float64)

# OpenBLAS, which numpy is built with, shares a product out to threads if it has more multiplications than this.
# Source: OpenBLAS 0.3 interface/gemm.c, SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD.
MAX_MULTIPLICATIONS = 65536 * 4


def multiply(left: npt.NDArray[Real], right: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Return left @ right, (M, N) of (M, K) and (K, N), computed by the calling thread alone.

    For products of about a millisecond: after each of them the other threads of OpenBLAS stay in a busy loop for 50 to
    100 ms, which costs far more CPU time than the product.
    """
    (n_rows, depth), n_columns = left.shape, right.shape[1]
    product: npt.NDArray[Any] = np.empty((n_rows, n_columns), np.result_type(left, right))
    n_at_once = max(MAX_MULTIPLICATIONS // max(depth * min(n_rows, n_columns), 1), 1)
    if n_rows >= n_columns:
        for first in range(0, n_rows, n_at_once):
            np.matmul(left[first : first + n_at_once], right, out=product[first : first + n_at_once])
    else:
        for first in range(0, n_columns, n_at_once):
            np.matmul(left, right[:, first : first + n_at_once], out=product[:, first : first + n_at_once])
    return product
