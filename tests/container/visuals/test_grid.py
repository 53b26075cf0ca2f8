from __future__ import annotations

import numpy as np
import pytest

from container.visuals.grid import BACKGROUND, ImageGrid, fit_cell, in_rows


def test_cells_are_in_their_places_and_the_rest_is_background():
    grid = ImageGrid(n_columns=2, cell_width=3, cell_height=2, gap=1, header=4, footer=5)
    cells = [np.full((2, 3, 3), 100 + i, np.uint8) for i in range(3)]
    sheet = grid.draw(in_rows(cells, 2))
    assert sheet.shape == (2 * (4 + 2 + 5 + 1) + 1, 2 * (3 + 1) + 1, 3)
    assert [grid.origin(i // 2, i % 2) for i in range(3)] == [(1, 5), (5, 5), (1, 17)]
    for cell, (left, top) in zip(cells, [(1, 5), (5, 5), (1, 17)], strict=True):
        assert np.array_equal(sheet[top : top + 2, left : left + 3], cell)
        sheet[top : top + 2, left : left + 3] = BACKGROUND
    assert (sheet == BACKGROUND).all()


def test_without_gaps_cells_touch_and_short_rows_stay_dark():
    sheet = ImageGrid(2, 2, 2, background=(0, 0, 0)).draw([[np.full((2, 2, 3), 9, np.uint8)] * 2, []])
    assert sheet.shape == (4, 4, 3)
    assert (sheet[:2] == 9).all()
    assert not sheet[2:].any()


@pytest.mark.parametrize(("shape", "fitted"), [((400, 100), (200, 50)), ((50, 100), (100, 200)), ((1000, 1), (200, 1))])
def test_an_image_fits_its_cell(shape: tuple[int, int], fitted: tuple[int, int]):
    assert fit_cell(np.zeros((*shape, 3), np.uint8), 200).shape == (*fitted, 3)
