from __future__ import annotations

import numpy as np
import pytest

from inference.visemes.blendshapes import BLENDSHAPES, MouthEstimate, blendshapes_of
from inference.visemes.network import load_network
from inference.visemes.phonemes import OCULUS_VISEMES, PHONEME_VISEMES, Weights, mixing_matrix
from training.common.mouth_examples import PHONEME_CLASSES


def weights_of(**shares: float) -> Weights:
    return np.array([shares.get(name, 0) for name in OCULUS_VISEMES], np.float32)


def values(mouth: MouthEstimate, **shares: float) -> dict[str, float]:
    found = blendshapes_of(mouth, weights_of(**shares))
    assert found.dtype == np.float32
    return dict(zip(BLENDSHAPES, found.tolist(), strict=True))


def test_an_open_mouth_opens_the_jaw_and_moves_the_lips():
    found = values(MouthEstimate(opening=1, width=0, contact=0), aa=1)
    expected = {"jawOpen": 0.6, "mouthLowerDownLeft": 0.5, "mouthLowerDownRight": 0.5}
    expected |= {"mouthUpperUpLeft": 0.25, "mouthUpperUpRight": 0.25}
    assert {name: value for name, value in found.items() if value} == pytest.approx(expected)


def test_lips_that_touch_are_pressed_and_shut():
    found = values(MouthEstimate(opening=-0.25, width=0, contact=0.9), PP=1)
    assert {name: value for name, value in found.items() if value} == pytest.approx(
        {"mouthPressLeft": 0.9, "mouthPressRight": 0.9}
    )


def test_rounded_lips_are_a_pucker_if_shut_and_a_funnel_if_open():
    found = values(MouthEstimate(opening=0.5, width=-1.3, contact=0), ou=0.5)
    assert (found["mouthFunnel"], found["mouthPucker"]) == pytest.approx((0.5, 0.5))


def test_silence_is_the_neutral_face():
    assert not any(values(MouthEstimate(opening=-0.1, width=2, contact=0), sil=1).values())


@pytest.mark.parametrize("mouth", [MouthEstimate(9, 9, 1), MouthEstimate(-9, -9, 1), MouthEstimate(0.5, -9, 0)])
def test_values_are_between_0_and_1(mouth: MouthEstimate):
    found = values(mouth, ou=1, oh=1, ih=1, SS=1, E=1, FF=1).values()
    assert all(0 <= value <= 1 for value in found)


def test_every_phoneme_that_is_trained_has_visemes_in_oculus_order():
    assert " ".join(OCULUS_VISEMES) == "sil PP FF TH DD kk CH SS nn RR aa E ih oh ou"
    assert set(PHONEME_CLASSES) == set(PHONEME_VISEMES)
    assert load_network().classes == PHONEME_CLASSES
    matrix = mixing_matrix(PHONEME_CLASSES)
    assert matrix.sum(axis=1) == pytest.approx(1)
    assert matrix[PHONEME_CLASSES.index("aI")].tolist() == weights_of(aa=0.5, ih=0.5).tolist()
