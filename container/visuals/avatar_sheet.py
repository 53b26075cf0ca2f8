"""A contact sheet of an avatar: its source frames, what its network is given, and what it generates."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from container.visuals.grid import Colour, Image, ImageGrid, fit_cell
from inference.atomic_write import atomic_file
from inference.avatar import AvatarPackage
from inference.avatar.compose import cut_face
from inference.dimensions.avatar import MASKED_COLUMNS, MASKED_ROWS
from inference.errors import InvalidRequest

N_COLUMNS = 6  # frames shown
CELL_SIDE = 200  # px
GAP, LABEL_HEIGHT = 4, 22  # px
FONT_SCALE = 0.42  # of OpenCV's font, 9 px high
LABEL_COLOUR: Colour = (235, 235, 235)
BOX_COLOUR: Colour = (80, 220, 80)


def write_avatar_sheet(package: AvatarPackage, path: Path) -> None:
    """Write a PNG of six frames of an avatar, one per column.

    Its rows: the source frame with the crop's box, the crop, the masked face that the network is given, and the mouths
    generated from silence and from the packaged audio features.
    Raises: InvalidRequest if the name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise InvalidRequest(f"{path.name}: cannot write an image of this kind; expected .png")
    sheet = draw_avatar_sheet(package)
    with atomic_file(path, mode=0o644, make_parents=True) as part:
        cv2.imwrite(str(part), sheet)


def draw_avatar_sheet(package: AvatarPackage) -> Image:
    """Return the contact sheet, with the index of the frame above each cell."""
    indices = np.linspace(0, package.n_frames - 1, min(N_COLUMNS, package.n_frames)).round().astype(int).tolist()
    columns = [draw_column(package, i) for i in indices]
    grid = ImageGrid(len(columns), CELL_SIDE, CELL_SIDE, GAP, header=LABEL_HEIGHT)
    names = list(columns[0])
    sheet = grid.draw([[column[name] for column in columns] for name in names])
    for row, name in enumerate(names):
        for column, index in enumerate(indices):
            left, top = grid.origin(row, column)
            label = f"{name}, {index}" if column == 0 or row == 0 else str(index)
            origin = (left + 4, top - 6)
            cv2.putText(sheet, label, origin, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, LABEL_COLOUR, 1, cv2.LINE_AA)
    return sheet


def draw_column(package: AvatarPackage, i: int) -> dict[str, Image]:
    """Return the cells of frame i by what they show.

    The generated mouths are left out if the package has no audio encoder, or no packaged features.
    """
    box = package.box(i)
    source = package.background(i).copy()
    corners = (int(box.left), int(box.top)), (int(box.right) - 1, int(box.bottom) - 1)
    cv2.rectangle(source, *corners, BOX_COLOUR, max(source.shape[0] // 240, 1))
    masked = cut_face(package.crop(i)).copy()
    masked[MASKED_ROWS, MASKED_COLUMNS] = 0
    cells = {"source": source, "crop": package.crop(i), "masked": masked}
    if package.accepts_audio:
        cells["silence"] = package.silent_patch(i)
    if package.packaged_features is not None:
        cells["packaged audio"] = package.render(i, package.features_at(i))
    return {name: fit_cell(image, CELL_SIDE) for name, image in cells.items()}
