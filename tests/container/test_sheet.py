from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from films import film, number_of, numbered
from speaking import talk

from container.sheet import CELL, GAP, check_sheet, cut_cells, lay_out, pick_frames, picture_mel, write_sheet
from inference.errors import InvalidRequest, NoAudio
from inference.faces import Landmarker
from inference.media import MediaLimits


def test_twelve_moments_evenly_spread(on_disk: Callable[[str, bytes], Path]):
    frames = pick_frames(on_disk("a.mp4", film(numbered(48))), MediaLimits())
    assert [number_of(frame) for frame in frames] == [2 + 4 * i for i in range(12)]
    few = pick_frames(on_disk("b.mp4", film(numbered(3))), MediaLimits())
    assert [number_of(frame) for frame in few] == [0] * 4 + [1] * 4 + [2] * 4


def test_cells_show_the_face_large_or_the_middle(landmarker: Landmarker):
    frame = talk(1)[0]
    wall = np.full((100, 300, 3), 90, np.uint8)
    wall[:, 140:160] = 200
    face, middle = cut_cells([frame, wall], landmarker)
    assert face.shape == middle.shape == (CELL, CELL, 3)
    (found,) = landmarker.detect(face)
    assert found.box.width > CELL * 0.4
    assert abs(found.box.centre[0] - CELL / 2) < CELL * 0.2
    assert middle[:, CELL // 2].mean() == pytest.approx(200, abs=1)
    assert middle[:, 10].mean() == pytest.approx(90, abs=1)


def test_what_is_heard_stands_under_what_is_seen():
    """A tone in the film's third quarter: it lights the left half under the second row, and nothing else."""
    t = np.arange(64000) / 16000
    sound = (9000 * np.sin(2 * np.pi * 700 * t) * ((t >= 2) & (t < 3))).astype(np.int16)
    cells = [np.full((CELL, CELL, 3), 20 * i, np.uint8) for i in range(12)]
    sheet = lay_out(cells, picture_mel(sound))
    height = (sheet.shape[0] - GAP) // 2
    strips = [sheet[row * height + CELL + 2 * GAP + 8 : (row + 1) * height - 2] for row in range(2)]
    half = sheet.shape[1] // 2
    light = [[part.max() for part in (strip[:, 80 : half - 80], strip[:, half + 80 : -80])] for strip in strips]
    assert light[1][0] > 150
    assert max(light[0][0], light[0][1], light[1][1]) < 60, light
    for i in range(12):
        row, column = divmod(i, 6)
        assert (sheet[row * height + GAP + 5, column * (CELL + GAP) + GAP + 5] == 20 * i).all()


def test_a_sheet_is_written_whole_or_not_at_all(
    landmarker: Landmarker, on_disk: Callable[[str, bytes], Path], tmp_path: Path
):
    source = on_disk("a.mp4", film(talk(14), with_tone=True))
    write_sheet(source, tmp_path / "sheet.png", landmarker, MediaLimits())
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 6 * (CELL + GAP) + GAP
    with pytest.raises(NoAudio):
        write_sheet(on_disk("b.mp4", film(talk(2))), tmp_path / "none.png", landmarker, MediaLimits())
    assert not list(tmp_path.glob("none*"))


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path: Path):
    for name, words in {"sheet.jpg": "ends in .png", "no/sheet.png": "folder that is there"}.items():
        with pytest.raises(InvalidRequest, match=words):
            check_sheet(tmp_path / name)
