"""A contact sheet of a talking video: twelve moments above the spectrogram of the audio."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from container.visuals.grid import Colour, Image, ImageGrid, in_rows
from inference.atomic_write import atomic_file
from inference.audio import SAMPLE_RATE, compute_mel
from inference.errors import InvalidRequest
from inference.faces import FaceTracker, Landmarker
from inference.media import Frame, MediaLimits, open_media
from inference.media.audio import read_audio

N_MOMENTS, N_COLUMNS = 12, 6
CELL_SIDE = 256  # px
FACE_MARGIN = 1.7  # side of the square that is shown / longer side of the face box
MEL_HEIGHT, GAP = 120, 4  # px
MARK_HEIGHT = 6  # px of the mark in the spectrogram at the moment of the frame above
MARK_COLOUR: Colour = (255, 255, 255)
MIN_LEVEL, MAX_LEVEL = -4.0, 4.0  # of a mel spectrogram, as `compute_mel` returns it
DEFAULT_FPS = 25.0  # of a video that does not declare its rate
MAX_MEL_COLUMNS = 4096  # of the spectrogram that is kept: more than a sheet shows

GRID = ImageGrid(N_COLUMNS, CELL_SIDE, CELL_SIDE, GAP, footer=GAP + MEL_HEIGHT)


def write_video_sheet(video: Path, path: Path, landmarker: Landmarker, limits: MediaLimits) -> None:
    """Write a PNG of twelve moments of a video in two rows, each cropped to the face if there is one.

    Under each row is the mel spectrogram of its half of the video, so that audio and frames line up.
    Raises: MediaError if the video cannot be read; NoAudio if it has no audio; OSError if the PNG cannot be written.
    """
    cells = crop_cells(pick_frames(video, limits), landmarker)
    mel = colour_mel(read_audio(video, SAMPLE_RATE, limits))
    is_encoded, contents = cv2.imencode(".png", draw_video_sheet(cells, mel))
    assert is_encoded
    with atomic_file(path, mode=0o644, make_parents=True) as part:
        part.write_bytes(contents.tobytes())


def check_sheet_path(path: Path) -> None:
    """Raise InvalidRequest if no PNG can be written there; to be called before the work starts."""
    if path.suffix.lower() != ".png":
        raise InvalidRequest(f"--sheet {path.name}: expected a name that ends in .png")
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidRequest(f"--sheet {path}: expected a file to write, in a folder that exists")


def pick_frames(video: Path, limits: MediaLimits) -> list[Frame]:
    """Return the frames in the middle of twelve equal parts of a video, in one pass.

    A video of fewer than twelve frames gives some of them more than once.
    """
    with open_media(video, limits) as media:
        fps = media.video.fps or DEFAULT_FPS
        n_frames = max(round((media.video.duration_s or 0) * fps), 1)
        wanted = [int((i + 0.5) * n_frames / N_MOMENTS) for i in range(N_MOMENTS)]
        found: dict[int, Frame] = {}
        for k, frame in enumerate(frame for clip in media.read_clips(fps) for frame in clip.frames):
            if k in wanted:
                found[k] = frame
            last = frame
    return [found.get(k, last) for k in wanted]


def crop_cells(frames: list[Frame], landmarker: Landmarker) -> list[Image]:
    """Return each frame as a square of CELL_SIDE pixels around its face, or its centre if it shows none."""
    cells = []
    for frame in frames:
        (face,) = FaceTracker(landmarker).follow((frame,))
        height, width = frame.shape[:2]
        if face is None:
            (x, y), side = (width / 2, height / 2), float(min(height, width))
        else:
            (x, y), side = face.box.centre, FACE_MARGIN * max(face.box.width, face.box.height)
        side = min(side, height, width)
        left, top = (round(min(max(c - side / 2, 0), most - side)) for c, most in ((x, width), (y, height)))
        crop = frame[top : top + round(side), left : left + round(side)]
        cells.append(np.asarray(cv2.resize(crop, (CELL_SIDE, CELL_SIDE), interpolation=cv2.INTER_AREA), np.uint8))
    return cells


def colour_mel(samples: npt.NDArray[np.int16]) -> Image:
    """Return the mel spectrogram as (80, T, 3) uint8 BGR, low frequencies at the bottom."""
    mel = compute_mel(samples)
    mel = mel[:, :: max(mel.shape[1] // MAX_MEL_COLUMNS, 1)]
    levels = ((mel[::-1] - MIN_LEVEL) / (MAX_LEVEL - MIN_LEVEL) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA), np.uint8)


def draw_video_sheet(cells: list[Image], mel: Image) -> Image:
    """Return the contact sheet. cells: N_MOMENTS squares. mel: of the whole video."""
    rows = in_rows(cells, N_COLUMNS)
    sheet = GRID.draw(rows)
    n_per_row = -(-mel.shape[1] // len(rows))
    for row in range(len(rows)):
        part = mel[:, row * n_per_row : (row + 1) * n_per_row]
        if not part.shape[1]:
            continue
        left, cell_top = GRID.origin(row, 0)
        top, width = cell_top + CELL_SIDE + GAP, GRID.width - 2 * GAP
        strip = np.asarray(cv2.resize(part, (width, MEL_HEIGHT)), np.uint8)
        for column in range(N_COLUMNS):
            strip[:MARK_HEIGHT, GRID.origin(row, column)[0] - left + CELL_SIDE // 2] = MARK_COLOUR
        sheet[top : top + MEL_HEIGHT, left : left + width] = strip
    return sheet
