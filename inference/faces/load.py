"""Load landmarkers by name."""

from __future__ import annotations

from pathlib import Path

from inference.backends import OpenVinoNetwork
from inference.errors import InvalidRequest
from inference.faces.landmarks import Landmarker, MediaPipeLandmarker
from inference.weights.cache import locate_deployed
from inference.weights.registry import DLIB, FACE_DETECTOR, FACE_MESH, MEDIAPIPE
from inference.weights.resolve import from_set
from inference.weights.sources import WeightSources, as_sources

LANDMARKERS = ("mediapipe", "dlib")
PREDICTOR_PATTERN = "shape_predictor_68_face_landmarks*.dat"
PREDICTOR_FOLDERS = ("", "lip_coordinate_extraction")  # folders of a model directory


def load_landmarker(name: str, sources: WeightSources | Path) -> Landmarker:
    """Load the landmarker of that name. sources: a path alone is the cache folder.

    Raises: InvalidRequest if there is no such landmarker or it is not installed; WeightsNotFound, WrongWeights,
    StorageError.
    """
    if name not in LANDMARKERS:
        raise InvalidRequest(f"landmarks {name!r}: expected one of {', '.join(LANDMARKERS)}")
    return load_dlib(as_sources(sources)) if name == "dlib" else load_mediapipe(as_sources(sources))


def load_mediapipe(sources: WeightSources) -> Landmarker:
    return MediaPipeLandmarker(
        detector=OpenVinoNetwork(locate_deployed(MEDIAPIPE, FACE_DETECTOR, sources), compiled=sources.compiled),
        mesh=OpenVinoNetwork(locate_deployed(MEDIAPIPE, FACE_MESH, sources), compiled=sources.compiled),
    )


def load_dlib(sources: WeightSources) -> Landmarker:
    from inference.faces.dlib_landmarks import DlibLandmarker, import_dlib

    import_dlib()  # before 66 MB are downloaded for it
    # The notice applies to any file of that name: dlib trained both of its files on the same data.
    return DlibLandmarker(find_predictor(sources), DLIB.notice)


def find_predictor(sources: WeightSources) -> Path:
    """Return the predictor of the model directory, unchecked; else the registry's, downloaded if it is missing."""
    if sources.model_dir is not None:
        files = [p for sub in PREDICTOR_FOLDERS for p in sorted((sources.model_dir / sub).glob(PREDICTOR_PATTERN))]
        if files:
            return files[0]
    return from_set(DLIB, sources).path
