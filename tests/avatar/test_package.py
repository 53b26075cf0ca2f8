from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.avatar_source import HEIGHT, WIDTH
from support.coloured_video import make_patches
from support.golden_weights import seeded_state
from support.shots import film_person

from inference.avatar import AvatarPackage, find_named, list_avatars
from inference.avatar.build import AvatarSource, SourceVideo, build_package, choose_idle, track_landmarks
from inference.avatar.compose import cut_crop
from inference.avatar.manifest import (
    BACKGROUND,
    CROPS,
    ENCODER,
    MANIFEST,
    NETWORK,
    describe_files,
    read_manifest,
    write_manifest,
)
from inference.errors import (
    AvatarNotFound,
    BadPackage,
    InvalidRequest,
    MediaNotFound,
    NoFaceFound,
    WeightsNotFound,
    WrongWeights,
)
from inference.faces import Landmarker
from inference.media import open_media
from inference.media.encode import write_video
from inference.media.media_warnings import TONE_MAPPED_PQ
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.settings import Settings
from inference.weights.checkpoint import write_safetensors


@pytest.fixture
def copy(package_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package_folder, tmp_path / "copy"))


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest and update its hashes."""
    said = json.loads((folder / MANIFEST).read_text()) | changes
    if "files" not in changes:
        said["files"] = {name: info.model_dump() for name, info in describe_files(folder).items()}
    (folder / MANIFEST).write_text(json.dumps(said))


def test_it_contains_the_source_video(package: AvatarPackage, source: AvatarSource):
    assert (package.name, package.n_frames, package.fps) == ("drawn", 75, 25.0)
    assert (package.width, package.height, package.mode) == (WIDTH, HEIGHT, "ave")
    with open_media(source.video) as media:
        filmed = [frame for clip in media.read_clips(25) for frame in clip.frames]
    for i in (0, 40, 74):
        assert np.abs(package.background(i).astype(int) - filmed[i]).mean() < 2
        np.testing.assert_array_equal(package.crop(i), cut_crop(filmed[i], package.box(i)))
        assert not package.crop(i).flags.writeable
        assert package.region(i).shape == (package.box(i).height, package.box(i).width, 3)


def test_a_manifest_states_only_an_unusual_look_ahead(package_folder: Path, tmp_path: Path):
    """Earlier versions forbid unknown keys, and read packages of the usual look-ahead."""
    assert "look_ahead_windows" not in json.loads((package_folder / MANIFEST).read_text())
    manifest = read_manifest(package_folder)
    assert manifest.look_ahead_windows == 6
    write_manifest(tmp_path, manifest.model_copy(update={"look_ahead_windows": 1}))
    assert read_manifest(tmp_path).look_ahead_windows == 1


def test_its_crops_are_memory_mapped(package: AvatarPackage):
    """The crops of 523 frames are 161 MiB, and would otherwise be in memory."""
    crop = package.crop(3)
    while isinstance(crop, np.ndarray):
        crop = crop.base
    assert isinstance(crop, (mmap.mmap, memoryview))
    before = package.crop(3).copy()
    package.render(3, np.zeros(package.audio_shape))  # releases its pages
    np.testing.assert_array_equal(package.crop(3), before)
    assert len(package._parts.reader._cache) <= 2


def test_no_temporary_files_remain(package_folder: Path):
    names = {path.name for path in package_folder.iterdir()}
    assert names == {MANIFEST, CROPS, BACKGROUND, NETWORK, ENCODER}
    assert [path.name for path in package_folder.parent.iterdir()] == [package_folder.name]


def test_the_mouth_at_rest_is_found(package: AvatarPackage):
    """The drawn speaker is silent for 0.8 s before the first word, and behind the last."""
    idle = package.idle
    assert idle.is_shut
    assert idle.last - idle.first + 1 >= 10
    assert idle.last < 22 or idle.first > 58


def test_idle_stretches_by_hand():
    assert choose_idle([0.1] * 5 + [0.01] * 12 + [0.1] * 5 + [0.01] * 11).model_dump() == {
        "first": 5,
        "last": 16,
        "is_shut": True,
    }
    assert choose_idle([0.01] * 300).last == 99  # 4 s
    assert not choose_idle([0.01] * 9 + [0.1] + [0.01] * 9).is_shut  # too short
    assert not choose_idle([0.005, 0.025] * 50).is_shut  # small, but moving
    assert choose_idle([0.1] * 300).model_dump() == {"first": 0, "last": 99, "is_shut": False}
    assert choose_idle([0.1]).model_dump() == {"first": 0, "last": 0, "is_shut": False}


def test_an_open_mouth_is_closed_by_the_network(copy: Path):
    rewrite(copy, idle={"first": 30, "last": 40, "is_shut": False})
    package = AvatarPackage.load(copy, "cpu", "f32")
    silent = package.render(33, np.tile(package.encode_silence(), (16, 1)))
    np.testing.assert_array_equal(package.silent_patch(33), silent)
    assert package.silent_patch(33) is package.silent_patch(33)  # generated once
    assert not np.array_equal(silent, package.region(33))
    for i in range(75):
        package.silent_patch(i)
    for _ in range(2):
        package._silent_patches.clear()
    package.close()


def test_features_may_have_any_shape_of_the_right_size(package: AvatarPackage):
    n_numbers = int(np.prod(package.audio_shape))
    heard = np.random.default_rng(0).random(n_numbers, np.float32)
    patch = package.render(7, heard)
    for shape in ((16, -1), package.audio_shape):
        np.testing.assert_array_equal(package.render(7, heard.reshape(shape)), patch)
    assert package.generate(7, heard).shape == (320, 320, 3)
    with pytest.raises(InvalidRequest, match=f"3 audio feature values; drawn takes {n_numbers}, as 2 x 16 x 16"):
        package.render(7, [1, 2, 3])
    with pytest.raises(InvalidRequest, match="contains no packaged audio features"):
        package.features_at(7)
    with pytest.raises(IndexError):
        package.render(75, heard)


def test_packaged_features_are_read_back(source: AvatarSource, landmarker: Landmarker, tmp_path: Path):
    from dataclasses import replace

    rows = np.random.default_rng(1).random((70, 32), np.float32)
    build_package(replace(source, features=rows, encoder=None), tmp_path / "mute", landmarker)
    package = AvatarPackage.load(tmp_path / "mute", "cpu", "f32")
    np.testing.assert_array_equal(package.packaged_features, rows)
    np.testing.assert_array_equal(package.features_at(40), rows[32:48])
    with pytest.raises(WeightsNotFound, match=r"contains no audio encoder.*audio_visual_encoder\.pth"):
        package.session()
    package.close()


def test_the_audio_encoder_of_a_deployment_is_found(copy: Path, tmp_path: Path, source: AvatarSource):
    (copy / ENCODER).unlink()
    rewrite(copy)
    (tmp_path / "model").mkdir()
    shutil.copy(source.encoder, tmp_path / "model" / "audio_visual_encoder.pth")
    settings = Settings.from_env({"SM_MODEL_DIR": str(tmp_path / "model"), "VISEME_DATA_DIR": str(tmp_path)})
    package = AvatarPackage.load(copy, "cpu", "f32", settings)
    assert package.accepts_audio
    package.close()


def test_an_audio_encoder_of_another_size_is_rejected(copy: Path):
    audio_encoder = AudioVisualEncoder((4, 6, 8, 10, 48))
    write_safetensors(dict(seeded_state(audio_encoder)), copy / ENCODER, {})
    rewrite(copy)
    with pytest.raises(BadPackage, match="returns 48 features, so 768 in 16 rows; the network takes 512"):
        AvatarPackage.load(copy, "cpu", "f32")


def test_avatars_are_found_by_name(package_folder: Path, tmp_path: Path, settings: Settings):
    settings = settings.model_copy(update={"avatars": package_folder.parent})
    assert list_avatars(settings)["drawn"] == package_folder
    package = AvatarPackage.load("drawn", "cpu", "f32", settings)
    assert package.name == "drawn"
    package.close()
    with pytest.raises(AvatarNotFound, match=r"known: .*drawn"):
        AvatarPackage.load("nobody", "cpu", "f32", settings)
    with pytest.raises(AvatarNotFound, match=r"no manifest\.json in it"):
        AvatarPackage.load(tmp_path, "cpu", "f32", settings)


def cut_crops(folder: Path) -> None:
    with (folder / CROPS).open("r+b") as file:
        file.truncate((folder / CROPS).stat().st_size - 1)


def change_a_byte(folder: Path) -> None:
    with (folder / NETWORK).open("r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))


def other_crops(folder: Path) -> None:
    np.save(folder / CROPS, np.zeros((75, 320, 320, 3), np.uint8))
    rewrite(folder)


def pickled_crops(folder: Path) -> None:
    np.save(folder / CROPS, np.array([{}], object), allow_pickle=True)
    rewrite(folder)


def shorter_film(folder: Path) -> None:
    with write_video(folder / BACKGROUND, 25, is_seekable=True) as writer:
        for _ in range(5):
            writer.add(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    rewrite(folder)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / NETWORK).unlink(), "network.safetensors is missing"),
        (cut_crops, "bytes; expected"),
        (change_a_byte, "has SHA-256"),
        (other_crops, r"uint8 of \(75, 320, 320, 3\); expected uint8 of \(75, 328, 328, 3\)"),
        (pickled_crops, "not a NumPy array"),
        (shorter_film, "5 frames of 320x240; expected 75 of 320x240"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json"),
        (lambda folder: rewrite(folder, frames=74), "75 boxes for 74 frames"),
        (lambda folder: rewrite(folder, boxes=[[0, 0, 321, 10]] * 75), "is outside frames of 320x240"),
        (lambda folder: rewrite(folder, idle={"first": 0, "last": 75, "is_shut": True}), "idle frames 0 to 75 of 75"),
        (lambda folder: rewrite(folder, files={}), "crops328.npy, background.mp4, network.safetensors missing"),
        (lambda folder: rewrite(folder, version=2), "version"),
        (lambda folder: rewrite(folder, name="../x"), "name"),
        (lambda folder: rewrite(folder, more=1), "more"),
        (lambda folder: rewrite(folder, frames="75"), "frames"),
    ],
)
def test_an_invalid_package_is_rejected(copy: Path, break_it: Callable[[Path], None], words: str):
    break_it(copy)
    with pytest.raises(BadPackage, match=words):
        AvatarPackage.load(copy, "cpu", "f32")


def test_weights_of_another_network_are_rejected(copy: Path):
    write_safetensors({"conv.weight": torch.zeros(2)}, copy / NETWORK, {})
    rewrite(copy)
    with pytest.raises(WrongWeights, match="another model; expected AvatarUNet"):
        AvatarPackage.load(copy, "cpu", "f32")


@pytest.mark.parametrize("change", ["missing", "nan", "wide"])
def test_invalid_weights_are_rejected(source: AvatarSource, tmp_path: Path, landmarker: Landmarker, change: str):
    from dataclasses import replace

    state = dict(seeded_state(AvatarUNet("ave", (4, 6, 8, 10, 12), 2)))
    if change == "missing":
        del state["outc.conv.bias"]
    elif change == "nan":
        state["outc.conv.bias"] = torch.full((3,), float("nan"))
    else:
        state["outc.conv.weight"] = torch.zeros(3, 9000, 1, 1)
    torch.save(state, tmp_path / "unet.pth")
    words = {"missing": "missing outc.conv.bias", "nan": "not finite", "wide": "at most 4096 wide"}
    with pytest.raises(WrongWeights, match=words[change]):
        build_package(replace(source, checkpoint=tmp_path / "unet.pth"), tmp_path / "out", landmarker)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["plain", "state_dict", "module", "model_state_dict"])
def test_checkpoints_of_every_form_are_read(tmp_path: Path, form: str):
    from inference.avatar.network import read_encoder, read_unet

    state = dict(seeded_state(AvatarUNet("ave", (4, 6, 8, 10, 12), 2)))
    audio_encoder = dict(seeded_state(AudioVisualEncoder((4, 6, 8, 10, 32))))
    if form == "module":
        state = {f"module.{key}": value for key, value in state.items()}
        audio_encoder = {f"module.{key.removeprefix('audio_encoder.')}": value for key, value in audio_encoder.items()}
    torch.save(state if form == "plain" else {form: state, "epoch": 1}, tmp_path / "unet.pth")
    torch.save(audio_encoder if form == "plain" else {form: audio_encoder}, tmp_path / "ear.pth")
    if form == "module":
        torch.save(state, tmp_path / "unet.pth")
        torch.save(audio_encoder, tmp_path / "ear.pth")
    assert read_unet(tmp_path / "unet.pth").sizes.widths == (4, 6, 8, 10, 12)
    assert read_encoder(tmp_path / "ear.pth").sizes == (4, 6, 8, 10, 32)


def test_a_video_with_cuts_has_a_face_in_every_frame(landmarker: Landmarker):
    """Punched in, and elsewhere; every frame shows a face, each is found in its own place."""
    shots = [film_person(3, 6), film_person(3, 6, zoom=2.2, left=-90, top=-60), film_person(3, 6, left=280, top=70)]
    points = track_landmarks([frame for shot in shots for frame in shot], landmarker, "film.mp4")
    alone = [one for shot in shots for one in track_landmarks(shot, landmarker, "film.mp4")]
    for one, expected in zip(points, alone, strict=True):
        assert np.linalg.norm(one - expected, axis=1).mean() < 0.03 * np.ptp(expected[:, 0])


def test_faces_in_profile_are_not_called_none(landmarker: Landmarker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(landmarker), "find_landmarks", lambda self, frame, region: None)
    words = r"film\.mp4: 3 of 3 frames show no face, or one in profile or unclear \(3\); at most 20% expected"
    with pytest.raises(NoFaceFound, match=words):
        track_landmarks(film_person(3, 3), landmarker, "film.mp4")


def test_a_video_without_a_face_is_rejected(source: AvatarSource, tmp_path: Path, landmarker: Landmarker):
    from dataclasses import replace

    with write_video(tmp_path / "empty.mp4", 25) as writer:
        for _ in range(5):
            writer.add(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    with pytest.raises(NoFaceFound, match=r"empty\.mp4: 5 of 5 frames show no face; at most 20% expected"):
        build_package(replace(source, video=tmp_path / "empty.mp4"), tmp_path / "out", landmarker)
    with pytest.raises(MediaNotFound):
        build_package(replace(source, video=tmp_path / "none.mp4"), tmp_path / "out", landmarker)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.mp4"]


def test_a_source_in_hdr_is_reported(tmp_path: Path):
    (tmp_path / "hdr.mp4").write_bytes(make_patches(9, transfer=16, primaries=9))
    video = SourceVideo(tmp_path / "hdr.mp4", None, open_media)
    assert len(list(video.frames())) == 3
    assert video.warnings == (TONE_MAPPED_PQ,)


def test_boxes_come_from_upstreams_landmarks(source: AvatarSource, tmp_path: Path, landmarker: Landmarker):
    from dataclasses import replace

    (tmp_path / "lms").mkdir()
    for i in range(75):
        points = np.full((110, 2), 100)
        points[1, 0], points[31, 0], points[52, 1] = 90 + i % 3, 200, 80
        (tmp_path / "lms" / f"{i}.lms").write_text("".join(f"{x} {y}\n" for x, y in points))
    manifest = build_package(replace(source, lms=tmp_path / "lms"), tmp_path / "out", landmarker)
    assert manifest.boxes[:3] == [(90, 80, 200, 190), (91, 80, 200, 189), (92, 80, 200, 188)]
    assert manifest.landmarks == "lms110"
    (tmp_path / "lms" / "74.lms").unlink()
    with pytest.raises(BadPackage, match=r"landmarks of 74 frames; film\.mp4 has 75"):
        build_package(replace(source, lms=tmp_path / "lms"), tmp_path / "out2", landmarker)


def test_the_starter_is_generated_only_for_its_name(package_folder: Path, tmp_path: Path):
    settings = Settings.from_env({"VISEME_DATA_DIR": str(tmp_path), "VISEME_AVATARS": str(package_folder.parent)})
    assert find_named("drawn", settings) == package_folder
    with pytest.raises(AvatarNotFound, match="'nobody': no such name; known: drawn, starter"):
        find_named("nobody", settings)
    assert not list(tmp_path.iterdir())
