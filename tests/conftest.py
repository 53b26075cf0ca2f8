from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_face import talk
from films import film

from inference.faces import Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader
from inference.settings import Settings
from inference.weights.fetch import fetch

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.from_env()


@pytest.fixture(scope="session")
def weights_cache(settings: Settings) -> Path:
    fetch("mediapipe", settings.weights_cache)
    return settings.weights_cache


@pytest.fixture(scope="session")
def landmarker(weights_cache: Path) -> Landmarker:
    return load_landmarker("mediapipe", weights_cache)


@pytest.fixture(scope="session")
def reader(weights_cache: Path) -> LipReader:
    return LipReader(device="cpu")


@pytest.fixture(scope="session")
def talking_film() -> bytes:
    """Three seconds of a drawn face at 25 fps, 360x288, with sound."""
    return film(talk(75), with_tone=True)


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, contents: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(contents)
        return path

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's reference material, where it lies beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the reference material is not beside this checkout")
    return SHARED
