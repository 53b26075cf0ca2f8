from __future__ import annotations

import builtins
import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.audio_files import RATE, encode_audio, make_tone
from support.hub_server import HubServer, Repository
from support.synthetic_frames import talk
from support.video_files import make_video

from container.cli import main
from inference.backends import Device
from inference.errors import InvalidRequest, WeightsNotFound, WrongWeights
from inference.faces import FaceBox
from inference.lip_sync import LipSyncer, SyncOptions
from inference.lip_sync.compose import FaceFrameBatch, paste_faces
from inference.lip_sync.enhance import ENHANCERS, enhance_face, enhance_mouths, load_swin2sr
from inference.lip_sync.preprocess import FaceFrame
from inference.settings import Settings
from inference.weights.registry import REGISTRY, SWIN2SR, WeightFile
from inference.weights.sources import WeightSources

CPU = Device("cpu", "f32")
TINY = {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "upscale": 2}


class Doubling:
    """Repeats each pixel four times and counts its calls."""

    scale = 2
    n_calls = 0

    def enhance(self, mouth_bgr: np.ndarray) -> np.ndarray:
        self.n_calls += 1
        return mouth_bgr.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the Hub's, of a network with a thousandth of the published size and random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("hub") / "swin2sr"
    config = transformers.Swin2SRConfig(**TINY, window_size=8)
    transformers.Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    (folder / "config.json").unlink()
    return folder / "model.safetensors"


@pytest.fixture
def tiny(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of that file, as the registry and the loader expect it."""
    register(tiny_file, monkeypatch)
    return tiny_file.parent


def register(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = WeightFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(REGISTRY, "swin2sr", replace(SWIN2SR, files=(file,)))
    monkeypatch.setattr("inference.lip_sync.enhance.SWIN2SR_CONFIG", TINY)


def a_face() -> np.ndarray:
    return np.asarray(cv2.resize(talk(1)[0][60:260, 80:280], (96, 96)), np.uint8)


def test_only_the_lower_face_comes_from_the_network(tiny: Path):
    enhancer = load_swin2sr(CPU, WeightSources(tiny.parent, hf_offline=True))
    face = a_face()
    larger = enhance_face(face, enhancer)
    plain = cv2.resize(face, (192, 192))
    assert larger.shape == (192, 192, 3)
    assert np.array_equal(larger[:80], plain[:80])
    assert not np.array_equal(larger[80:], plain[80:])
    assert np.array_equal(larger[80:], enhancer.enhance(face[40:]))
    odd = enhancer.enhance(face[40:93, :90])  # not a multiple of the window
    assert odd.shape == (106, 180, 3)


def test_colours_are_not_swapped(tiny: Path):
    """Random weights keep no colours, but blue input must come out of the network's third channel."""
    enhancer = load_swin2sr(CPU, WeightSources(tiny.parent, hf_offline=True))
    seen = []
    enhancer._network = lambda rgb: seen.append(rgb) or [rgb.repeat(2, axis=2).repeat(2, axis=3)]
    blue = np.zeros((56, 96, 3), np.uint8)
    blue[..., 0] = 200
    assert np.array_equal(enhancer.enhance(blue), Doubling().enhance(blue))
    assert seen[0][0, 2].max() == pytest.approx(200 / 255)
    assert seen[0][0, 0].max() == 0


def test_only_faces_larger_than_the_networks_are_enhanced():
    face_frames = [
        FaceFrame(np.zeros((300, 300, 3), np.uint8), box)
        for box in (FaceBox(0, 0, 96, 120), None, FaceBox(10, 10, 210, 240))
    ]
    faces = [a_face(), a_face()]
    doubling = Doubling()
    (batch,) = enhance_mouths([FaceFrameBatch(tuple(face_frames), (), (faces, faces))], doubling)
    assert doubling.n_calls == 2  # one face of two networks
    assert [face.shape[0] for face in batch.patches[0]] == [96, 192]
    pasted = list(paste_faces([batch], "blend"))
    assert pasted[1][0] is face_frames[1].frame
    assert pasted[2][0][120:].any()


def test_the_blend_is_the_same():
    """With an enhancer that adds nothing, only the resampling of pixels differs."""
    face_frame = FaceFrame(talk(1)[0], FaceBox(90, 60, 270, 260))
    batch = FaceFrameBatch((face_frame,), (), ([a_face()],))
    (plain,), (enhanced,) = (
        next(iter(paste_faces(batches, "blend"))) for batches in ([batch], enhance_mouths([batch], Doubling()))
    )
    assert np.array_equal(plain[:144], enhanced[:144])
    assert 0 < np.abs(plain.astype(int) - enhanced).mean() < 3


def test_a_video_is_enhanced(
    tiny: Path, checkpoints: list[Path], weights_cache: Path, settings: Settings, tmp_path: Path
):
    (tmp_path / "weights").mkdir()
    for name, target in {"mediapipe": weights_cache / "mediapipe", "swin2sr": tiny}.items():
        (tmp_path / "weights" / name).symlink_to(target)
    here = settings.model_copy(update={"data_dir": tmp_path, "hf_offline": True})
    syncer = LipSyncer(checkpoints[:1], device="cpu", precision="f32", settings=here)
    voice = encode_audio(make_tone(0.2, RATE), RATE)
    plain, sharp = (syncer.sync(make_video(talk(4)), voice, SyncOptions(enhance=one)) for one in ("none", "swin2sr"))
    assert plain.outputs[0].video != sharp.outputs[0].video
    assert "enhance" in sharp.timings_ms
    assert "enhance" not in plain.timings_ms


def test_weights_are_downloaded_at_the_pinned_commit(tiny: Path, tmp_path: Path):
    files = {"model.safetensors": (tiny / "model.safetensors").read_bytes()}
    with HubServer({SWIN2SR.hub.repository: Repository(SWIN2SR.hub.revision, files)}) as server:
        sources = WeightSources(tmp_path, hf_endpoint=server.url)
        assert load_swin2sr(CPU, sources).scale == 2
    offline = replace(sources, hf_offline=True)
    assert load_swin2sr(CPU, offline).scale == 2
    (tmp_path / "swin2sr" / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(WrongWeights, match="2 bytes with SHA-256"):
        load_swin2sr(CPU, offline)


def test_missing_or_wrong_weights_are_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sources = WeightSources(tmp_path, hf_offline=True)
    with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE"):
        load_swin2sr(CPU, sources)
    path = tmp_path / "swin2sr" / "model.safetensors"
    path.parent.mkdir()
    tensors = load_file(tiny / "model.safetensors")
    tensors.pop("swin2sr.layernorm.weight")
    save_file(tensors, path, {"format": "pt"})
    register(path, monkeypatch)
    with pytest.raises(WrongWeights, match=r"not a complete Swin2SR; .*swin2sr\.layernorm\.weight"):
        load_swin2sr(CPU, sources)
    path.write_bytes(b"<html></html>")
    register(path, monkeypatch)
    with pytest.raises(WrongWeights, match="not Swin2SR's weights"):
        load_swin2sr(CPU, sources)


def test_without_the_package_the_extra_is_named(
    checkpoints: list[Path], weights_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    real = builtins.__import__

    def without(name, *rest):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest)

    (tmp_path / "face.mp4").write_bytes(make_video(talk(2)))
    (tmp_path / "voice.wav").write_bytes(encode_audio(make_tone(0.1, RATE), RATE))
    monkeypatch.setattr(builtins, "__import__", without)
    out = tmp_path / "out.mp4"
    flags = ["--checkpoint", str(checkpoints[0]), "--device", "cpu", "--enhance", "swin2sr", "-o", str(out)]
    assert main(["sync", str(tmp_path / "face.mp4"), str(tmp_path / "voice.wav"), *flags]) == 2
    assert "pip install 'viseme[enhance]'" in capsys.readouterr().err
    assert not out.exists()


def test_every_name_has_an_enhancer():
    assert set(ENHANCERS) == {"swin2sr"}
    with pytest.raises(InvalidRequest, match="enhance 'gfpgan': expected one of none, video, swin2sr"):
        SyncOptions(enhance="gfpgan")
