from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from inference.errors import InvalidRequest
from inference.faces import FaceTracker, Landmarker
from inference.media import open_media
from inference.rendering import RenderedFrame
from inference.speaker import SyntheticClip, SyntheticClipOptions

SENTENCE = "BIN BLUE AT F TWO NOW"
SMALL = SyntheticClipOptions(width=192, height=144)
BRIEF = SyntheticClipOptions(width=360, height=288, length_s=1.0)
LIPS = slice(48, 68)


def shots_of(
    text: str, seed: int = 3, options: SyntheticClipOptions = SMALL, n: int | None = None
) -> list[RenderedFrame]:
    shots = SyntheticClip(text, seed, options).frames()
    return [shot for shot, _ in zip(shots, range(n or 10_000), strict=False)]


def test_a_clip_is_deterministic_and_another_seed_is_another_person():
    first, again = shots_of(SENTENCE, n=5), shots_of(SENTENCE, n=5)
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(first, again, strict=True))
    assert np.abs(first[0].frame.astype(int) - shots_of(SENTENCE, seed=4, n=1)[0].frame).mean() > 5


@pytest.mark.parametrize(("one", "other"), [("B", "P"), ("D", "T")])
def test_homophenes_give_the_same_pixels(one: str, other: str):
    pair = [shots_of(f"BIN BLUE AT {letter} TWO NOW") for letter in (one, other)]
    assert len(pair[0]) == 75
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(*pair, strict=True))


def test_only_the_lower_face_depends_on_the_text():
    """Room, hair, eyes and motion depend on the seed only."""
    pair = [shots_of(text) for text in (SENTENCE, "LAY GREEN WITH O ZERO SOON")]
    top_of_lips = min(float(shot.landmarks[0][31:36, 1].min()) for shots in pair for shot in shots)  # the nostrils
    n_upper = int(top_of_lips) - 12
    assert n_upper > 60
    for a, b in zip(*pair, strict=True):
        assert np.array_equal(a.frame[:n_upper], b.frame[:n_upper])
    assert any(not np.array_equal(a.frame, b.frame) for a, b in zip(*pair, strict=True))


def test_landmarks_open_and_close_with_the_mouth_shape():
    shots = shots_of(SENTENCE)
    gaps = np.array([shot.landmarks[0][66, 1] - shot.landmarks[0][62, 1] for shot in shots])
    asked = np.array([shot.mouth.open for shot in shots])
    assert np.corrcoef(gaps, asked)[0, 1] > 0.95


def test_a_higher_frame_rate_shows_the_same_moments():
    slow = shots_of(SENTENCE, n=4)
    fast = shots_of(SENTENCE, options=replace(SMALL, fps=50.0), n=8)
    assert [shot.at_s for shot in fast[::2]] == [shot.at_s for shot in slow]
    assert [shot.mouth for shot in fast[::2]] == [shot.mouth for shot in slow]
    for a, b in zip(slow, fast[::2], strict=True):
        assert np.array_equal(a.landmarks[0], b.landmarks[0])


def test_a_listener_stays_silent():
    options = SyntheticClipOptions(width=640, height=288, has_listener=True)
    shots = shots_of(SENTENCE, options=options)
    gaps = [[shot.landmarks[i][66, 1] - shot.landmarks[i][62, 1] for shot in shots] for i in (0, 1)]
    assert np.ptp(gaps[0]) > 4
    assert np.ptp(gaps[1]) < 1
    assert shots[0].landmarks[0][:, 0].max() < 320 < shots[0].landmarks[1][:, 0].min()


def test_hidden_frames_show_no_one(landmarker: Landmarker):
    options = SyntheticClipOptions(hidden_s=((0.2, 0.4),), length_s=1.0)
    shots = shots_of("NOW", options=options)
    assert [i for i, shot in enumerate(shots) if not shot.landmarks] == list(range(5, 10))
    assert all(not landmarker.detect(shots[i].frame) for i in range(5, 10))
    assert landmarker.detect(shots[4].frame)


def test_a_variable_rate_keeps_order_and_length():
    film = SyntheticClip(SENTENCE, 3, replace(SMALL, has_variable_rate=True))
    times = np.array([float(t) for t in film.times()])
    steps = np.diff(times)
    assert len(times) == 75
    assert times[0] == 0
    assert steps.min() > 0.01
    assert steps.std() > 0.004


def test_faces_and_lips_are_detected_at_their_landmarks(landmarker: Landmarker):
    errors, gaps, n_frames = [], [], 0
    for seed in range(8):
        shots = shots_of(SENTENCE, seed, SyntheticClipOptions())[::5]
        n_frames += len(shots)
        for face, shot in zip(FaceTracker(landmarker).follow([s.frame for s in shots]), shots, strict=True):
            if face is None:
                continue
            truth = shot.landmarks[0]
            errors.append(np.linalg.norm(face.points[LIPS] - truth[LIPS], axis=1).mean())
            gaps.append([p[66, 1] - p[62, 1] for p in (face.points, truth)])
    assert len(errors) >= 0.99 * n_frames
    assert np.mean(errors) < 3
    assert np.corrcoef(np.array(gaps).T)[0, 1] > 0.85


def test_a_written_clip_has_its_ground_truth_beside_it(tmp_path: Path):
    path = tmp_path / "film.mp4"
    film = SyntheticClip(SENTENCE, 3, replace(SMALL, length_s=3.2))
    truth = json.loads(film.write(path).read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.json", "film.mp4"]
    assert truth["text"] == SENTENCE
    assert [word["word"] for word in truth["words"]] == SENTENCE.split()
    assert len(truth["frames"]) == truth["n_frames"] == 80
    (person,) = truth["frames"][0]["people"]
    assert np.array(person["landmarks"]).shape == (68, 2)
    left, top, right, bottom = person["box"]
    assert 0 <= left < right < 192
    assert 0 <= top < bottom < 144
    with open_media(path) as media:
        frames = [frame for clip in media.read_clips(25) for frame in clip.frames]
    assert len(frames) == 80
    drawn = shots_of(SENTENCE, 3, replace(SMALL, length_s=3.2), n=1)[0].frame
    assert np.abs(frames[0].astype(int) - drawn).mean() < 4
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert float(container.duration / av.time_base) == pytest.approx(3.2, abs=0.08)


def test_a_silent_clip_has_no_audio(tmp_path: Path):
    SyntheticClip("NOW", 3, replace(SMALL, length_s=1.0)).write(tmp_path / "film.mp4", with_audio=False)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 361}, "width 361; an even number from 96 to 3840"),
        ({"height": 20}, "height 20"),
        ({"fps": 1.0}, "fps 1; 5 to 120"),
        ({"fps": float("nan")}, "fps nan"),
        ({"hidden_s": ((2.0, 1.0),)}, "two rising times"),
    ],
)
def test_options_out_of_range_are_rejected(options: dict, words: str):
    with pytest.raises(InvalidRequest, match=words):
        SyntheticClipOptions(**options)


def test_a_negative_seed_is_rejected():
    with pytest.raises(InvalidRequest, match="seed -1"):
        SyntheticClip(SENTENCE, -1)
