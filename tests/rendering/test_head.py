from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.faces import Landmarker
from inference.faces.track import FaceTracker
from inference.rendering.appearance import Appearance, HeadPose, head_motion
from inference.rendering.mouth_shape import MouthShape
from inference.rendering.rendered_frame import Frame, Landmarks
from inference.rendering.scene import Scene

INNER_UPPER, INNER_LOWER = [61, 62, 63], [67, 66, 65]
CORNERS = [48, 54]
OPEN = MouthShape(open=1.0)
CHANGES = {
    "open": MouthShape(open=1.0),
    "wide": MouthShape(wide=1.0),
    "round": MouthShape(round=1.0),
    "press": MouthShape(press=1.0),
    "tuck": MouthShape(tuck=1.0),
    "teeth": MouthShape(teeth=1.0),
    "tongue": MouthShape(tongue=1.0),
}


def noiseless(seed: int = 0) -> Appearance:
    """Return an appearance without camera noise."""
    return replace(Appearance.from_seed(seed), noise_sigma=0.0)


def one_person(appearance: Appearance, width: int, height: int) -> Scene:
    return Scene([appearance], width, height)


@pytest.fixture(scope="module")
def head() -> Scene:
    return one_person(noiseless(), 360, 288)


def draw(head: Scene, mouth: MouthShape, pose: HeadPose | None = None, seed: int = 0) -> tuple[Frame, Landmarks]:
    frame, (landmarks,) = head.draw([pose or HeadPose()], [mouth], np.random.default_rng(seed))
    return frame, landmarks


def gap(landmarks: Landmarks) -> float:
    return float((landmarks[INNER_LOWER, 1] - landmarks[INNER_UPPER, 1]).mean())


def mouth_width(landmarks: Landmarks) -> float:
    return float(np.ptp(landmarks[CORNERS, 0]))


def mouth_of(frame: Frame, landmarks: Landmarks) -> Frame:
    left, top = landmarks[48:68].min(axis=0).astype(int) - 6
    right, bottom = landmarks[48:68].max(axis=0).astype(int) + 6
    return frame[top:bottom, left:right]


@pytest.mark.parametrize(("width", "height"), [(160, 120), (240, 426), (360, 288), (640, 480)])
def test_a_frame_and_its_landmarks(width: int, height: int):
    frame, landmarks = draw(one_person(Appearance.from_seed(2), width, height), OPEN)
    assert frame.shape == (height, width, 3)
    assert frame.dtype == np.uint8
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    assert (landmarks >= 0).all()
    assert (landmarks < (width, height)).all()


def test_equal_shapes_are_equal_pixels():
    pose = HeadPose(yaw=0.1, x=2.5, blink=0.3)
    mouth = MouthShape(open=0.5, wide=0.2, teeth=0.4)
    frame, landmarks = draw(one_person(Appearance.from_seed(4), 360, 288), mouth, pose, seed=9)
    other = one_person(Appearance.from_seed(4), 360, 288)
    draw(other, CHANGES["round"])  # leaves nothing behind
    again, same = draw(other, MouthShape(**vars(mouth)), pose, seed=9)
    assert np.array_equal(frame, again)
    assert np.array_equal(landmarks, same)


def test_noise_changes_pixels_and_nothing_else():
    head = one_person(Appearance.from_seed(4), 360, 288)
    frame, landmarks = draw(head, OPEN, seed=1)
    other, same = draw(head, OPEN, seed=2)
    assert not np.array_equal(frame, other)
    assert np.abs(frame.astype(int) - other).mean() < 8
    assert np.array_equal(landmarks, same)


@pytest.mark.parametrize("name", CHANGES)
def test_every_part_of_a_shape_is_visible(head: Scene, name: str):
    rest, at_rest = draw(head, MouthShape())
    changed, landmarks = draw(head, CHANGES[name])
    box = mouth_of(np.abs(changed.astype(int) - rest), at_rest)
    assert (box.max(axis=2) > 25).mean() > 0.03
    assert np.abs(landmarks[48:68] - at_rest[48:68]).max() > 1
    assert np.abs(landmarks[17:48] - at_rest[17:48]).max() < 1.5  # brows, nose and eyes stay
    assert (changed[:100] == rest[:100]).all()


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in CHANGES for b in CHANGES if a < b], ids=str)
def test_shapes_differ_from_each_other(head: Scene, one: str, other: str):
    first, landmarks = draw(head, CHANGES[one])
    second, _ = draw(head, CHANGES[other])
    box = mouth_of(np.abs(first.astype(int) - second), landmarks)
    assert (box.max(axis=2) > 25).mean() > 0.03


def test_landmarks_follow_the_shape(head: Scene):
    gaps = [gap(draw(head, MouthShape(open=o))[1]) for o in np.linspace(0, 1.8, 7)]
    assert gaps[0] == pytest.approx(0, abs=0.01)
    assert (np.diff(gaps) > 1.5).all()
    rest = mouth_width(draw(head, MouthShape())[1])
    assert mouth_width(draw(head, CHANGES["wide"])[1]) > 1.1 * rest
    assert mouth_width(draw(head, CHANGES["round"])[1]) < 0.85 * rest
    chin = [draw(head, MouthShape(open=o))[1][8, 1] for o in (0, 1.5)]
    assert chin[1] > chin[0] + 5


def test_small_changes_are_visible(head: Scene):
    """A hundredth of a unit is less than a tenth of a pixel, and still changes the frame a little."""
    for part in CHANGES:
        before, _ = draw(head, replace(MouthShape(open=0.4), **{part: 0.5}))
        after, _ = draw(head, replace(MouthShape(open=0.4), **{part: 0.53}))
        change = np.abs(before.astype(int) - after)
        assert 1 <= change.max() < 60, part


def test_features_are_drawn_at_their_landmarks(head: Scene):
    """An open mouth is dark at the middle of its inner landmarks, also when the head is turned."""
    for pose in (HeadPose(), HeadPose(yaw=0.2, pitch=0.1, roll=0.1, x=12, y=-8)):
        frame, landmarks = draw(head, MouthShape(open=1.5), pose)
        x, y = landmarks[[*INNER_UPPER, *INNER_LOWER]].mean(axis=0).round().astype(int)
        chin_x, chin_y = ((landmarks[57] + landmarks[8]) / 2).round().astype(int)
        assert frame[y - 1 : y + 2, x - 1 : x + 2].mean() < 0.6 * frame[chin_y, chin_x].mean()


def test_blinks_close_the_eyes(head: Scene):
    seen, landmarks = draw(head, MouthShape())
    shut, closed = draw(head, MouthShape(), HeadPose(blink=1.0))
    assert (landmarks[41, 1] - landmarks[37, 1]) > 4 * (closed[41, 1] - closed[37, 1])
    assert np.array_equal(seen[180:], shut[180:])


def test_an_empty_room_has_no_face(head: Scene, landmarker: Landmarker):
    room = head.draw_empty(np.random.default_rng(0))
    assert room.shape == (288, 360, 3)
    assert FaceTracker(landmarker).follow([room]) == (None,)


@pytest.mark.parametrize(("width", "height", "seeds"), [(360, 288, range(6)), (854, 480, (12,)), (270, 480, (14,))])
def test_faces_are_found(landmarker: Landmarker, width: int, height: int, seeds: range):
    rng = np.random.default_rng(0)
    errors, gaps, n_missed = [], [], 0
    for seed in seeds:
        appearance = Appearance.from_seed(seed)
        head = one_person(appearance, width, height)
        tracker = FaceTracker(landmarker, detect_every=1)
        of_one = []
        for pose in head_motion(appearance, seed, np.linspace(0, 12, 8)):
            mouth = MouthShape(open=float(rng.uniform(0, 1.8)), wide=float(rng.uniform()), teeth=float(rng.uniform()))
            frame, (landmarks,) = head.draw([pose], [mouth], rng)
            (face,) = tracker.follow([frame])
            if face is None:
                n_missed += 1
                continue
            unit = height / 288
            errors.append(np.linalg.norm(face.points - landmarks, axis=1)[48:].mean() / unit)
            of_one.append([gap(landmarks) / unit, gap(face.points) / unit])
        gaps += list(np.subtract(of_one, np.mean(of_one, axis=0)))
    assert n_missed == 0
    assert np.mean(errors) < 2.5
    assert np.corrcoef(np.transpose(gaps))[0, 1] > 0.9


def test_two_people_are_two_faces(landmarker: Landmarker):
    scene = Scene([Appearance.from_seed(1), Appearance.from_seed(2)], 640, 360)
    poses, mouths = [HeadPose(), HeadPose(yaw=0.1)], [MouthShape(), OPEN]
    frame, landmarks = scene.draw(poses, mouths, np.random.default_rng(0))
    assert frame.shape == (360, 640, 3)
    assert landmarks[0][:, 0].max() < 320 < landmarks[1][:, 0].min()
    found = sorted(landmarker.detect(frame, 2), key=lambda d: d.box.left)
    assert len(found) == 2
    for detection, points in zip(found, landmarks, strict=True):
        assert np.abs(np.subtract(detection.box.centre, points.mean(axis=0))).max() < 40
    assert FaceTracker(landmarker).follow([scene.draw_empty(np.random.default_rng(0))]) == (None,)
