from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import dlib
import numpy as np
import pytest
from support.drawn_face import draw_face
from support.hub_server import HubServer, Repository
from support.synthetic_frames import talk

from inference.errors import InvalidRequest, WeightsNotFound, WrongWeights
from inference.faces import FaceBox, FaceRegion, FaceTracker, Landmarker
from inference.faces import load as load_module
from inference.faces.dlib_landmarks import DlibLandmarker, box_of_region, load_predictor, region_of_box
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader
from inference.settings import Settings
from inference.weights.registry import DLIB, WeightFile
from inference.weights.sources import WeightSources


@pytest.fixture(scope="session")
def by_dlib(predictor: Path) -> DlibLandmarker:
    return DlibLandmarker(predictor)


def test_landmarks_match_their_training(by_dlib: DlibLandmarker, landmarker: Landmarker):
    for mouth_open in (0.1, 0.6, 0.9):
        frame = draw_face(centre=(185, 150), face_height=170, mouth_open=mouth_open)
        expected = landmarker.find_landmarks(frame, landmarker.detect(frame)[0].region)
        face = by_dlib.find_landmarks(frame, by_dlib.detect(frame)[0].region)
        assert face is not None
        assert face.points.shape == (68, 2)
        assert face.points.dtype == np.float32
        assert np.linalg.norm(face.points - expected.points, axis=1).mean() < 3
        assert face.box.left == face.points[:, 0].min()
        assert face.box.bottom == face.points[:, 1].max()


def test_a_detection_is_a_square_around_the_face(by_dlib: DlibLandmarker):
    (found,) = by_dlib.detect(draw_face(640, 480, (300, 220), 200))
    assert found.box.left < 300 < found.box.right
    assert found.box.width == pytest.approx(found.box.height, abs=1)
    assert 0.5 < found.score < 1


def test_a_box_survives_its_region(by_dlib: DlibLandmarker):
    box = FaceBox(100, 50, 188, 138)
    assert box_of_region(region_of_box(box)) == box
    rectangle = by_dlib._rectangle(region_of_box(box))  # dlib's edges are inclusive
    assert (rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()) == (100, 50, 187, 137)


def test_a_small_face_is_found_at_twice_the_size(by_dlib: DlibLandmarker):
    frame = draw_face(640, 480, (500, 100), 60)
    (found,) = by_dlib.detect(frame)
    assert found.box.left < 500 < found.box.right
    assert by_dlib.detect(np.tile(frame, (3, 3, 1)), 1) == []  # above full HD it is not searched


def test_a_second_face_is_searched_for_if_wanted(by_dlib: DlibLandmarker):
    frame = draw_face(640, 480, (500, 100), 60, frame=draw_face(640, 480, (200, 240), 200))
    assert len(by_dlib.detect(frame)) == 1
    assert len(by_dlib.detect(frame, 2)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (96, 128)])
def test_no_face_gives_nothing(by_dlib: DlibLandmarker, shape: tuple[int, int]):
    frame = np.full((*shape, 3), 90, np.uint8)
    assert by_dlib.detect(frame) == []
    assert by_dlib.find_landmarks(frame, FaceRegion(-500, -500, 64, 0)) is None
    assert by_dlib.find_landmarks(frame, FaceRegion(shape[1] / 2, shape[0] / 2, 64, 0)) is not None


def test_each_frame_starts_from_its_own_detection(by_dlib: DlibLandmarker):
    """The face moves, and the points found frame after frame are those of each frame alone."""
    frames = [draw_face(centre=(160 + 2 * i, 140 + i), face_height=170, mouth_open=i % 3 / 2) for i in range(15)]
    track = FaceTracker(by_dlib).follow(frames)
    for frame, face in zip(frames, track, strict=True):
        alone = by_dlib.find_landmarks(frame, by_dlib.detect(frame)[0].region)
        assert face is not None
        assert np.array_equal(face.points, alone.points)


def test_a_frame_without_a_face_has_no_landmarks(by_dlib: DlibLandmarker):
    frames = talk(5)
    frames[2] = np.zeros_like(frames[2])
    assert [face is not None for face in FaceTracker(by_dlib).follow(frames)] == [1, 1, 0, 1, 1]


# Where the predictor comes from


def test_the_predictor_of_the_model_directory_is_used_unchecked(predictor: Path, tmp_path: Path):
    sources = WeightSources(tmp_path, model_dir=predictor.parent, hf_offline=True)
    chosen = load_landmarker("dlib", sources)
    assert chosen.name == "dlib"
    assert "commercial" in chosen.notice


def test_the_registrys_predictor_is_downloaded_and_checked(
    predictor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contents, name = predictor.read_bytes(), DLIB.files[0].name
    known = replace(DLIB, files=(WeightFile(name, hashlib.sha256(contents).hexdigest()),))
    monkeypatch.setattr(load_module, "DLIB", known)
    with HubServer({DLIB.hub.repository: Repository(DLIB.hub.revision, {name: contents})}) as hub:
        sources = WeightSources(tmp_path, hf_endpoint=hub.url)
        with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE"):
            load_landmarker("dlib", replace(sources, hf_offline=True))
        assert load_landmarker("dlib", sources).notice == DLIB.notice
    assert load_landmarker("dlib", replace(sources, hf_offline=True))
    (tmp_path / "dlib" / name).write_bytes(contents + b"!")
    with pytest.raises(WrongWeights, match="with SHA-256"):
        load_landmarker("dlib", replace(sources, hf_offline=True))


def test_without_dlib_the_package_is_named_before_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InvalidRequest, match="pip install dlib-bin"):
        load_landmarker("dlib", WeightSources(tmp_path, hf_endpoint="http://127.0.0.1:9"))


def test_a_reader_with_dlib_reports_its_licence(
    predictor: Path, settings: Settings, weights_cache: Path, talking_film: bytes
):
    reader = LipReader(
        device="cpu", landmarks="dlib", settings=settings.model_copy(update={"model_dir": predictor.parent})
    )
    assert reader.warnings[0] == DLIB.notice
    assert "trained with landmarks by mediapipe, not dlib" in reader.warnings[1]
    transcript = reader.read(talking_film)
    assert transcript.num_frames == 75
    assert transcript.frames_without_face == 0
    assert transcript.warnings == reader.warnings


def test_the_deployment_sets_the_landmarks(predictor: Path, settings: Settings, weights_cache: Path):
    deployed = settings.model_copy(update={"model_dir": predictor.parent, "landmarks": "dlib"})
    assert LipReader(device="cpu", settings=deployed).warnings[0] == DLIB.notice
    assert LipReader(device="cpu", settings=deployed, landmarks="mediapipe").warnings == ()


# Files that are no predictor

WRONG = {
    "empty": (b"", "empty"),
    "page": (b"<!DOCTYPE html><html>Sign in</html>", "HTML page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "compressed": (b"BZh91AY&SY" + bytes(50), "unpack it first"),
    "text": (b"BIN BLUE AT F TWO NOW", "not a shape predictor"),
    "one byte": (b"\x01", "not a shape predictor"),
    "head alone": (b"\x01\x01\x81\x88\x81\x01", "damaged or cut-off"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named_for_what_it_is(tmp_path: Path, kind: str):
    contents, words = WRONG[kind]
    (tmp_path / "x.dat").write_bytes(contents)
    with pytest.raises(WrongWeights, match=words):
        load_predictor(tmp_path / "x.dat")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_cut_off_predictor_is_named(predictor: Path, tmp_path: Path, share: float):
    whole = predictor.read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WrongWeights, match="damaged or cut-off"):
        load_predictor(tmp_path / "cut.dat")


def test_a_predictor_of_other_points_is_refused(landmarker: Landmarker, tmp_path: Path):
    predictor = dlib.shape_predictor_training_options()
    predictor.cascade_depth, predictor.num_trees_per_cascade_level, predictor.oversampling_amount = 1, 1, 1
    grey, box = np.zeros((100, 100), np.uint8), dlib.rectangle(10, 10, 90, 90)
    label = dlib.full_object_detection(box, [dlib.point(10 * i, 10 * i) for i in range(5)])
    dlib.train_shape_predictor([grey, grey], [[label], [label]], predictor).save(str(tmp_path / "five.dat"))
    with pytest.raises(WrongWeights, match="predicts 5 points; expected 68"):
        load_predictor(tmp_path / "five.dat")


def test_a_missing_or_huge_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WeightsNotFound, match="no such file"):
        load_predictor(tmp_path / "x.dat")
    (tmp_path / "x.dat").write_bytes(bytes(100))
    monkeypatch.setattr("inference.faces.dlib_landmarks.MAX_PREDICTOR_BYTES", 99)
    with pytest.raises(WrongWeights, match="at most 99"):
        load_predictor(tmp_path / "x.dat")
