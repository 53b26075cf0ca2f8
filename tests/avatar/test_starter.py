from __future__ import annotations

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.avatar_quality import AvatarEvaluator
from bench.lips import correlate_at_lag
from inference.avatar import AvatarPackage, list_avatars
from inference.avatar.catalogue import is_starter
from inference.avatar.manifest import CROPS, MANIFEST, MATTES, read_manifest
from inference.avatar.starter import LOOK_AHEAD_WINDOWS, cache_key, starter_folder
from inference.errors import BadPackage, StorageError
from inference.faces import Landmarker
from inference.rendering.portrait import STARTER_FRAMES
from inference.settings import Settings
from inference.speaker.speech import SynthesisedSpeech
from inference.speaker.synthesis import synthesise_with_formants
from inference.weights.registry import STARTER_AVATAR
from training.common.lips import shape_gap

FEW = 3  # frames, if their number does not matter


@pytest.fixture(scope="module")
def starter(settings: Settings) -> AvatarPackage:
    """The starter as every user gets it, generated once on this machine."""
    return AvatarPackage.load("starter", "cpu", "f32", settings)


def make(folder: Path) -> str:
    return str(starter_folder(folder, n_frames=FEW))


def test_the_starter_is_found_by_name(starter: AvatarPackage, settings: Settings):
    assert (starter.name, starter.n_frames, starter.fps) == ("starter", STARTER_FRAMES, 25.0)
    assert starter.accepts_audio
    assert starter.idle.is_shut
    assert is_starter(list_avatars(settings)["starter"], settings)
    sides = {starter.box(i).width for i in range(starter.n_frames)}
    assert 150 < min(sides) <= max(sides) < 300


def test_it_speaks_pushed_audio(starter: AvatarPackage):
    session = starter.session()
    t = np.arange(16_000) / 16_000
    session.push_audio((6000 * np.sin(2 * np.pi * 200 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.int16))
    frames = list(session.frames())
    assert len(frames) > 10
    whole = starter.compose_frame(frames[5])
    assert whole.shape == (starter.height, starter.width, 3)
    apart = np.abs(frames[5].patch.astype(int) - starter.region(frames[5].background))
    assert apart[:2].max() <= 12  # its edge matches the frame
    assert apart.mean() < 25  # and it shows this face


def test_its_mouth_follows_speech_and_rests_in_silence(starter: AvatarPackage, landmarker: Landmarker):
    speech = SynthesisedSpeech("BIN BLUE AT F TWO NOW", 3)
    truth = shape_gap(np.stack([mouth.row() for mouth in speech.mouth_shapes(np.arange(75) / 25)])).astype(float)
    evaluator = AvatarEvaluator(starter, landmarker)
    opening = evaluator.generate_openings((synthesise_with_formants(speech, 3) * 32767).astype(np.int16))
    assert correlate_at_lag(opening, truth) > 0.6
    assert correlate_at_lag(opening[::-1], truth) < 0.6
    rest = evaluator.measure_openings([starter.background(i) for i in range(0, 75, 15)]).mean()
    assert opening.max() > 3 * rest
    silence = evaluator.generate_openings(np.zeros(8_000, np.int16))
    assert silence.max() < rest + 0.1 * (opening.max() - rest)


def test_its_card_describes_these_files():
    card = STARTER_AVATAR.read_card()
    assert card["files"] == {file.name: {"sha256": file.sha256, "bytes": file.n_bytes} for file in STARTER_AVATAR.files}
    assert card["training"]["look_ahead_windows"] == LOOK_AHEAD_WINDOWS
    assert card["results"]["drawn"]["correlation"] > 0.5
    assert card["results"]["filmed"]["correlation"] > 0.5


def test_it_is_generated_once_and_complete(tmp_path: Path):
    folder = starter_folder(tmp_path, n_frames=FEW)
    at = (folder / MANIFEST).stat().st_mtime_ns
    assert starter_folder(tmp_path, n_frames=FEW) == folder
    assert (folder / MANIFEST).stat().st_mtime_ns == at
    manifest = read_manifest(folder)
    assert manifest.frames == FEW
    assert manifest.made_from == {file.name: file.sha256 for file in STARTER_AVATAR.files}
    assert MATTES in manifest.files
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


def test_several_processes_generate_one(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:  # unlike Pool, it fails if a process cannot start
        folders = set(pool.map(make, [tmp_path] * 2))
    (folder,) = map(Path, folders)
    assert read_manifest(folder).frames == FEW
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


def test_other_weights_give_another_package(tmp_path: Path):
    changed = replace(
        STARTER_AVATAR, files=(replace(STARTER_AVATAR.files[0], sha256="0" * 64), STARTER_AVATAR.files[1])
    )
    assert cache_key(changed, FEW) != cache_key(STARTER_AVATAR, FEW)


def test_another_renderer_makes_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.avatar.starter.RENDERER", tmp_path)
    keys = set()
    for name, contents in (("head.py", "1"), ("head.py", "2"), ("head.npz", "2"), ("head.pyc", "2")):
        (tmp_path / name).write_text(contents)
        cache_key.cache_clear()
        keys.add(cache_key(STARTER_AVATAR, FEW))
    cache_key.cache_clear()
    assert len(keys) == 3  # compiled Python changes nothing


def test_a_damaged_one_is_generated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = starter_folder(tmp_path, n_frames=FEW)
    monkeypatch.setattr(starter_folder, "__defaults__", (STARTER_AVATAR, FEW))
    with (few / CROPS).open("r+b") as file:
        file.truncate(1000)
    settings = Settings.from_env({"VISEME_DATA_DIR": str(tmp_path)})
    package = AvatarPackage.load("starter", "cpu", "f32", settings)
    assert package.n_frames == FEW
    assert (few / CROPS).stat().st_size > 1000
    package.close()


def test_a_damaged_user_package_is_left_alone(tmp_path: Path):
    few = starter_folder(tmp_path, n_frames=FEW)
    mine = Path(shutil.copytree(few, tmp_path / "mine"))
    (mine / CROPS).unlink()
    with pytest.raises(BadPackage, match=r"crops328\.npy is missing"):
        AvatarPackage.load(mine, "cpu", "f32", Settings.from_env({"VISEME_DATA_DIR": str(tmp_path)}))
    assert mine.is_dir()


def test_an_unusable_data_directory_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "avatars").write_text("in the way")
    with pytest.raises(StorageError, match="the avatar cannot be generated there"):
        starter_folder(tmp_path, n_frames=FEW)
    assert list_avatars(Settings.from_env({"VISEME_DATA_DIR": str(tmp_path)})) == {}
    assert "the avatar starter cannot be generated" in caplog.text


def test_a_user_avatar_may_have_its_name(tmp_path: Path):
    few = starter_folder(tmp_path, n_frames=FEW)
    shutil.copytree(few, tmp_path / "theirs" / "starter")
    settings = Settings.from_env({"VISEME_DATA_DIR": str(tmp_path), "VISEME_AVATARS": str(tmp_path / "theirs")})
    assert list_avatars(settings) == {"starter": tmp_path / "theirs" / "starter"}
    manifest = json.loads((tmp_path / "theirs" / "starter" / MANIFEST).read_text())
    assert manifest["name"] == "starter"
