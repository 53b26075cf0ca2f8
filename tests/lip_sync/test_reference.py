from __future__ import annotations

import numpy as np

from inference.faces import FaceBox
from inference.lip_sync.compose import in_batches, speak
from inference.lip_sync.preprocess import Shot
from inference.lip_sync.reference import FAR, SteadyReference


def faces_of(*levels: float) -> np.ndarray:
    """(B, 6, 96, 96): each with a mouth of its own, and of one level above it."""
    faces = np.zeros((len(levels), 6, 96, 96), np.float32)
    for i, (face, level) in enumerate(zip(faces, levels, strict=True)):
        face[:, :48] = level
        face[3:, 48:] = 0.1 * (i + 1)
    return faces


def test_the_first_face_is_shown_for_as_long_as_it_fits():
    given = faces_of(0.5, 0.5 + FAR * 0.9, 0.5 - FAR * 0.9)
    before = given.copy()
    shown = SteadyReference().show(given)
    assert np.array_equal(given, before)
    assert np.array_equal(shown[:, :3], given[:, :3])
    for one in shown:
        assert np.array_equal(one[3:], given[0, 3:])


def test_a_face_that_differs_takes_its_place_in_the_next_batch_too():
    reference = SteadyReference()
    first, second = faces_of(0.5, 0.5 + FAR * 1.1), faces_of(0.5 + FAR, 0.1)
    assert np.array_equal(reference.show(first)[1, 3:], first[1, 3:])
    shown = reference.show(second)
    assert np.array_equal(shown[0, 3:], first[1, 3:])
    assert np.array_equal(shown[1, 3:], second[1, 3:])


def test_the_mouth_that_is_replaced_changes_nothing():
    """Of two films that differ in the mouth from the second frame on; where each frame is shown, it does."""
    box = FaceBox(0, 0, 96, 96)
    plain = np.full((96, 96, 3), 90, np.uint8)
    open_mouth = plain.copy()
    open_mouth[60:80, 30:60] = 0
    mels = [np.zeros((80, 16), np.float32)] * 5

    def film(later: np.ndarray, reference: str) -> list[np.ndarray]:
        shots = [Shot(plain, box), *[Shot(later, box)] * 4]
        batches = speak(in_batches(shots, mels, 2), [lambda _, faces: faces[:, 3:]], reference)
        return [patch for batch in batches for patch in batch.patches[0]]

    assert np.array_equal(film(plain, "steady"), film(open_mouth, "steady"))
    assert not np.array_equal(film(plain, "each"), film(open_mouth, "each"))
