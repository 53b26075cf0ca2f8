from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from support.shots import film_person
from support.small_wav2lip import voice
from support.video_files import make_video

from inference.errors import NoFaceFound
from inference.faces import Face, FaceBox, FaceRegion, FaceTracker, Landmarker
from inference.faces.turned_box import rotate
from inference.lip_sync import LipSyncer, SyncOptions
from inference.lip_sync.locate import (
    LocatedFace,
    TrackingLocator,
    face_box_of_landmarks,
    locate_face,
    turned_box_of_landmarks,
)
from inference.media import open_media

POINTS = np.full((68, 2), 50.0, np.float32)
POINTS[17:27, 1] = 30
POINTS[0], POINTS[16], POINTS[8] = (20, 50), (80, 50), (50, 80)
FRAME = np.zeros((100, 100, 3), np.uint8)


def face_at(angle_deg: float = 0.0, yaw_deg: float = 0.0, score: float = 1.0, shot: int = 0) -> Face:
    region = FaceRegion(50, 50, 90, math.radians(angle_deg))
    return Face(POINTS, FaceBox(20, 30, 80, 82), region, score, math.radians(yaw_deg), shot)


class Scripted:
    """A tracker that returns given faces."""

    def __init__(self, faces: list[Face | None], unclear: FaceBox | None = None) -> None:
        self._faces = iter(faces)
        self.unclear = unclear

    def follow(self, frames):
        return tuple(next(self._faces) for _ in frames)


def test_a_turned_box_is_the_upright_box_of_the_turned_points():
    upright = face_box_of_landmarks(POINTS)
    for angle in (0.5, math.pi / 2, -2.5):
        turned = turned_box_of_landmarks(rotate(POINTS.astype(float), angle), angle)
        assert (turned.width, turned.height) == pytest.approx((upright.width, upright.height), abs=1e-3)
        assert turned.centre == pytest.approx(rotate(np.array(upright.centre), angle).tolist(), abs=1e-3)


def test_a_box_turns_beyond_eighteen_degrees_and_back_within_twelve():
    locate = TrackingLocator(Scripted([face_at(angle) for angle in (0, 15, 17, 19, 15, 13, 11, 15, -19, 170)]))
    angles = [round(math.degrees(locate(FRAME).angle_rad)) for _ in range(10)]
    assert angles == [0, 0, 0, 19, 15, 13, 0, 0, -19, 170]


def test_an_upright_box_is_as_it_was():
    assert locate_face(face_at(10, shot=3), is_turned=False) == LocatedFace(face_box_of_landmarks(POINTS), 0.0, 3)


@pytest.mark.parametrize(
    ("yaw", "score", "is_usable"), [(0, 0.5, True), (30, 1, True), (-39, 1, False), (39, 1, False), (25, 0.9, False)]
)
def test_a_profile_is_not_usable(yaw: float, score: float, is_usable: bool):
    assert locate_face(face_at(yaw_deg=yaw, score=score), is_turned=False).is_usable is is_usable


def test_an_unclear_face_is_told_from_none():
    box = FaceBox(1, 2, 3, 4)
    assert TrackingLocator(Scripted([None]))(FRAME) is None
    assert TrackingLocator(Scripted([None], unclear=box))(FRAME) == LocatedFace(box, is_usable=False)


def changed_pixels(syncer: LipSyncer, shown: list[np.ndarray]) -> list[np.ndarray]:
    """Sync a video and return, for each frame, where it was changed."""
    video = syncer.sync(make_video(shown, crf=8), voice(len(shown) / 25)).outputs[0].video
    with open_media(video) as media:
        spoken = [frame for clip in media.read_clips(25.0) for frame in clip.frames]
    return [np.abs(a.astype(int) - b).max(axis=2) > 60 for a, b in zip(spoken, shown, strict=True)]


@pytest.mark.parametrize("turn", [cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE])
def test_a_turned_head_is_synced_in_its_own_axes(syncer: LipSyncer, landmarker: Landmarker, turn: int):
    frames = film_person(3, 4, zoom=1.25, left=95, top=0)
    shown = [cv2.rotate(frame, turn) for frame in frames]
    back = {
        cv2.ROTATE_180: cv2.ROTATE_180,
        cv2.ROTATE_90_CLOCKWISE: cv2.ROTATE_90_COUNTERCLOCKWISE,
        cv2.ROTATE_90_COUNTERCLOCKWISE: cv2.ROTATE_90_CLOCKWISE,
    }[turn]
    for mask, face in zip(changed_pixels(syncer, shown), FaceTracker(landmarker).follow(frames), strict=True):
        rows, columns = np.nonzero(cv2.rotate(mask.astype(np.uint8), back))
        eyes, lips, box = face.points[36:48], face.points[48:68], face.box
        assert len(rows) > 0.1 * box.area
        assert np.percentile(rows, 1) > eyes[:, 1].max()
        assert abs(np.median(columns) - lips[:, 0].mean()) < 0.15 * box.width
        assert abs(np.median(rows) - lips[:, 1].mean()) < 0.15 * box.height


def test_a_face_that_is_never_clear_is_said_to_be_there(syncer: LipSyncer, monkeypatch: pytest.MonkeyPatch):
    video = make_video(film_person(3, 4))
    monkeypatch.setattr("inference.lip_sync.locate.is_profile", lambda face: True)
    with pytest.raises(NoFaceFound, match="only faces in profile or unclear ones in 4 frames"):
        syncer.sync(video, voice(0.16))


def test_a_face_that_is_not_there_is_named(syncer: LipSyncer):
    with pytest.raises(NoFaceFound, match="face 1 was asked for, counted from 0; only others, or unclear ones in 4"):
        syncer.sync(make_video(film_person(3, 4)), voice(0.16), SyncOptions(face=1))


def test_frames_in_profile_pass_unchanged_and_are_counted(syncer: LipSyncer, monkeypatch: pytest.MonkeyPatch):
    seen: list[Face] = []
    monkeypatch.setattr("inference.lip_sync.locate.is_profile", lambda face: seen.append(face) or len(seen) > 3)
    result = syncer.sync(make_video(film_person(3, 5)), voice(0.2))
    assert (result.frames_passed_on, result.frames_without_face) == (2, 0)
    assert result.warnings[-1].startswith("2 of 5 frames show a face in profile, an unclear or another one")
