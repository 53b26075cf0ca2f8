from __future__ import annotations

import pytest

from inference.faces import Landmarker
from training.lip_sync.face_packs import FaceClip, crop_rendered_clip
from training.lip_sync.samples import PreparedClip, prepare_clip, prepare_stabilised


@pytest.fixture(scope="session")
def clip(landmarker: Landmarker) -> FaceClip:
    return crop_rendered_clip(3, landmarker)


@pytest.fixture(scope="session")
def prepared(clip: FaceClip) -> PreparedClip:
    return prepare_clip(clip)


@pytest.fixture(scope="session")
def stabilised(clip: FaceClip) -> PreparedClip:
    return prepare_stabilised(clip)
