from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.faces import FaceBox, Landmarker
from inference.lip_sync.preprocess import FACE_SIZE, FaceFrame, cut_face
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.synthesis import synthesise, synthesise_with_formants
from training.common.face_packs import (
    PACKED_SIDE,
    FaceClip,
    crop_clip,
    crop_with_margin,
    load_packs,
    synthesise_audio,
    write_pack,
)
from training.lip_sync.samples import (
    remove_margin,
)


def test_a_face_is_cropped_as_in_lip_sync():
    rng = np.random.default_rng(1)
    frame = np.repeat(np.repeat(rng.integers(0, 255, (36, 45, 3), np.uint8), 8, 0), 8, 1)
    box = FaceBox(100, 60, 100 + FACE_SIZE, 60 + FACE_SIZE)
    points = np.zeros((68, 2), np.float32)
    points[48:] = (148, 120)
    face, lips = crop_with_margin(FaceFrame(frame, box), points)
    assert face.shape == (PACKED_SIDE, PACKED_SIDE, 3)
    assert np.array_equal(remove_margin(face), cut_face(frame, box))
    assert lips.shape == (20, 2)
    assert (lips == (48, 60)).all()


def test_a_frame_without_a_face_is_named(landmarker: Landmarker):
    empty = np.full((96, 128, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="wall: frame 0 shows no face"):
        crop_clip("wall", "none", [empty], np.zeros(16000, np.int16), landmarker)


def test_packs_come_back_as_they_were_written(clip: FaceClip, tmp_path: Path):
    other = replace(clip, name="r0", samples=clip.samples[:1000])
    write_pack([clip, other], tmp_path / "pack.npz")
    first, second = load_packs(tmp_path)
    assert (first.name, second.name) == ("r0", clip.name)
    for found, written in ((first, other), (second, clip)):
        assert found.person == written.person
        assert np.array_equal(found.strip_jpeg, written.strip_jpeg)
        assert np.array_equal(found.lips, written.lips)
        assert np.array_equal(found.samples, written.samples)
    assert second.faces().shape == (75, PACKED_SIDE, PACKED_SIDE, 3)
    with pytest.raises(FileNotFoundError, match=r"no \.npz packs"):
        load_packs(tmp_path / "none")


def test_one_rendered_person_in_four_has_a_formant_voice():
    rendered = SyntheticClip("bin blue", 8, SyntheticClipOptions(width=96, height=96, fps=25, length_s=1.2))
    assert np.array_equal(synthesise_audio(rendered, 8), synthesise_with_formants(rendered.speech, 8))
    assert np.array_equal(synthesise_audio(rendered, 9), synthesise(rendered.speech, 9))
