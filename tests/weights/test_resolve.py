from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.backends import Device
from inference.errors import WeightsNotFound, WrongWeights
from inference.lip_reading.model import load_model
from inference.lip_sync.model import find_deployed_checkpoints, load_generators
from inference.models import LipCoordNet
from inference.settings import Settings
from inference.weights.registry import HUB, LIP_READING, LIP_SYNC, STARTER, STARTER_SYNC
from inference.weights.resolve import find_weights
from inference.weights.sources import HUB_ENDPOINT, WeightSources

CPU = Device("cpu", "f32")
STARTER_FILE = STARTER.shipped_in / STARTER.files[0].name


@pytest.fixture
def sources(tmp_path: Path) -> WeightSources:
    (tmp_path / "model").mkdir()
    return WeightSources(tmp_path / "cache", model_dir=tmp_path / "model", hf_offline=True)


def test_the_default_is_the_starter(sources: WeightSources):
    found = find_weights(None, LIP_READING, sources)
    assert (found.label, found.landmarks, found.path) == ("starter", "mediapipe", STARTER_FILE)


@pytest.mark.parametrize(
    "place", ["model.safetensors", "mine.safetensors", "pretrain/best.pt", "net.pth", "pretrain/model.safetensors"]
)
def test_the_model_directory_takes_precedence(sources: WeightSources, place: str):
    torch.manual_seed(5)
    path = sources.model_dir / place
    path.parent.mkdir(exist_ok=True)
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(LipCoordNet().state_dict(), path)
    (sources.model_dir / "code").mkdir()
    (sources.model_dir / "code" / "inference.py").write_text("")
    model = load_model(None, CPU, replace(sources, hf_model_id="someone/else"))
    assert model.info.weights == path.name
    assert model.landmarks is None
    assert not sources.cache.exists()


def test_model_safetensors_wins_and_other_ambiguities_are_errors(sources: WeightSources):
    for name in ("a.pt", "b.pt"):
        (sources.model_dir / name).write_bytes(b"x")
    with pytest.raises(WeightsNotFound, match=r"contains 2 weight files \(a.pt, b.pt\)"):
        find_weights(None, LIP_READING, sources)
    shutil.copy(STARTER_FILE, sources.model_dir / "model.safetensors")
    assert find_weights(None, LIP_READING, sources).label == "model.safetensors"


def test_known_hashes_are_recognised_under_any_name(sources: WeightSources):
    path = sources.model_dir / "mine.safetensors"
    shutil.copy(STARTER_FILE, path)
    assert find_weights(path, LIP_READING, sources).weight_set is STARTER
    assert load_model(str(path), CPU, sources.cache).landmarks == "mediapipe"


@pytest.mark.parametrize("place", [HUB.files[0].name, Path(HUB.files[0].name).name])
def test_a_published_file_in_the_model_directory_is_checked(sources: WeightSources, place: str):
    path = sources.model_dir / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"other")
    with pytest.raises(WrongWeights, match=f"5 bytes with SHA-256 .* expected {HUB.files[0].sha256}"):
        find_weights("hub", LIP_READING, sources)


def test_a_folder_resolves_to_its_only_weight_file(sources: WeightSources):
    with pytest.raises(WeightsNotFound, match="no weights in this folder"):
        find_weights(sources.model_dir, LIP_READING, sources)
    shutil.copy(STARTER_FILE, sources.model_dir / "mine.safetensors")
    assert find_weights(sources.model_dir, LIP_READING, sources).path.name == "mine.safetensors"


def test_a_folder_with_the_name_of_a_set_does_not_hide_it(
    sources: WeightSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("starter").mkdir()
    assert find_weights("starter", LIP_READING, sources).weight_set is STARTER


def test_the_error_names_a_missing_file(sources: WeightSources):
    with pytest.raises(WeightsNotFound, match=r"nowhere/x.pt: no such file"):
        find_weights("nowhere/x.pt", LIP_READING, sources)


def test_settings_give_the_sources():
    sources = Settings.from_env(
        {
            "VISEME_DATA_DIR": "/data",
            "SM_MODEL_DIR": "/opt/ml/model",
            "HF_MODEL_ID": "a/b",
            "HF_TOKEN": "hf_x",
            "HF_ENDPOINT": "http://mirror/",
            "HF_HUB_OFFLINE": "1",
            "AWS_ENDPOINT_URL_S3": "http://s3",
            "VISEME_WEIGHTS": "hf://c/d",
            "VISEME_CHECKPOINTS": "s3://b/wav2lip.pth, wav2lip_gan",
        }
    ).weight_sources
    assert sources == WeightSources(
        Path("/data/weights"),
        Path("/opt/ml/model"),
        "a/b",
        "http://mirror",
        "hf_x",
        True,
        "http://s3",
        "hf://c/d",
        ("s3://b/wav2lip.pth", "wav2lip_gan"),
        Path("/data/compiled"),
    )
    assert sources.packed == Path("/opt/ml/model/data/weights")
    assert Settings.from_env({}).weight_sources.hf_endpoint == HUB_ENDPOINT


# What the deployment names


def test_named_weights_take_precedence_over_the_model_directory(sources: WeightSources, tmp_path: Path):
    shutil.copy(STARTER_FILE, sources.model_dir / "model.safetensors")
    torch.manual_seed(6)
    save_file(LipCoordNet().state_dict(), tmp_path / "mine.safetensors")
    named = replace(sources, weights=str(tmp_path / "mine.safetensors"), hf_model_id="someone/else")
    assert find_weights(None, LIP_READING, named).path == tmp_path / "mine.safetensors"
    assert find_weights("starter", LIP_READING, named).path == STARTER_FILE
    assert find_weights(None, LIP_SYNC, replace(named, model_dir=None, hf_model_id=None)).weight_set is STARTER_SYNC


def test_a_repository_named_without_its_scheme_is_explained(sources: WeightSources):
    with pytest.raises(
        WeightsNotFound, match=r"no such file; a repository of the Hub is written hf://SilentSpeak/LipCoordNet$"
    ):
        find_weights("SilentSpeak/LipCoordNet", LIP_READING, sources)


def test_named_checkpoints_are_loaded_instead_of_those_in_the_model_directory(
    sources: WeightSources, checkpoints: list[Path]
):
    both = replace(sources, model_dir=checkpoints[0].parent)
    assert find_deployed_checkpoints(both) == ["wav2lip", "wav2lip_gan"]
    named = replace(both, checkpoints=("wav2lip_gan",))
    (generator,) = load_generators(None, CPU, named)
    assert generator.name == "wav2lip_gan"
    with pytest.raises(WeightsNotFound, match=r"wav2lip\.pth does not come with Viseme"):
        load_generators(None, CPU, replace(sources, checkpoints=("wav2lip",)))
