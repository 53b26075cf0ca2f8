from __future__ import annotations

import json
import math
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.errors import InvalidRequest, StorageError
from inference.faces import FaceBox
from inference.lip_sync import PARITY, Pads, SyncOptions
from inference.lip_sync.compose import batch_frames, generate_patches, paste_faces, to_patches
from inference.lip_sync.frame_spool import FrameSpool, loop_frames, loop_index
from inference.lip_sync.locate import LocatedFace, face_box_of_landmarks
from inference.lip_sync.preprocess import (
    FaceFrame,
    cut_face,
    downscale_frames,
    find_boxes,
    pad_to_even,
    smooth_boxes,
    stack_faces,
)
from inference.media import Clip


def blank(width: int = 64, height: int = 48) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def face_frames_of(rows: list[list[int] | None]) -> list[FaceFrame]:
    return [FaceFrame(blank(), None if row is None else FaceBox(*row)) for row in rows]


def rows_of(face_frames) -> list[list[float] | None]:
    return [None if s.box is None else [s.box.left, s.box.top, s.box.right, s.box.bottom] for s in face_frames]


def test_boxes_equal_upstreams(shared: Path):
    """Tracks of 1 to 20 boxes, padded and then smoothed."""
    tracks = json.loads((shared / "golden" / "boxes.json").read_text())["tracks"]
    assert {track["n"] for track in tracks} == {20, 3, 4, 1, 2, 5, 12}
    for track in tracks:
        width, height = track["image_w_h"]
        found = iter([LocatedFace(FaceBox(*box)) for box in track["detections_x1y1x2y2"]])
        frames = [blank(width, height) for _ in range(track["n"])]
        padded = list(
            find_boxes(frames, lambda _, found=found: next(found), Pads(*track["pads_top_bottom_left_right"]))
        )
        order = [1, 3, 0, 2]  # y1 y2 x1 x2
        assert [[row[i] for i in order] for row in rows_of(padded)] == track["padded_y1y2x1x2"]
        smoothed = rows_of(smooth_boxes(padded, "upstream"))
        assert [[row[i] for i in order] for row in smoothed] == track["smoothed_y1y2x1x2"]


def test_upstreams_window_leads_and_the_centred_one_does_not():
    rows = [[10 * i, 0, 10 * i + 40, 40] for i in range(12)]
    centred, upstream = (rows_of(smooth_boxes(face_frames_of(rows), kind)) for kind in ("centred", "upstream"))
    assert centred == rows
    assert [row[0] for row in upstream[:8]] == [10 * i + 20 for i in range(8)]


def test_smoothing_keeps_frames_and_gaps():
    rows = [[0, 0, 10, 10], [4, 0, 14, 10], None, None, [20, 0, 30, 10], [22, 0, 32, 10], [27, 0, 37, 10], None]
    for kind in ("centred", "upstream", "none"):
        face_frames = face_frames_of(rows)
        smooth = list(smooth_boxes(face_frames, kind))
        assert [id(face_frame.frame) for face_frame in smooth] == [id(face_frame.frame) for face_frame in face_frames]
        assert [row is None for row in rows_of(smooth)] == [row is None for row in rows]
    assert rows_of(smooth_boxes(face_frames_of(rows), "centred"))[5] == [23, 0, 33, 10]


def test_smoothing_never_runs_across_a_cut():
    rows = [[10 * i, 0, 10 * i + 40, 40] for i in (0, 3, 1, 2, 70, 72, 71, 75)]
    shots = [0, 0, 0, 0, 1, 1, 1, 1]
    face_frames = [FaceFrame(blank(), FaceBox(*row), shot=shot) for row, shot in zip(rows, shots, strict=True)]
    for kind in ("centred", "upstream"):
        whole = rows_of(smooth_boxes(face_frames, kind))
        assert whole == rows_of(smooth_boxes(face_frames[:4], kind)) + rows_of(smooth_boxes(face_frames[4:], kind))
    assert [one.shot for one in smooth_boxes(face_frames, "centred")] == shots


def test_angles_are_smoothed_through_upside_down():
    angles = [3.0, 3.1, -3.1, -3.0, -3.05]
    face_frames = [FaceFrame(blank(), FaceBox(0, 0, 10, 10), angle) for angle in angles]
    smooth = [one.angle_rad % math.tau for one in smooth_boxes(face_frames, "centred")]
    assert smooth[2] == pytest.approx((3.0 + 3.1 + 3 * math.tau - 3.1 - 3.0 - 3.05) / 5)
    assert max(abs(after - before) for before, after in pairwise(smooth)) < 0.2


def test_an_upright_box_is_not_averaged_with_a_turned_one():
    face_frames = [FaceFrame(blank(), FaceBox(i, 0, i + 10, 10), 0.4 * (i > 2)) for i in range(6)]
    assert [one.angle_rad for one in smooth_boxes(face_frames, "centred")] == [0] * 3 + [pytest.approx(0.4)] * 3
    assert [row[0] for row in rows_of(smooth_boxes(face_frames, "centred"))] == [0, 1, 2, 3, 4, 5]


def test_a_turned_box_is_padded_along_its_own_sides():
    located = LocatedFace(FaceBox(10.3, 10.3, 30.3, 40.3), math.pi / 2)  # its bottom is on the left of the screen
    (found,) = find_boxes([blank()], lambda _: located, Pads(top=0, bottom=10, left=2, right=2))
    assert (found.box.width, found.box.height) == (24, 40)
    assert found.box.centre == pytest.approx((20.3 - 5, 25.3), abs=0.6)
    assert found.angle_rad == math.pi / 2
    assert rows_of(find_boxes([blank()], lambda _: located, Pads(bottom=-50))) == [None]


def test_smoothing_streams():
    """Boxes come a few frames later, not at the end."""
    endless = (FaceFrame(blank(), FaceBox(i, 0, i + 10, 10)) for i in range(10**9))
    for kind in ("centred", "upstream"):
        assert len(list(islice(smooth_boxes(endless, kind), 20))) == 20


def test_a_box_is_padded_inside_the_frame():
    def box(pads: Pads) -> list[list[float] | None]:
        located = LocatedFace(FaceBox(10.7, 5.2, 30.9, 40.1))
        return rows_of(find_boxes([blank()], lambda _: located, pads))

    assert box(Pads(0, 0, 0, 0)) == [[10, 5, 30, 40]]
    assert box(Pads(10, 20, 3, 100)) == [[7, 0, 64, 48]]
    assert box(Pads(0, -50, 0, 0)) == [None]


def test_a_box_spans_brows_chin_and_jaw():
    points = np.full((68, 2), 50.0)
    points[17:27, 1] = 30
    points[0], points[16], points[8] = (20, 50), (80, 50), (50, 80)
    assert face_box_of_landmarks(points) == FaceBox(20, 30, 80, 82)


def test_frames_become_even_and_alike():
    clip = Clip((blank(65, 47), blank(130, 94)), 25)
    assert [frame.shape for frame in downscale_frames([clip], 1)] == [(48, 66, 3)] * 2
    assert [frame.shape for frame in downscale_frames([clip], 2)] == [(24, 32, 3)] * 2
    frame = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(pad_to_even(frame)[:3, :3], frame)
    assert np.array_equal(pad_to_even(frame)[3], pad_to_even(frame)[2])


def test_parity_downscales_as_upstream_does():
    """Upstream calls cv2.resize with its default, bilinear, and rounds the divided sides down."""
    frame = np.random.default_rng(1).integers(0, 256, (291, 365, 3), np.uint8)
    for factor in (2, 4):
        height, width = 291 // factor, 365 // factor
        (found,) = downscale_frames([Clip((frame,), 25)], factor, PARITY.shrinking)
        assert np.array_equal(found[:height, :width], cv2.resize(frame, (width, height)))
        (mean,) = downscale_frames([Clip((frame,), 25)], factor)
        assert mean[:height, :width].std() < found[:height, :width].std()  # noise is averaged away


def test_the_network_input_equals_upstreams(shared: Path):
    with np.load(shared / "golden" / "wav2lip_compose.npz") as golden:
        top, bottom, left, right = golden["box_a_y1y2x1x2"].tolist()
        face = cut_face(golden["frame"], FaceBox(left, top, right, bottom))
        assert np.array_equal(face.transpose(2, 0, 1), golden["face96"])
        np.testing.assert_allclose(stack_faces([face])[:, :, ::4, ::4], golden["model_input"], atol=1e-6)


def test_the_lower_half_is_hidden_once():
    faces = stack_faces([np.full((96, 96, 3), 255, np.uint8)])
    assert faces.shape == (1, 6, 96, 96)
    assert (faces[:, :3, :48] == 1).all()
    assert (faces[:, :3, 48:] == 0).all()
    assert (faces[:, 3:] == 1).all()


def numbered_frames(n: int) -> list[FaceFrame]:
    return [FaceFrame(np.full((4, 6, 3), i, np.uint8), FaceBox(i, 0, i + 1, 1)) for i in range(n)]


@pytest.mark.parametrize(
    ("loop", "expected"),
    [("pingpong", [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]), ("restart", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2])],
)
def test_a_short_video_is_looped(loop, expected: list[int]):
    looped = list(loop_frames(numbered_frames(4), 11, loop))
    assert [int(face_frame.frame[0, 0, 0]) for face_frame in looped] == expected
    assert rows_of(looped) == [[i, 0, i + 1, 1] for i in expected]


def test_one_frame_is_repeated_and_a_long_video_is_cut():
    assert [int(s.frame[0, 0, 0]) for s in loop_frames(numbered_frames(1), 3, "pingpong")] == [0, 0, 0]
    assert [int(s.frame[0, 0, 0]) for s in loop_frames(numbered_frames(9), 3, "pingpong", spooled=False)] == [0, 1, 2]
    assert [loop_index(i, 2, "pingpong") for i in range(5)] == [0, 1, 0, 1, 0]


def test_a_spool_keeps_the_last_frames_and_the_video_reverses_at_its_end(monkeypatch: pytest.MonkeyPatch):
    with FrameSpool(max_bytes=3 * 72) as spool:
        for face_frame in numbered_frames(5):
            spool.add(face_frame)
        assert [int(spool[i].frame[0, 0, 0]) for i in range(len(spool))] == [2, 3, 4]
        assert spool[0].box == FaceBox(2, 0, 3, 1)
        spool.add(FaceFrame(spool[2].frame, FaceBox(0, 0, 1, 1), 0.5, 3))
        assert (spool[2].angle_rad, spool[2].shot) == (0.5, 3)
    monkeypatch.setattr("inference.lip_sync.frame_spool.SPOOL_BYTES", 3 * 72)
    monkeypatch.setattr(FrameSpool.__init__, "__defaults__", (3 * 72,))
    looped = loop_frames(numbered_frames(5), 11, "pingpong")
    assert [int(face_frame.frame[0, 0, 0]) for face_frame in looped] == [0, 1, 2, 3, 4, 3, 2, 3, 4, 3, 2]


def test_a_spool_on_a_full_disk_raises():
    class Full:
        def seek(self, _at):
            return 0

        def write(self, _data):
            raise OSError(28, "No space left on device")

        def close(self):
            return None

    with FrameSpool() as spool:
        spool._file.close()
        spool._file = Full()
        with pytest.raises(StorageError, match="No space left"):
            spool.add(numbered_frames(1)[0])


def test_frames_without_a_face_pass_and_cost_nothing():
    frame = np.full((120, 160, 3), 90, np.uint8)
    face_frames = [FaceFrame(frame, None), FaceFrame(frame, FaceBox(20, 10, 100, 110)), FaceFrame(frame, None)]
    seen = []

    def network(mels: np.ndarray, faces: np.ndarray) -> np.ndarray:
        seen.append((mels.shape, faces.shape, mels[0, 0, 0, 0]))
        return np.ones((len(faces), 3, 96, 96), np.float32)

    mels = [np.full((80, 16), i, np.float32) for i in range(3)]
    spoken = generate_patches(batch_frames(face_frames, mels, 2), [network])
    frames = [frames[0] for frames in paste_faces(spoken, "overwrite")]
    assert seen == [((1, 1, 80, 16), (1, 6, 96, 96), 1.0)]
    assert frames[0] is frame
    assert frames[2] is frame
    assert (frames[1][10:110, 20:100] == 255).all()
    assert (frame == 90).all()


def test_patches_are_truncated_to_uint8():
    faces = np.zeros((1, 3, 96, 96), np.float32)
    faces[0, :, 0, 0] = 0.999, 1.5, np.nan
    assert to_patches(faces)[0, 0, 0].tolist() == [254, 255, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": 0.5},
        {"fps": float("nan")},
        {"resize_factor": 3},
        {"loop": "bounce"},
        {"reference": "none"},
        {"smoothing": "yes"},
        {"pads": Pads(bottom=9999)},
        {"face": -1},
        {"face": True},
        {"mel_offset_frames": 99},
    ],
)
def test_invalid_options_are_refused(wrong: dict):
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        SyncOptions(**wrong)


def test_parity_is_upstream():
    assert (PARITY.loop, PARITY.smoothing, PARITY.paste, PARITY.boxes, PARITY.tail, PARITY.mel_offset_frames) == (
        "restart",
        "upstream",
        "overwrite",
        "s3fd",
        "drop",
        0,
    )
    assert PARITY.pads == Pads(0, 10, 0, 0)
