from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.avatar_source import SEED, SENTENCE

from inference.avatar import AvatarPackage
from inference.avatar.build import AvatarSource
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import synthesise


@pytest.fixture(scope="session")
def source(avatar_source: AvatarSource) -> AvatarSource:
    return avatar_source


@pytest.fixture(scope="session")
def package_folder(avatar_folder: Path) -> Path:
    return avatar_folder


@pytest.fixture(scope="session")
def package(avatar_package: AvatarPackage) -> AvatarPackage:
    return avatar_package


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Two seconds of the synthetic speaker, starting with speech: (32000,) int16 at 16 kHz."""
    spoken = synthesise(SynthesisedSpeech(SENTENCE, SEED, None), SEED)
    return (spoken[14000:46000] * 32767).astype(np.int16)
