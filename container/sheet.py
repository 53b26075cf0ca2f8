"""A contact sheet of a film that speaks: twelve moments, and the sound under them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.audio import SAMPLE_RATE, compute_mel
from inference.errors import InvalidRequest
from inference.faces import FaceTracker, Landmarker
from inference.media import Frame, MediaLimits, open_media
from inference.media.sound import read_sound
from inference.weights.cache import whole_file

Picture = npt.NDArray[np.uint8]  # (H, W, 3) BGR

N_SHOWN, PER_ROW = 12, 6
CELL = 256  # px, of each square
AROUND = 1.7  # of the face's larger side: what is shown around it
MEL_HEIGHT, GAP = 120, 4
DARK, MARK = (28, 28, 28), (255, 255, 255)
LOWEST, HIGHEST = -4.0, 4.0  # of a mel
USUAL_FPS = 25.0
MOST_COLUMNS = 4096  # of a mel that is kept: more than a sheet shows


def write_sheet(film: Path, path: Path, landmarker: Landmarker, limits: MediaLimits) -> None:
    """Write a PNG of twelve moments of a film, six to a row, each cut to its face where it shows one; under each
    row the mel spectrogram of its half of the film, so that what is heard stands under what is seen.

    Raises: InvalidRequest for a name that is no PNG's; MediaError where the film cannot be read, NoAudio.
    """
    frames = pick_frames(film, limits)
    cells = cut_cells(frames, landmarker)
    mel = picture_mel(read_sound(film, SAMPLE_RATE, limits))
    is_written, encoded = cv2.imencode(".png", lay_out(cells, mel))
    assert is_written
    with whole_file(path) as part:
        part.write_bytes(encoded.tobytes())


def check_sheet(path: Path) -> None:
    """Before any work is done. Raises: InvalidRequest."""
    if path.suffix.lower() != ".png":
        raise InvalidRequest(f"--sheet {path.name}: expected a name that ends in .png")
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidRequest(f"--sheet {path}: expected a file to write, in a folder that is there")


def pick_frames(film: Path, limits: MediaLimits) -> list[Frame]:
    """The frames in the middle of twelve equal parts of the film, in one pass; few frames are shown more than once."""
    with open_media(film, limits) as media:
        fps = media.video.fps or USUAL_FPS
        n_frames = max(round((media.video.duration_s or 0) * fps), 1)
        wanted = [int((i + 0.5) * n_frames / N_SHOWN) for i in range(N_SHOWN)]
        found: dict[int, Frame] = {}
        for k, frame in enumerate(frame for clip in media.read_clips(fps) for frame in clip.frames):
            if k in wanted:
                found[k] = frame
            last = frame
    return [found.get(k, last) for k in wanted]


def cut_cells(frames: list[Frame], landmarker: Landmarker) -> list[Picture]:
    """Each frame as a square of CELL pixels: around its face, else its middle."""
    cells = []
    for frame in frames:
        (face,) = FaceTracker(landmarker).follow((frame,))
        height, width = frame.shape[:2]
        if face is None:
            (x, y), side = (width / 2, height / 2), float(min(height, width))
        else:
            (x, y), side = face.box.centre, AROUND * max(face.box.width, face.box.height)
        side = min(side, height, width)
        left, top = (round(min(max(c - side / 2, 0), most - side)) for c, most in ((x, width), (y, height)))
        cut = frame[top : top + round(side), left : left + round(side)]
        cells.append(np.asarray(cv2.resize(cut, (CELL, CELL), interpolation=cv2.INTER_AREA), np.uint8))
    return cells


def picture_mel(samples: npt.NDArray[np.int16]) -> Picture:
    """The spectrogram in colours, (80, T, 3), low voices below."""
    mel = compute_mel(samples)
    mel = mel[:, :: max(mel.shape[1] // MOST_COLUMNS, 1)]
    levels = ((mel[::-1] - LOWEST) / (HIGHEST - LOWEST) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA), np.uint8)


def lay_out(cells: list[Picture], mel: Picture) -> Picture:
    width = PER_ROW * (CELL + GAP) + GAP
    row_height = CELL + MEL_HEIGHT + 2 * GAP
    n_rows = N_SHOWN // PER_ROW
    sheet = np.full((n_rows * row_height + GAP, width, 3), DARK, np.uint8)
    half = -(-mel.shape[1] // n_rows)
    for row in range(n_rows):
        top = row * row_height + GAP
        for column, cell in enumerate(cells[row * PER_ROW : (row + 1) * PER_ROW]):
            left = column * (CELL + GAP) + GAP
            sheet[top : top + CELL, left : left + CELL] = cell
        part = mel[:, row * half : (row + 1) * half]
        if part.shape[1]:
            strip = np.asarray(cv2.resize(part, (width - 2 * GAP, MEL_HEIGHT)), np.uint8)
            for column in range(PER_ROW):
                strip[:6, column * (CELL + GAP) + CELL // 2] = MARK  # the moment of the frame above
            sheet[top + CELL + GAP : top + CELL + GAP + MEL_HEIGHT, GAP:-GAP] = strip
    return sheet
