"""Visemes of speech: phonemes in time, the weights of Oculus's 15 visemes, and blendshapes of ARKit."""

from inference.visemes.blendshapes import BLENDSHAPES
from inference.visemes.estimator import VisemeEstimator, VisemeSequence
from inference.visemes.phonemes import OCULUS_VISEMES
from inference.visemes.stream import FPS, LOOK_AHEAD_MS, VisemeFrame, VisemeSegment, VisemeStream, VisemeUpdate

__all__ = [
    "BLENDSHAPES",
    "FPS",
    "LOOK_AHEAD_MS",
    "OCULUS_VISEMES",
    "VisemeEstimator",
    "VisemeFrame",
    "VisemeSegment",
    "VisemeSequence",
    "VisemeStream",
    "VisemeUpdate",
]
