from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.faces import Landmarker
from inference.lip_sync.preprocess import FACE_SIZE, stack_faces
from inference.models import Wav2Lip
from training.common.correlation import correlate
from training.common.face_packs import (
    PACKED_SIDE,
)
from training.lip_sync.evaluate import generate_faces, measure_gaps, paste, score_motion
from training.lip_sync.samples import (
    PreparedClip,
    remove_margin,
)
from training.lip_sync.train import (
    WIDTHS,
)


def test_gaps_are_measured_in_the_faces_of_a_pack(prepared: PreparedClip, landmarker: Landmarker):
    found = measure_gaps(list(prepared.faces[:40]), landmarker)
    assert found is not None
    assert correlate(found, prepared.gaps[:40]) > 0.9
    assert measure_gaps([np.full((PACKED_SIDE, PACKED_SIDE, 3), 90, np.uint8)], landmarker) is None


def test_a_video_is_generated_with_one_reference(stabilised: PreparedClip):
    faces, mels = list(stabilised.faces[:3]), np.zeros((3, 80, 16), np.float32)
    network, inputs = Wav2Lip(WIDTHS), []
    network.register_forward_pre_hook(lambda _, tensors: inputs.append(tensors))
    output = generate_faces(network, faces, mels)
    assert (output.shape, output.dtype) == ((3, FACE_SIZE, FACE_SIZE, 3), np.uint8)
    plain = stack_faces([remove_margin(face) for face in faces])
    audio, images = inputs[0]
    assert audio.shape == (3, 1, 80, 16)
    assert np.array_equal(images[:, 3:], plain[:1, 3:].repeat(3, 0))
    assert np.array_equal(images[:, :3], plain[:, :3])


def test_generated_lips_are_compared_with_those_of_the_speech(
    prepared: PreparedClip, landmarker: Landmarker, monkeypatch: pytest.MonkeyPatch
):
    """The generated clip is the original one here, with its own speech and then with other speech.

    In silence the mouth is open as in the four frames in which it is open least, or widest.
    """
    shut, *_, wide = np.array_split(np.argsort(prepared.gaps, kind="stable"), len(prepared.gaps) // 4)
    monkeypatch.setattr("training.lip_sync.evaluate.generate_clip", lambda _, face, speech: list(face.faces))
    monkeypatch.setattr("training.lip_sync.evaluate.generate_silence", lambda _, face: list(face.faces[shut]))
    same = score_motion(Wav2Lip(WIDTHS), [prepared], landmarker)
    assert same is not None
    assert same.correlation > 0.9
    assert 0.6 < same.amplitude < 1.1  # the landmarker underestimates in so small an image
    assert same.rest < 0.3
    monkeypatch.setattr("training.lip_sync.evaluate.generate_silence", lambda _, face: list(face.faces[wide]))
    later = replace(prepared, gaps=np.roll(prepared.gaps, 9))
    other = score_motion(Wav2Lip(WIDTHS), [later], landmarker)
    assert other is not None
    assert other.correlation < 0.6
    assert other.rest > 0.8
    faceless = replace(prepared, faces=np.full_like(prepared.faces, 90))
    assert score_motion(Wav2Lip(WIDTHS), [faceless], landmarker) is None


def test_a_generated_face_is_pasted_where_it_was_cropped(stabilised: PreparedClip):
    face = stabilised.faces[0]
    assert np.array_equal(paste(face, remove_margin(face)), face)
