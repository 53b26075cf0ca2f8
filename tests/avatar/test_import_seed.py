from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.avatar_source import NARROW
from support.golden_weights import seeded_state
from support.synthetic_frames import talk

from inference.avatar import AvatarPackage
from inference.avatar.compose import cut_crop
from inference.avatar.import_seed import import_package
from inference.avatar.manifest import read_manifest
from inference.errors import AvatarNotFound, BadPackage, InvalidRequest, MediaTruncated, WrongWeights
from inference.faces import FaceBox
from inference.media.encode import write_video
from inference.models import AvatarUNet

N_FRAMES = 12
WIDTH, HEIGHT = 1280, 720


def draw() -> list[np.ndarray]:
    """Render the synthetic speaker, enlarged to 1280x720: rendering that many pixels takes long."""
    return [np.repeat(np.repeat(frame, 4, axis=0), 4, axis=1) for frame in talk(N_FRAMES, 320, 180)]


@pytest.fixture(scope="module")
def unet() -> AvatarUNet:
    unet = AvatarUNet("ave", NARROW).eval()  # takes rows of 512, as upstream's does
    unet.load_state_dict(seeded_state(unet, 1.0))
    return unet


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    with write_video(path, 25) as writer:
        for frame in draw():
            writer.add(frame)
    return path


def write_lms(folder: Path, boxes: list[list[int]]) -> None:
    folder.mkdir()
    for i, (left, top, right, _) in enumerate(boxes):
        points = np.full((110, 2), 300)
        points[1, 0], points[31, 0], points[52, 1] = left, right, top
        (folder / f"{i}.lms").write_text("".join(f"{x} {y}\n" for x, y in points))


BOXES_OF_SEED = [[500 + i, 250, 700 + i, 450] for i in range(N_FRAMES)]


@pytest.fixture
def seed(tmp_path: Path, unet: AvatarUNet, film: Path) -> Path:
    """A seed package of the first layout."""
    folder = tmp_path / "seed"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "cache").mkdir()
    shutil.copy(film, folder / "full_body_video.mp4")
    rects = {str(i): {"rect": box, "original_path": ".\\x.jpg"} for i, box in enumerate(BOXES_OF_SEED)}
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(rects))
    write_lms(folder / "landmarks", BOXES_OF_SEED)
    np.save(folder / "aud_ave.npy", np.ones((N_FRAMES - 1, 512), np.float32))
    torch.save(unet.state_dict(), folder / "checkpoint" / "best_trainloss.pth")
    videos = {"full_body_img": {"video_file": "full_body_video.mp4", "frame_count": N_FRAMES, "fps": 25}}
    (folder / "package_info.json").write_text(json.dumps({"package_version": "2.0", "videos": videos}))
    return folder


def add_crops(folder: Path, name: str, boxes: list[list[int]], level: int = 0) -> None:
    with write_video(folder / name, 25) as writer:
        for frame, box in zip(draw(), boxes, strict=True):
            writer.add(np.clip(cut_crop(frame, FaceBox(*box)).astype(int) + level, 0, 255).astype(np.uint8))


def to_onnx(unet: AvatarUNet, **how: object) -> bytes:
    examples = torch.zeros(1, 6, 320, 320), torch.zeros(1, *unet.audio_shape)
    out = io.BytesIO()
    torch.onnx.export(unet, examples, out, input_names=["input", "audio"], opset_version=17, dynamo=False, **how)
    return out.getvalue()


def test_a_complete_package_is_imported(seed: Path, tmp_path: Path, unet: AvatarUNet, film: Path):
    manifest, notes = import_package(seed, tmp_path / "mine")
    assert notes == ["aud_ave.npy has 11 rows for 12 frames: missing rows are zeros"]
    assert (manifest.frames, manifest.width, manifest.height, manifest.mode) == (N_FRAMES, WIDTH, HEIGHT, "ave")
    assert manifest.look_ahead_windows == 6
    package = AvatarPackage.load(tmp_path / "mine", "cpu", "f32")
    assert [package.box(i) for i in range(N_FRAMES)] == [FaceBox(*box) for box in BOXES_OF_SEED]
    assert package.packaged_features.shape == (N_FRAMES - 1, 512)
    assert not package.accepts_audio
    np.testing.assert_array_equal(package.features_at(11)[:, 0], [1] * 8 + [0] * 8)
    patch = package.render(3, package.features_at(3))
    assert patch.shape == (200, 200, 3)
    apart = np.abs(package.crop(3).astype(int) - cut_crop(package.background(3), package.box(3)))
    assert apart.mean() < 3
    package.close()


def test_the_look_ahead_is_that_of_its_weights(seed: Path, tmp_path: Path):
    import_package(seed, tmp_path / "mine", look_ahead=1)
    assert read_manifest(tmp_path / "mine").look_ahead_windows == 1
    with pytest.raises(InvalidRequest, match="look-ahead 7: expected -1 to 6 windows"):
        import_package(seed, tmp_path / "mine2", look_ahead=7)
    assert not (tmp_path / "mine2").exists()


def test_packaged_crops_of_the_same_face_are_used(seed: Path, tmp_path: Path):
    add_crops(seed, "crops_328_video.mp4", BOXES_OF_SEED, level=12)
    _, notes = import_package(seed, tmp_path / "mine")
    assert len(notes) == 1
    crops = np.load(tmp_path / "mine" / "crops328.npy", mmap_mode="r")
    package = AvatarPackage.load(tmp_path / "mine", "cpu", "f32")
    apart = crops[5].astype(int) - cut_crop(package.background(5), package.box(5))
    package.close()
    assert 8 < apart.mean() < 16


def test_packaged_crops_of_something_else_are_not_used(seed: Path, tmp_path: Path):
    add_crops(seed, "crops_328_video.mp4", [[100, 100, 400, 400]] * N_FRAMES)
    _, notes = import_package(seed, tmp_path / "mine")
    (note,) = (note for note in notes if note.startswith("crops_328_video.mp4: frame 0 differs"))
    assert "levels from its box: from there on crops were cut from the video" in note


def test_the_second_layout_is_imported(seed: Path, tmp_path: Path):
    """Its file names differ; and the shapes of its data count, not their description."""
    (seed / "full_body_video.mp4").rename(seed / "full_body_576_face_enhanced.mp4")
    (seed / "cache" / "crop_rectangles.json").rename(seed / "crop_rectangles.json")
    shutil.copy(seed / "full_body_576_face_enhanced.mp4", seed / "crops_328_1280x720.mp4")
    shutil.rmtree(seed / "landmarks")
    np.save(seed / "landmarks_2d.npy", np.zeros((N_FRAMES, 68, 2)))
    np.save(seed / "aud_ave.npy", np.ones((N_FRAMES, 1024), np.float32))
    (seed / "package_info.json").unlink()
    manifest, notes = import_package(seed, tmp_path / "mine")
    assert manifest.frames == N_FRAMES
    assert "features.npy" not in manifest.files
    assert notes == [
        "aud_ave.npy has 1024 numbers per frame, the network takes 512: left out",
        "crops_328_1280x720.mp4: frame 0 is 1280x720, not 328x328: from there on crops were cut from the video",
    ]
    assert not manifest.idle.is_shut  # unknown without landmarks


@pytest.mark.parametrize("how", [{}, {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}])
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_network_is_enough(seed: Path, tmp_path: Path, unet: AvatarUNet, how: dict[str, object]):
    """With batch norms folded in, as exporters do, or not."""
    (seed / "checkpoint" / "best_trainloss.pth").unlink()
    (seed / "checkpoint" / "model_best.onnx").write_bytes(to_onnx(unet, **how))
    import_package(seed, tmp_path / "mine")
    mine, theirs = AvatarPackage.load(tmp_path / "mine", "cpu", "f32"), np.ones((16, 512), np.float32)
    face = torch.from_numpy(mine.crop(2)[4:324, 4:324].copy())
    from inference.models import AvatarGenerator

    with torch.inference_mode():
        expected = AvatarGenerator(unet)(face[None], torch.from_numpy(theirs).reshape(1, 32, 16, 16))[0].numpy()
    apart = np.abs(mine.generate(2, theirs).astype(int) - expected)
    mine.close()
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_all_missing_parts_are_named_at_once(seed: Path, tmp_path: Path):
    (seed / "full_body_video.mp4").unlink()
    (seed / "checkpoint" / "best_trainloss.pth").unlink()
    shutil.rmtree(seed / "landmarks")
    (seed / "cache" / "crop_rectangles.json").unlink()
    with pytest.raises(BadPackage) as err:
        import_package(seed, tmp_path / "mine")
    for name in (
        "full_body_video.mp4",
        "crop_rectangles.json",
        "landmarks/*.lms",
        "best_trainloss.pth",
        "--checkpoint",
    ):
        assert name in str(err.value)
    assert not (tmp_path / "mine").exists()


def shorten(seed: Path) -> None:
    rects = json.loads((seed / "cache" / "crop_rectangles.json").read_text())
    del rects["11"]
    (seed / "cache" / "crop_rectangles.json").write_text(json.dumps(rects))


def lengthen(seed: Path) -> None:
    rects = json.loads((seed / "cache" / "crop_rectangles.json").read_text())
    rects["12"] = rects["11"]
    (seed / "cache" / "crop_rectangles.json").write_text(json.dumps(rects))


def move_out(seed: Path) -> None:
    (seed / "cache" / "crop_rectangles.json").unlink()
    boxes = [*BOXES_OF_SEED[:7], [1200, 10, 1300, 110], *BOXES_OF_SEED[8:]]
    (seed / "crop_rects.json").write_text(json.dumps(boxes))


def skip_one(seed: Path) -> None:
    rects = json.loads((seed / "cache" / "crop_rectangles.json").read_text())
    rects["20"] = rects.pop("4")
    (seed / "cache" / "crop_rectangles.json").write_text(json.dumps(rects))


def write_nonsense(seed: Path) -> None:
    (seed / "cache" / "crop_rectangles.json").write_text('{"0": {"rect": [1, 2]}}')


def cut_json(seed: Path) -> None:
    (seed / "cache" / "crop_rectangles.json").write_text('{"0": {"rect":')


def pickle_features(seed: Path) -> None:
    np.save(seed / "aud_ave.npy", np.array([{"a": 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (shorten, "more frames than there are boxes, 11"),
        (lengthen, "full_body_video.mp4 has 12 frames; there are 13 boxes"),
        (move_out, "box 7, 1200,10,1300,110, is outside its 1280x720 frame"),
        (skip_one, "frames are not numbered 0 to 11"),
        (write_nonsense, "expected"),
        (cut_json, "not JSON"),
        (pickle_features, "not a NumPy array"),
    ],
)
def test_contradictions_are_reported_and_nothing_is_left_behind(
    seed: Path, tmp_path: Path, break_it: Callable[[Path], None], words: str
):
    break_it(seed)
    with pytest.raises(BadPackage, match=words):
        import_package(seed, tmp_path / "out" / "mine")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_resolved_inconsistencies_are_noted(seed: Path, tmp_path: Path):
    shutil.rmtree(seed / "landmarks")
    write_lms(seed / "landmarks", [*BOXES_OF_SEED[:5], [510, 255, 700, 445], *BOXES_OF_SEED[6:]])
    info = json.loads((seed / "package_info.json").read_text())
    info["videos"]["full_body_img"]["frame_count"] = 523
    (seed / "package_info.json").write_text(json.dumps(info))
    manifest, notes = import_package(seed, tmp_path / "mine")
    assert "box 5 is 505,250,705,450, by its landmarks 510,255,700,445: the boxes were used (1 differ)" in notes
    assert "package_info.json declares 523 frames of full_body_img; there are 12" in notes
    assert manifest.boxes[5] == (505, 250, 705, 450)


def test_boxes_may_come_from_landmarks_only(seed: Path, tmp_path: Path):
    (seed / "cache" / "crop_rectangles.json").unlink()
    manifest, _ = import_package(seed, tmp_path / "mine")
    assert [list(box) for box in manifest.boxes] == BOXES_OF_SEED


def test_declared_file_names_cannot_leave_the_package(seed: Path, tmp_path: Path):
    shutil.copy(seed / "full_body_video.mp4", tmp_path / "other.mp4")
    (seed / "full_body_video.mp4").unlink()
    info = {"videos": {"full_body_img": {"video_file": "../other.mp4"}}}
    (seed / "package_info.json").write_text(json.dumps(info))
    with pytest.raises(BadPackage, match="missing: the full-frame video"):
        import_package(seed, tmp_path / "mine")


def test_a_truncated_video_is_reported(seed: Path, tmp_path: Path):
    film = seed / "full_body_video.mp4"
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 4])
    with pytest.raises(MediaTruncated):
        import_package(seed, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_weights_of_another_network_are_rejected(seed: Path, tmp_path: Path):
    torch.save({"conv.weight": torch.zeros(3)}, seed / "checkpoint" / "best_trainloss.pth")
    with pytest.raises(WrongWeights, match="another model; expected AvatarUNet"):
        import_package(seed, tmp_path / "mine")


def test_an_existing_output_is_not_overwritten(seed: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidRequest, match="already exists"):
        import_package(seed, tmp_path / "mine")
    assert (tmp_path / "mine" / "mine.txt").read_text() == "mine"
    with pytest.raises(AvatarNotFound, match="no such folder"):
        import_package(tmp_path / "none", tmp_path / "mine2")


def test_the_real_package_lacks_videos_and_network(shared: Path, tmp_path: Path):
    with pytest.raises(BadPackage) as err:
        import_package(shared / "sanders", tmp_path / "mine")
    assert "missing: the full-frame video (full_body_video.mp4 or full_body_576" in str(err.value)
    assert "the network (checkpoint/best_trainloss.pth or" in str(err.value)
    assert "boxes" not in str(err.value)


def test_the_completed_real_package_is_imported(shared: Path, tmp_path: Path, unet: AvatarUNet, film: Path):
    """Its first frames: real boxes, landmarks and features, with a synthetic video and a network of random weights."""
    folder = tmp_path / "sanders"
    shutil.copytree(shared / "sanders", folder)
    rects = json.loads((folder / "cache" / "crop_rectangles.json").read_text())
    first = {str(i): rects[str(i)] for i in range(N_FRAMES)}
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(first))
    for i in range(N_FRAMES, 523):
        (folder / "landmarks" / f"{i}.lms").unlink()
    np.save(folder / "aud_ave.npy", np.load(folder / "aud_ave.npy")[: N_FRAMES - 1])
    shutil.copy(film, folder / "full_body_video.mp4")
    torch.save(unet.state_dict(), tmp_path / "unet.pth")
    manifest, notes = import_package(folder, tmp_path / "mine", checkpoint=tmp_path / "unet.pth")
    assert [list(box) for box in manifest.boxes] == [rects[str(i)]["rect"] for i in range(N_FRAMES)]
    assert "aud_ave.npy has 11 rows for 12 frames: missing rows are zeros" in notes
    assert "package_info.json declares 523 frames of full_body_img; there are 12" in notes
    assert not any("landmarks" in note for note in notes)
    package = AvatarPackage.load(tmp_path / "mine", "cpu", "f32")
    spoken = package.render(4, package.features_at(4))
    assert spoken.shape == (package.box(4).height, package.box(4).width, 3)
    assert not np.array_equal(spoken, package.render(4, np.zeros((16, 512))))
    package.close()
