from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.drawn_face import draw_face
from support.shots import film_person
from support.synthetic_frames import talk

from inference.faces import Detection, Face, FaceBox, FaceRegion, FaceTracker, Landmarker
from inference.faces.track import EVERY_FRAME, MAX_LOST_FRAMES, THOROUGH_EVERY, has_moved

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
    score = 0.9  # of the detections

    def __init__(self, script: list[list[FaceBox]]) -> None:
        self.script = script
        self.n_detections = self.n_thorough = 0

    def detect(self, frame_bgr: np.ndarray, n_wanted: int = 1, is_thorough: bool = False) -> list[Detection]:
        self.n_detections += 1
        self.n_thorough += is_thorough
        return [Detection(box, region_of(box), self.score) for box in self.script[frame_bgr[0, 0, 0]]]

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


class Ghost(Scripted):
    def find_landmarks(self, frame_bgr, region):  # the mesh accepts any region
        left, top = region.centre_x - 50, region.centre_y - 50
        return Face(np.zeros((68, 2), np.float32), FaceBox(left, top, left + 100, top + 100), region, 0.9)


def test_a_detection_elsewhere_ends_a_false_track():
    ghost = Ghost([[LEFT, RIGHT]] + [[LEFT]] * 10)
    track = FaceTracker(ghost, detect_every=5).follow([frame_number(i) for i in range(11)])
    assert track[3] is not None  # tracked without a check until the next detection
    assert track[5] is None


def test_a_weak_detection_elsewhere_is_not_followed():
    ghost = Ghost([[LEFT]] + [[RIGHT]] * 6)
    ghost.score = 0.6
    assert FaceTracker(ghost, detect_every=5).follow([frame_number(i) for i in range(7)])[5] is None


def test_the_only_face_of_a_video_is_followed_to_another_place():
    ghost = Ghost([[LEFT]] + [[RIGHT]] * 10)
    track = FaceTracker(ghost, detect_every=5).follow([frame_number(i) for i in range(11)])
    assert [face.box.centre[0] for face in track] == [50] * 5 + [475] * 6
    assert [face.shot for face in track] == [0] * 5 + [1] * 6


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


# Cuts

WIDE, CLOSE = film_person(3, 8), film_person(3, 8, zoom=2.2, left=-90, top=-60)
BESIDE, OTHER = film_person(3, 8, left=280, top=70), film_person(8, 8, zoom=1.2, left=240, top=10)
CUTS = {
    "punched in": (WIDE, CLOSE),
    "punched out": (CLOSE, WIDE),
    "a little nearer": (WIDE, film_person(3, 8, zoom=1.3, left=90, top=-10)),
    "elsewhere": (WIDE, BESIDE),
    "another person": (BESIDE, film_person(8, 8, left=0)),
    "another person, nearer": (WIDE, OTHER),
    "reverse shot": (film_person(3, 8, left=0), film_person(8, 8, zoom=1.2, left=240, top=10)),
}


def distance(face: Face | None, expected: Face | None) -> float:
    """Return the mean distance of the points, as a share of the face's width."""
    assert face is not None
    assert expected is not None
    return float(np.linalg.norm(face.points - expected.points, axis=1).mean() / expected.box.width)


@pytest.mark.parametrize("detect_every", [25, EVERY_FRAME])
@pytest.mark.parametrize("kind", CUTS)
def test_the_right_face_is_tracked_from_the_cut_on(landmarker: Landmarker, kind: str, detect_every: int):
    before, after = CUTS[kind]
    track = FaceTracker(landmarker, detect_every=detect_every).follow([*before, *after, *before])
    alone = [*FaceTracker(landmarker).follow(before), *FaceTracker(landmarker).follow(after)]
    assert all(distance(face, expected) < 0.03 for face, expected in zip(track, [*alone, *alone[:8]], strict=True))
    shots = [face.shot for face in track]
    assert [shots[0], shots[8]] == [0, 1]
    assert len(set(shots[:8])) == len(set(shots[8:16])) == len(set(shots[16:])) == 1
    assert shots[16] != shots[8]


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.4])
def test_a_shaken_camera_does_not_cut(landmarker: Landmarker, zoom: float):
    """By up to a fourteenth of the frame per frame."""
    still = [cv2.resize(frame, (760, 428)) for frame in film_person(3, 12, zoom, left=320 - round(180 * zoom), top=0)]
    moves = 2 * [(0, 0), (45, 20), (45, 20), (10, 40), (50, 10), (5, 5)]
    shaken = [np.ascontiguousarray(f[y : y + 360, x : x + 640]) for f, (x, y) in zip(still, moves, strict=True)]
    track = FaceTracker(landmarker).follow(shaken)
    assert {face and face.shot for face in track} == {0}


def test_a_move_of_the_face_is_told_from_one_of_the_view():
    before = FaceBox(100, 100, 200, 200)
    assert not has_moved(before, FaceBox(124, 100, 224, 200), (0, 0), 0)
    assert has_moved(before, FaceBox(126, 100, 226, 200), (0, 0), 0)
    assert not has_moved(before, FaceBox(180, 70, 280, 170), (80, -30), 0)
    assert not has_moved(before, FaceBox(135, 100, 235, 200), (0, 0), 12)
    assert has_moved(before, FaceBox(80, 80, 220, 220), (0, 0), 12)
    assert has_moved(before, FaceBox(120, 120, 180, 180), (0, 0), 12)


def test_a_cut_to_a_view_without_a_face_has_none(landmarker: Landmarker):
    """The old place is not believed, whatever is there."""
    noise = np.random.default_rng(0).integers(0, 255, WIDE[0].shape, np.uint8)
    track = FaceTracker(landmarker).follow([*WIDE, *[noise] * 3, *WIDE])
    assert [face is not None for face in track] == [True] * 8 + [False] * 3 + [True] * 8
    assert {face.shot for face in track if face} == {0}


def test_a_flash_does_not_change_the_person(landmarker: Landmarker):
    frames = [two_people(i) for i in range(6)]
    frames[3] = np.full_like(frames[3], 255)
    track = FaceTracker(landmarker, 0).follow(frames)
    assert [face is not None for face in track] == [True] * 3 + [False] + [True] * 2
    assert all(face.box.left < 160 < face.box.right for face in track if face)


def test_the_other_face_is_tracked_when_a_cross_fade_is_over(landmarker: Landmarker):
    first, second = film_person(3, 20, left=0), film_person(8, 40, zoom=1.2, left=240, top=10)
    faded = [
        cv2.addWeighted(b, i / 12, a, 1 - i / 12, 0) for i, (a, b) in enumerate(zip(first[8:], second, strict=False))
    ]
    frames = [*first[:8], *faded, *second[12:]]
    track = FaceTracker(landmarker).follow(frames)
    alone = FaceTracker(landmarker).follow(second[26:])
    assert all(distance(face, expected) < 0.03 for face, expected in zip(track[34:], alone, strict=True))


def test_a_head_upside_down_or_sideways_has_its_angle(landmarker: Landmarker):
    (upright,) = FaceTracker(landmarker).follow(CLOSE[:1])
    for turn, angle in ((cv2.ROTATE_180, 180), (cv2.ROTATE_90_CLOCKWISE, 90), (cv2.ROTATE_90_COUNTERCLOCKWISE, -90)):
        (face,) = FaceTracker(landmarker).follow([cv2.rotate(CLOSE[0], turn)])
        assert face is not None
        turned = np.degrees(face.region.angle_rad - upright.region.angle_rad)
        assert abs((turned - angle + 180) % 360 - 180) < 12


def test_a_thorough_search_is_rare():
    empty = Scripted([[]] * 90)
    FaceTracker(empty).follow([frame_number(i) for i in range(90)])
    assert empty.n_thorough == 1 + 89 // THOROUGH_EVERY


def test_cuts_in_every_frame_do_not_make_thorough_searches_frequent():
    empty = Scripted([[]] * 256)
    stripes = [np.kron(np.random.default_rng(i).integers(0, 2, (8, 8, 1)), np.full((8, 8, 3), 200)) for i in range(20)]
    FaceTracker(empty).follow([frame.astype(np.uint8) for frame in stripes])
    assert empty.n_thorough <= 5


def test_a_face_without_landmarks_is_unclear():
    class Profile(Scripted):
        def find_landmarks(self, frame_bgr, region):
            return None

    tracker = FaceTracker(Profile([[LEFT], []]))
    assert tracker.follow([frame_number(0)]) == (None,)
    assert tracker.unclear == LEFT
    assert tracker.follow([frame_number(1)]) == (None,)
    assert tracker.unclear is None
    assert tracker.explain_no_face(2) == "only faces in profile or unclear ones in 2 frames"
