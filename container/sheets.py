"""A contact sheet of an avatar: what it was filmed as, what its network sees, and what it paints."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.avatar import AvatarPackage
from inference.avatar.compose import cut_face
from inference.errors import InvalidRequest
from inference.models.avatar_unet import MASKED_COLUMNS, MASKED_ROWS
from inference.weights.cache import whole_file

Picture = npt.NDArray[np.uint8]  # (H, W, 3) BGR

N_COLUMNS = 6
CELL = 200  # px
GAP, LABEL = 4, 22
DARK, WHITE, GREEN = (28, 28, 28), (235, 235, 235), (80, 220, 80)
ROWS = ("as filmed", "crop", "masked", "in silence", "packaged sound")


def write_sheet(package: AvatarPackage, path: Path) -> None:
    """Six frames, each with its box, its crop, the mask, and the mouth painted in silence and with packaged features.

    Raises: InvalidRequest for another suffix than .png.
    """
    if path.suffix.lower() != ".png":
        raise InvalidRequest(f"{path.name}: cannot write this kind of picture; expected .png")
    sheet = draw_sheet(package)
    with whole_file(path) as part:
        cv2.imwrite(str(part), sheet)


def draw_sheet(package: AvatarPackage) -> Picture:
    places = np.linspace(0, package.n_frames - 1, min(N_COLUMNS, package.n_frames)).round().astype(int).tolist()
    columns = [column(package, i) for i in places]
    n_rows = len(columns[0])
    sheet = np.full((n_rows * (CELL + GAP + LABEL), len(columns) * (CELL + GAP), 3), DARK, np.uint8)
    for x, (place, cells) in enumerate(zip(places, columns, strict=True)):
        for y, cell in enumerate(cells):
            top, left = y * (CELL + GAP + LABEL) + LABEL, x * (CELL + GAP)
            small = fit(cell)
            sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
            label = f"{ROWS[y]}, {place}" if x == 0 or y == 0 else str(place)
            cv2.putText(sheet, label, (left + 4, top - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, WHITE, 1, cv2.LINE_AA)
    return sheet


def column(package: AvatarPackage, i: int) -> list[Picture]:
    box = package.box(i)
    filmed = package.background(i).copy()
    corners = (int(box.left), int(box.top)), (int(box.right) - 1, int(box.bottom) - 1)
    cv2.rectangle(filmed, *corners, GREEN, max(filmed.shape[0] // 240, 1))
    masked = cut_face(package.crop(i)).copy()
    masked[MASKED_ROWS, MASKED_COLUMNS] = 0
    cells = [filmed, package.crop(i), masked]
    if package.can_hear:
        cells.append(package.silent_patch(i))
    if package.packaged_features is not None:
        cells.append(package.render(i, package.features_at(i)))
    return cells


def fit(picture: Picture) -> Picture:
    """Not larger than a cell."""
    scale = CELL / max(picture.shape[:2])
    size = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
