"""Contact sheets: images of one size in rows, with room for text or graphics above and below each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) BGR
Colour = tuple[int, int, int]  # blue, green, red: 0 to 255

BACKGROUND: Colour = (28, 28, 28)


@dataclass(frozen=True)
class ImageGrid:
    """The layout of a contact sheet, in pixels.

    gap: between cells, and around all of them. header, footer: free height above and below each row of cells.
    """

    n_columns: int
    cell_width: int
    cell_height: int
    gap: int = 0
    header: int = 0
    footer: int = 0
    background: Colour = BACKGROUND

    @property
    def width(self) -> int:
        return self.n_columns * (self.cell_width + self.gap) + self.gap

    @property
    def row_height(self) -> int:
        """From the top of one row to the top of the next."""
        return self.header + self.cell_height + self.footer + self.gap

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """Return the left and top of a cell."""
        return self.gap + column * (self.cell_width + self.gap), self.gap + row * self.row_height + self.header

    def draw(self, rows: Sequence[Sequence[Image]]) -> Image:
        """Return a sheet of these images, from left to right and top to bottom; short rows are not filled.

        rows: images of the size of a cell or smaller, which are put into its upper left corner.
        """
        height = len(rows) * self.row_height + self.gap
        sheet = np.full((height, self.width, 3), self.background, np.uint8)
        for i, row in enumerate(rows):
            for j, image in enumerate(row):
                left, top = self.origin(i, j)
                sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        return sheet


def in_rows(images: Sequence[Image], n_columns: int) -> list[Sequence[Image]]:
    """Split images into rows, the last of which may be shorter."""
    return [images[i : i + n_columns] for i in range(0, len(images), n_columns)]


def fit_cell(image: Image, side: int) -> Image:
    """Scale an image so that its longer side has this length."""
    scale = side / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
