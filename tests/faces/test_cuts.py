from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.shots import film_person

from inference.faces.cuts import (
    HISTORY_FRAMES,
    CutDetector,
    FrameChange,
    Thumbnail,
    compare,
    correlate,
    correlate_shifted,
)

SHOT = film_person(3, 20)
BLACK = np.zeros_like(SHOT[0])


def changes(frames: list[np.ndarray]) -> tuple[list[FrameChange], list[int]]:
    """Return the change and the shot of each frame."""
    detector = CutDetector()
    found = [(detector.add(frame), detector.shot) for frame in frames]
    return [change for change, _ in found], [shot for _, shot in found]


def test_a_talking_person_is_one_shot():
    found, shots = changes(SHOT)
    assert set(found) == {FrameChange.NONE}
    assert set(shots) == {0}


@pytest.mark.parametrize(
    "other",
    [film_person(8, 4), film_person(3, 4, zoom=2.2, left=-90, top=-60), film_person(3, 4, left=280, top=70)],
    ids=["another person", "nearer", "elsewhere"],
)
def test_a_cut_begins_a_shot(other: list[np.ndarray]):
    found, shots = changes([*SHOT[:4], *other])
    assert found[4] is not FrameChange.NONE
    assert FrameChange.NONE in found[5:]
    if found[4] is FrameChange.CUT:
        assert shots == [0] * 4 + [1] * 4


def test_a_cut_back_returns_to_its_shot():
    _, shots = changes([*SHOT[:3], *film_person(8, 3), *SHOT[3:6], *film_person(8, 6)[3:]])
    assert shots == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3


@pytest.mark.parametrize("n_flashed", [1, 2, 5])
def test_a_flash_or_a_black_frame_does_not_end_the_shot(n_flashed: int):
    for flash in (np.full_like(BLACK, 255), BLACK):
        _, shots = changes([*SHOT[:4], *[flash] * n_flashed, *SHOT[4:8]])
        assert shots[:4] == [0] * 4
        assert shots[-4:] == [0] * 4
        assert shots[4:-4] == [1] * n_flashed


@pytest.mark.parametrize("brighten", [(1.0, 60), (1.5, 0), (0.3, 0), (0.5, 40)], ids=str)
def test_brightness_and_contrast_are_no_cut(brighten: tuple[float, int]):
    gain, offset = brighten
    other = np.clip(SHOT[1] * gain + offset, 0, 255).astype(np.uint8)
    assert changes([SHOT[0], other])[0][1] is not FrameChange.CUT


def test_a_fade_to_black_is_no_cut_until_nothing_is_left():
    faded = [cv2.convertScaleAbs(frame, alpha=1 - i / 18) for i, frame in enumerate(SHOT[:17])]
    assert FrameChange.CUT not in changes(faded)[0]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_a_fast_pan_is_no_cut(share: float):
    wide = cv2.resize(film_person(3, 1, zoom=1.25, left=0, top=0)[0], (1280, 720))
    step = round(640 * share)
    panned = [wide[100:460, i * step : i * step + 640] for i in range(4)]
    assert FrameChange.CUT not in changes(panned)[0]


def test_a_cross_fade_is_a_drift_and_talking_is_not():
    detector = CutDetector()
    for frame in SHOT[: HISTORY_FRAMES + 2]:
        detector.add(frame)
    assert not detector.has_drifted()
    other = film_person(8, 13)
    for i, frame in enumerate(other):
        detector.add(cv2.addWeighted(frame, i / 12, SHOT[-1], 1 - i / 12, 0))
    assert detector.has_drifted()
    detector.begin_shot()
    assert detector.shot == 1
    assert not detector.has_drifted()


def test_one_colour_is_like_one_colour_only():
    flat, dark, seen = (Thumbnail.of(frame) for frame in (BLACK + 200, BLACK, SHOT[0]))
    assert compare(flat, dark) is FrameChange.NONE
    assert compare(flat, seen) is FrameChange.CUT
    assert compare(seen, dark) is FrameChange.CUT
    assert correlate(seen, seen) == pytest.approx(1)
    assert correlate_shifted(seen, seen) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(16, 16), (17, 3000), (2160, 16)])
def test_frames_of_any_shape_have_a_thumbnail(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert Thumbnail.of(noise).levels.shape == (32, 32)
