from __future__ import annotations

import numpy as np

from inference.faces import FaceBox
from inference.lip_sync.compose import batch_frames, generate_patches
from inference.lip_sync.preprocess import FaceFrame
from inference.lip_sync.reference import MAX_REFERENCE_DIFFERENCE, SteadyReference


def faces_of(*levels: float) -> np.ndarray:
    """Return (B, 6, 96, 96): each face of one level, with a mouth of its own."""
    faces = np.zeros((len(levels), 6, 96, 96), np.float32)
    for i, (face, level) in enumerate(zip(faces, levels, strict=True)):
        face[:, :48] = level
        face[3:, 48:] = 0.1 * (i + 1)
    return faces


def test_the_first_face_stays_the_reference_while_it_fits():
    given = faces_of(0.5, 0.5 + MAX_REFERENCE_DIFFERENCE * 0.9, 0.5 - MAX_REFERENCE_DIFFERENCE * 0.9)
    before = given.copy()
    replaced = SteadyReference().replace_references(given)
    assert np.array_equal(given, before)
    assert np.array_equal(replaced[:, :3], given[:, :3])
    for one in replaced:
        assert np.array_equal(one[3:], given[0, 3:])


def test_a_face_that_differs_becomes_the_reference_across_batches():
    reference = SteadyReference()
    first, second = faces_of(0.5, 0.5 + MAX_REFERENCE_DIFFERENCE * 1.1), faces_of(0.5 + MAX_REFERENCE_DIFFERENCE, 0.1)
    assert np.array_equal(reference.replace_references(first)[1, 3:], first[1, 3:])
    replaced = reference.replace_references(second)
    assert np.array_equal(replaced[0, 3:], first[1, 3:])
    assert np.array_equal(replaced[1, 3:], second[1, 3:])


def test_the_replaced_mouth_has_no_effect():
    """Two videos differ in the mouth from the second frame on; it matters only if each frame is its own reference."""
    box = FaceBox(0, 0, 96, 96)
    plain = np.full((96, 96, 3), 90, np.uint8)
    open_mouth = plain.copy()
    open_mouth[60:80, 30:60] = 0
    mels = [np.zeros((80, 16), np.float32)] * 5

    def generate(later: np.ndarray, reference: str) -> list[np.ndarray]:
        face_frames = [FaceFrame(plain, box), *[FaceFrame(later, box)] * 4]
        batches = generate_patches(batch_frames(face_frames, mels, 2), [lambda _, faces: faces[:, 3:]], reference)
        return [patch for batch in batches for patch in batch.patches[0]]

    assert np.array_equal(generate(plain, "steady"), generate(open_mouth, "steady"))
    assert not np.array_equal(generate(plain, "each"), generate(open_mouth, "each"))
