"""Products of one thread equal numpy's, and none is large enough for a second thread."""

import numpy as np
import pytest

from inference import matrix_product
from inference.matrix_product import MAX_MULTIPLICATIONS, multiply


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1600, 75, 40), (80, 401, 240), (1, 1, 1), (3, 300_000, 2), (5, 4, 0), (0, 4, 5)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_product_is_numpys(rows, depth, columns, dtype):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)

    product = multiply(left, right)

    assert product.dtype == dtype
    # Sums of many terms differ by the order in which they are added.
    tolerance = 10 * np.finfo(dtype).eps * depth
    np.testing.assert_allclose(product, left @ right, rtol=tolerance, atol=tolerance)


def test_no_part_is_large_enough_for_a_second_thread(monkeypatch):
    sizes = []

    class Recorder:
        def __getattr__(self, name):
            return getattr(np, name)

        def matmul(self, left, right, out):
            sizes.append(left.shape[0] * left.shape[1] * right.shape[1])
            return np.matmul(left, right, out=out)

    monkeypatch.setattr(matrix_product, "np", Recorder())

    multiply(np.ones((1600, 75)), np.ones((75, 40)))
    multiply(np.ones((80, 401)), np.ones((401, 240)))

    assert max(sizes) <= MAX_MULTIPLICATIONS
    assert sum(sizes) == 1600 * 75 * 40 + 80 * 401 * 240
