"""Faces: detection, landmarks, tracking, and mouth crops."""

from inference.faces.box import Detection, Face, FaceBox, FaceRegion
from inference.faces.landmarks import Landmarker, MediaPipeLandmarker
from inference.faces.track import FaceChoice, FaceTrack, FaceTracker

__all__ = [
    "Detection",
    "Face",
    "FaceBox",
    "FaceChoice",
    "FaceRegion",
    "FaceTrack",
    "FaceTracker",
    "Landmarker",
    "MediaPipeLandmarker",
]
