from __future__ import annotations

import numpy as np
import pytest
from support.drawn_face import draw_face
from support.synthetic_frames import talk

from inference.faces import Detection, Face, FaceBox, FaceRegion, FaceTracker, Landmarker
from inference.faces.track import EVERY_FRAME, MAX_LOST_FRAMES

BLACK = np.zeros((288, 360, 3), np.uint8)


def test_every_frame_of_a_talking_face_has_one(landmarker: Landmarker):
    track = FaceTracker(landmarker).follow(talk(40))
    assert all(face is not None for face in track)


def test_tracking_and_exact_mode_agree(landmarker: Landmarker):
    frames = talk(20)
    tracked = FaceTracker(landmarker).follow(frames)
    exact = FaceTracker(landmarker, detect_every=EVERY_FRAME).follow(frames)
    apart = [np.linalg.norm(a.points - b.points, axis=1).mean() for a, b in zip(tracked, exact, strict=True) if a and b]
    assert len(apart) == 20
    assert np.mean(apart) < 2


def test_a_face_is_found_again_after_a_frame_without_it(landmarker: Landmarker):
    frames = talk(6)
    frames[2] = BLACK
    assert [face is not None for face in FaceTracker(landmarker).follow(frames)] == [1, 1, 0, 1, 1, 1]


def test_pieces_track_as_one_clip(landmarker: Landmarker):
    frames = talk(9)
    whole = FaceTracker(landmarker).follow(frames)
    pieces = FaceTracker(landmarker)
    track = [face for i in range(0, 9, 2) for face in pieces.follow(frames[i : i + 2])]
    for a, b in zip(whole, track, strict=True):
        assert a is not None
        assert b is not None
        assert np.array_equal(a.points, b.points)


def two_people(i: int) -> np.ndarray:
    frame = draw_face(640, 360, (160, 190), 150, mouth_open=i % 3 / 2)
    return draw_face(640, 360, (460, 190), 220, mouth_open=i % 2, frame=frame)


@pytest.mark.parametrize(("choice", "x"), [("largest", 460), (0, 160), (1, 460)])
def test_the_selected_face_is_tracked(landmarker: Landmarker, choice, x: int):
    for face in FaceTracker(landmarker, choice).follow([two_people(i) for i in range(5)]):
        assert face is not None
        assert face.box.left < x < face.box.right


def test_a_face_that_never_appears_is_none_throughout(landmarker: Landmarker):
    tracker = FaceTracker(landmarker, 2)
    assert tracker.follow([two_people(i) for i in range(3)]) == (None, None, None)
    assert tracker.max_faces_found == 2


class Scripted:
    """A landmarker with scripted detections: a list of face boxes per frame."""

    name = "scripted"
    must_detect = False
    notice = None

    def __init__(self, script: list[list[FaceBox]]) -> None:
        self.script = script
        self.n_detections = 0

    def detect(self, frame_bgr: np.ndarray, n_wanted: int = 1) -> list[Detection]:
        self.n_detections += 1
        return [Detection(box, region_of(box), 0.9) for box in self.script[frame_bgr[0, 0, 0]]]

    def find_landmarks(self, frame_bgr: np.ndarray, region: FaceRegion) -> Face | None:
        for box in self.script[frame_bgr[0, 0, 0]]:
            if abs(box.centre[0] - region.centre_x) < 30:
                return Face(np.zeros((68, 2), np.float32), box, region_of(box), 0.9)
        return None


def region_of(box: FaceBox) -> FaceRegion:
    return FaceRegion(*box.centre, box.width, 0.0)


def frame_number(i: int) -> np.ndarray:
    return np.full((4, 4, 3), i, np.uint8)


LEFT, RIGHT = FaceBox(0, 0, 100, 100), FaceBox(400, 0, 550, 150)


def test_a_lost_face_is_waited_for_before_another_is_tracked():
    script = [[LEFT, RIGHT]] + [[LEFT]] * (MAX_LOST_FRAMES + 5)
    track = FaceTracker(Scripted(script)).follow([frame_number(i) for i in range(len(script))])
    assert track[0] is not None
    assert track[0].box == RIGHT
    assert [face is None for face in track[1 : MAX_LOST_FRAMES + 1]] == [True] * MAX_LOST_FRAMES
    assert track[MAX_LOST_FRAMES + 1] is not None


def test_a_lost_face_is_tracked_again():
    script = [[LEFT, RIGHT], [LEFT], [LEFT, RIGHT]]
    track = FaceTracker(Scripted(script)).follow([frame_number(i) for i in range(3)])
    assert [face and face.box for face in track] == [RIGHT, None, RIGHT]


def test_a_detection_elsewhere_ends_a_false_track():
    class Ghost(Scripted):
        def find_landmarks(self, frame_bgr, region):  # the mesh accepts any region
            return Face(np.zeros((68, 2), np.float32), FaceBox(0, 0, 100, 100), region, 0.6)

    ghost = Ghost([[LEFT]] + [[RIGHT]] * 10)
    track = FaceTracker(ghost, detect_every=5).follow([frame_number(i) for i in range(11)])
    assert track[3] is not None  # tracked without a check until the next detection
    assert track[5] is None


def test_the_detector_runs_every_few_frames():
    steady = Scripted([[LEFT]] * 50)
    FaceTracker(steady, detect_every=10).follow([frame_number(i) for i in range(50)])
    assert 4 <= steady.n_detections <= 6


def test_a_repeated_frame_costs_nothing():
    steady = Scripted([[LEFT]])
    frame = frame_number(0)
    track = FaceTracker(steady, detect_every=EVERY_FRAME).follow([frame] * 10)
    assert steady.n_detections == 1
    assert track.count(track[0]) == 10


def test_a_change_of_size_loses_no_frame(landmarker: Landmarker):
    frames = talk(3) + talk(3, width=720, height=576) + talk(2, width=320, height=256)
    for frame, face in zip(frames, FaceTracker(landmarker).follow(frames), strict=True):
        assert face is not None
        assert abs(face.box.centre[0] - frame.shape[1] / 2) < frame.shape[1] / 10


def test_faces_are_counted_from_the_left():
    script = [[RIGHT, LEFT]] * 2
    frames = [frame_number(i) for i in range(2)]
    for choice, expected in ((0, LEFT), (1, RIGHT)):
        track = FaceTracker(Scripted(script), choice).follow(frames)
        assert [face and face.box for face in track] == [expected, expected]
