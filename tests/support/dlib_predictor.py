"""A predictor for dlib's landmarks: the published one is 66 MB, and not for everybody."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np

from inference.faces import Landmarker
from inference.faces.dlib_landmarks import to_grey
from support.drawn_face import draw_face

N_TRAINED_ON = 40


def train_predictor(landmarker: Landmarker, path: Path, n_points: int = 68) -> None:
    """Train a small predictor of MediaPipe's points on drawn faces: it takes seconds, and works for such faces only."""
    detector, rng = dlib.get_frontal_face_detector(), np.random.default_rng(0)
    images, labels = [], []
    for _ in range(N_TRAINED_ON):
        centre = tuple(rng.uniform((160, 130), (200, 160)).tolist())
        frame = draw_face(centre=centre, face_height=170, mouth_open=rng.uniform())
        face = landmarker.find_landmarks(frame, landmarker.detect(frame)[0].region)
        grey = to_grey(frame)
        for box in detector(grey):
            points = [dlib.point(round(x), round(y)) for x, y in face.points[:n_points].tolist()]
            images.append(grey)
            labels.append([dlib.full_object_detection(box, points)])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth = 8, 30, 3
    options.feature_pool_size, options.num_test_splits, options.oversampling_amount = 150, 20, 20
    options.nu, options.num_threads = 0.2, 1
    dlib.train_shape_predictor(images, labels, options).save(str(path))
