from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.synthetic_frames import talk
from support.video_files import make_video, numbered_frames, read_number

from container.visuals.video_sheet import (
    CELL_SIDE,
    GAP,
    check_sheet_path,
    colour_mel,
    crop_cells,
    draw_video_sheet,
    pick_frames,
    write_video_sheet,
)
from inference.errors import InvalidRequest, NoAudio
from inference.faces import Landmarker
from inference.media import MediaLimits


def test_twelve_frames_are_evenly_spaced(on_disk: Callable[[str, bytes], Path]):
    frames = pick_frames(on_disk("a.mp4", make_video(numbered_frames(48))), MediaLimits())
    assert [read_number(frame) for frame in frames] == [2 + 4 * i for i in range(12)]
    few = pick_frames(on_disk("b.mp4", make_video(numbered_frames(3))), MediaLimits())
    assert [read_number(frame) for frame in few] == [0] * 4 + [1] * 4 + [2] * 4


def test_cells_show_the_face_or_the_centre(landmarker: Landmarker):
    frame = talk(1)[0]
    wall = np.full((100, 300, 3), 90, np.uint8)
    wall[:, 140:160] = 200
    face, middle = crop_cells([frame, wall], landmarker)
    assert face.shape == middle.shape == (CELL_SIDE, CELL_SIDE, 3)
    (found,) = landmarker.detect(face)
    assert found.box.width > CELL_SIDE * 0.4
    assert abs(found.box.centre[0] - CELL_SIDE / 2) < CELL_SIDE * 0.2
    assert middle[:, CELL_SIDE // 2].mean() == pytest.approx(200, abs=1)
    assert middle[:, 10].mean() == pytest.approx(90, abs=1)


def test_the_spectrogram_is_below_its_half_of_the_video():
    """A tone in the third quarter of the video lights the left half below the second row, and nothing else."""
    t = np.arange(64000) / 16000
    samples = (9000 * np.sin(2 * np.pi * 700 * t) * ((t >= 2) & (t < 3))).astype(np.int16)
    cells = [np.full((CELL_SIDE, CELL_SIDE, 3), 20 * i, np.uint8) for i in range(12)]
    sheet = draw_video_sheet(cells, colour_mel(samples))
    height = (sheet.shape[0] - GAP) // 2
    strips = [sheet[row * height + CELL_SIDE + 2 * GAP + 8 : (row + 1) * height - 2] for row in range(2)]
    half = sheet.shape[1] // 2
    light = [[part.max() for part in (strip[:, 80 : half - 80], strip[:, half + 80 : -80])] for strip in strips]
    assert light[1][0] > 150
    assert max(light[0][0], light[0][1], light[1][1]) < 60, light
    for i in range(12):
        row, column = divmod(i, 6)
        assert (sheet[row * height + GAP + 5, column * (CELL_SIDE + GAP) + GAP + 5] == 20 * i).all()


def test_a_sheet_is_written_whole_or_not_at_all(
    landmarker: Landmarker, on_disk: Callable[[str, bytes], Path], tmp_path: Path
):
    source = on_disk("a.mp4", make_video(talk(14), with_tone=True))
    write_video_sheet(source, tmp_path / "sheet.png", landmarker, MediaLimits())
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 6 * (CELL_SIDE + GAP) + GAP
    with pytest.raises(NoAudio):
        write_video_sheet(on_disk("b.mp4", make_video(talk(2))), tmp_path / "none.png", landmarker, MediaLimits())
    assert not list(tmp_path.glob("none*"))


def test_a_path_that_cannot_be_written_is_rejected_before_any_work(tmp_path: Path):
    for name, words in {"sheet.jpg": "ends in .png", "no/sheet.png": "folder that exists"}.items():
        with pytest.raises(InvalidRequest, match=words):
            check_sheet_path(tmp_path / name)
