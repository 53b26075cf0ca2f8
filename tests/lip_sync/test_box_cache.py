from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.audio_files import RATE, encode_audio, make_tone
from support.synthetic_frames import talk
from support.video_files import make_video

from inference.errors import NoFaceFound
from inference.faces import FaceBox, FaceTracker
from inference.lip_sync import BoxCache, LipSyncer, SyncOptions, box_cache
from inference.lip_sync.box_cache import (
    BoxTrack,
    CachingFaceLocator,
    Fingerprint,
    cache_key,
    decode_track,
    encode_track,
    mediapipe_detector_name,
)
from inference.lip_sync.locate import LocatedFace
from inference.media import MediaLimits

BOXES = np.array([[1.5, 2, 30, 40, 0, 0, 1], [np.nan] * 7, [2.25, 2, 31, 40, -1.5, 3, 0]])
UPRIGHT = [0, 0, 1]  # angle, shot, is usable
TRACK = BoxTrack(BOXES, 4, is_whole=True)
VOICE = encode_audio(make_tone(0.4, RATE), RATE)  # ten frames


@pytest.fixture
def detected_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of frames of each call of the tracker."""
    seen: list[int] = []
    real = FaceTracker.follow

    def follow(self, frames):
        seen.append(len(frames))
        return real(self, frames)

    monkeypatch.setattr(FaceTracker, "follow", follow)
    return seen


@pytest.fixture
def cached(syncer: LipSyncer, tmp_path: Path) -> LipSyncer:
    """The same networks, with a cache."""
    one = copy.copy(syncer)
    one._tracks = BoxCache(tmp_path / "tracks")
    return one


def tracks_in(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "tracks").iterdir())


def test_the_same_video_is_searched_once(
    cached: LipSyncer, syncer: LipSyncer, detected_on: list[int], on_disk: Callable[[str, bytes], Path], tmp_path: Path
):
    face = on_disk("face.mp4", make_video(talk(8)))
    first = cached.sync(face, VOICE)
    assert len(detected_on) == 8
    again = cached.sync(face.read_bytes(), VOICE)  # the key is the bytes, not the name
    assert len(detected_on) == 8
    assert again.outputs[0].video == first.outputs[0].video
    assert syncer.sync(face, VOICE).outputs[0].video == first.outputs[0].video
    assert len(detected_on) == 16
    assert len(tracks_in(tmp_path)) == 1


@pytest.mark.parametrize("changed", [{"fps": 20.0}, {"resize_factor": 2}, {"face": 0}])
def test_options_that_change_boxes_make_another_track(
    cached: LipSyncer, detected_on: list[int], tmp_path: Path, changed: dict
):
    face = make_video(talk(6))
    cached.sync(face, VOICE)
    n_first = len(detected_on)
    cached.sync(face, VOICE, SyncOptions(**changed))
    assert len(detected_on) > n_first
    assert len(tracks_in(tmp_path)) == 2
    n_second = len(detected_on)
    for free in ({"paste": "overwrite"}, {"smoothing": "none"}, {"loop": "restart"}):  # and options that do not
        cached.sync(face, VOICE, SyncOptions(**free))
    assert len(detected_on) == n_second


def test_another_video_of_the_same_name_is_another_key(
    cached: LipSyncer, detected_on: list[int], on_disk: Callable[[str, bytes], Path], tmp_path: Path
):
    for frames in (talk(5), talk(6)[1:]):
        cached.sync(on_disk("face.mp4", make_video(frames)), VOICE)
    assert len(detected_on) == 10
    assert len(tracks_in(tmp_path)) == 2


def test_a_cached_part_does_not_stand_for_the_whole(cached: LipSyncer, detected_on: list[int]):
    """A short audio file needs the video's beginning only; a longer one detects again, and then all of it is cached."""
    face = make_video(talk(60))
    brief, longer = VOICE, encode_audio(make_tone(1.2, RATE), RATE)
    cached.sync(face, brief)
    n_brief = len(detected_on)
    assert n_brief < 20
    cached.sync(face, brief)
    assert len(detected_on) == n_brief
    cached.sync(face, longer)
    n_longer = len(detected_on)
    assert n_longer - n_brief >= 30
    cached.sync(face, longer)
    cached.sync(face, brief)
    assert len(detected_on) == n_longer


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-8],
        lambda whole: b"",
        lambda whole: whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        lambda whole: encode_track(TRACK, "another key"),
    ],
    ids=["cut off", "empty", "a bit", "another's"],
)
def test_a_damaged_track_is_detected_again(cached: LipSyncer, detected_on: list[int], tmp_path: Path, damage: Callable):
    face = make_video(talk(4))
    first = cached.sync(face, VOICE)
    (path,) = tracks_in(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = cached.sync(face, VOICE)
    assert len(detected_on) == 8
    assert again.outputs[0].video == first.outputs[0].video
    assert path.read_bytes() == whole


def test_a_forged_track_only_moves_boxes(cached: LipSyncer, tmp_path: Path):
    """Write access to the folder allows to move boxes; a box outside the frame is not a face."""
    face = make_video(talk(4))
    cached.sync(face, VOICE)
    fps, digest = 25, Fingerprint.of(face, MediaLimits()).digest
    (path,) = tracks_in(tmp_path)
    key = cache_key(digest, fps, SyncOptions(), mediapipe_detector_name())
    path.write_bytes(
        encode_track(BoxTrack(np.array([[-500, -500, 9000, 9000, *UPRIGHT]] * 4, float), 4, is_whole=True), key)
    )
    assert cached.sync(face, VOICE).num_frames == 10
    for row in ([400, 300, 500, 400], [50, 50, 10, 10]):
        path.write_bytes(encode_track(BoxTrack(np.array([[*row, *UPRIGHT]] * 4, float), 4, is_whole=True), key))
        with pytest.raises(NoFaceFound):
            cached.sync(face, VOICE)
    for row in ([np.inf, 0, 1, 1, *UPRIGHT], [0, 0, 1e300, 1, *UPRIGHT], [0, 0, 1, 1, 0, 1e300, 1]):
        assert decode_track(encode_track(BoxTrack(np.array([row], float), 1, is_whole=True), key), key) is None


def test_a_track_survives_packing():
    found = decode_track(encode_track(TRACK, "key"), "key")
    assert found is not None
    np.testing.assert_array_equal(found.boxes, BOXES)
    assert (found.n_frames, found.is_whole) == (4, True)
    assert TRACK.covers(9)
    assert not replace(TRACK, is_whole=False).covers(5)


def test_a_locator_repeats_boxes_and_then_detects():
    located = []

    def locate(_frame):
        located.append(1)

    made = []
    locator = CachingFaceLocator(lambda: made.append(1) or locate, TRACK)
    frame = np.zeros((4, 4, 3), np.uint8)
    faces = [locator(frame) for _ in range(3)]
    assert faces == [
        LocatedFace(FaceBox(1.5, 2, 30, 40)),
        None,
        LocatedFace(FaceBox(2.25, 2, 31, 40), -1.5, 3, is_usable=False),
    ]
    assert made == []
    assert locator(frame) is None
    assert (made, located) == ([1], [1])


def test_a_rewound_locator_returns_the_same_faces():
    found = iter([LocatedFace(FaceBox(1, 2, 30, 40)), None, LocatedFace(FaceBox(3, 2, 31, 40), 0.5, 1)])
    frames = [np.zeros((4, 4, 3), np.uint8)] * 3
    locator = CachingFaceLocator(lambda: lambda frame: next(found), None)
    first = [locator(frame) for frame in locator.count_frames(frames)]
    locator.rewind()
    assert [locator(frame) for frame in locator.count_frames(frames[:2])] == first[:2]
    track = locator.recorded_track()
    assert (len(track.boxes), track.n_frames, track.is_whole) == (3, 3, True)
    cached = CachingFaceLocator(lambda: lambda frame: None, track)
    for _ in range(2):
        assert [cached(frame) for frame in frames] == first
        cached.rewind()


def test_the_least_recently_used_are_evicted_first(tmp_path: Path):
    size = len(encode_track(TRACK, "a"))
    cache = BoxCache(tmp_path, max_bytes=2 * size)
    for i, key in enumerate(("a", "b")):
        cache.store(key, TRACK)
        os.utime(cache._path_of(key), (i, i))
    assert cache.find("a") is not None  # used again
    cache.store("c", TRACK)
    assert [key for key in "abc" if cache.find(key)] == ["a", "c"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * size
    BoxCache(tmp_path, max_bytes=size - 1).store("d", TRACK)
    assert cache.find("d") is None


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logged: list[str] = []
    monkeypatch.setattr(box_cache.logger, "warning", lambda form, *parts: logged.append(form % parts))
    (tmp_path / "file").write_bytes(b"")
    cache = BoxCache(tmp_path / "file" / "tracks")
    cache.store("a", TRACK)
    assert cache.find("a") is None
    assert "could not be stored" in logged[0]


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path):
    path = tmp_path / "face.mp4"
    path.write_bytes(b"one")
    found = Fingerprint.of(path, MediaLimits())
    assert found is not None
    assert found.is_unchanged()
    path.write_bytes(b"two, longer")
    assert not found.is_unchanged()
    path.unlink()
    assert not found.is_unchanged()
    assert Fingerprint.of(path, MediaLimits()) is None
    assert Fingerprint.of(tmp_path, MediaLimits()) is None
