"""Wav2Lip with convolutions in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from support.face_networks import run_module, wav2lip_inputs

from inference.backends import Device
from inference.backends.graphs.wav2lip import build_wav2lip
from inference.conversion import int8_wav2lip
from inference.conversion.convert import convert
from inference.errors import InvalidRequest
from inference.lip_sync.model import load_generator
from inference.models import Wav2Lip
from inference.weights.architectures import WAV2LIP
from inference.weights.openvino_files import read_openvino
from inference.weights.resolve import from_path
from inference.weights.sources import WeightSources

CPU = Device("cpu", "f32")


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Smooth faces, as in images: noise would give other value ranges."""
    audio, face = wav2lip_inputs(8)
    smooth = np.repeat(np.repeat(face[..., ::12, ::12], 12, axis=2), 12, axis=3)
    return [(audio[i : i + 1], smooth[i : i + 1]) for i in range(8)]


def test_int8_runs_near_float32(
    wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list
):
    pytest.importorskip("nncf")
    found, lines = from_path(files["wav2lip"], "wav2lip.pth"), []
    with pytest.raises(InvalidRequest, match="needs samples"):
        convert(found, "openvino", "int8", tmp_path)
    monkeypatch.setattr(
        int8_wav2lip.quantise_with_accuracy_control, "__defaults__", (0.5,)
    )  # the first try is good enough
    path = convert(found, "openvino", "int8", tmp_path, lambda _: samples, lines.append)[-1]
    assert "no layer had to stay in float32" in lines[0]
    assert read_openvino(path, WAV2LIP).is_int8
    generator = load_generator(str(path), Device("cpu", "auto"), WeightSources(tmp_path))
    (expected,) = run_module(wav2lip, *samples[0])
    assert 0 < np.abs(generator.generate_faces(*samples[0]) - expected).mean() < 0.02
    with pytest.raises(InvalidRequest, match="is quantised to int8; expected precision auto or int8"):
        load_generator(str(path), CPU, WeightSources(tmp_path))
    with pytest.raises(InvalidRequest, match="not quantised"):
        load_generator(str(files["wav2lip"]), Device("cpu", "int8"), WeightSources(tmp_path))


def test_layers_that_harm_mouths_stay_in_float32_and_are_named(
    wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list
):
    """NNCF's search takes minutes, so it is replaced here; its arguments are checked."""
    nncf = pytest.importorskip("nncf")
    kept, arguments = ("face_decoder_blocks.6.1", "output_block.0"), {}

    def search(model, calibration, validation, measure, *, max_drop, subset_size, **_):
        run = openvino.Core().compile_model(model, "CPU")
        arguments.update(drop=max_drop, n=subset_size, itself=measure(run, validation.get_data()))
        scope = nncf.IgnoredScope(names=list(kept))
        return nncf.quantize(model, calibration, subset_size=subset_size, ignored_scope=scope)

    monkeypatch.setattr(nncf, "quantize_with_accuracy_control", search)
    lines = []
    path = convert(from_path(files["wav2lip"], "a"), "openvino", "int8", tmp_path, lambda _: samples, lines.append)[-1]
    assert arguments["drop"] == pytest.approx(0.02)
    assert arguments["n"] == 6
    assert arguments["itself"][0] == pytest.approx(1, abs=1e-3)
    assert len(arguments["itself"][1]) == 2
    assert lines[0].endswith("in float32: face_decoder_blocks.6.1, output_block.0")
    read = read_openvino(path, WAV2LIP)
    assert read.is_int8
    assert openvino.Core().read_model(path).get_rt_info(["viseme", "kept_in_float32"]).astype(str).split() == [*kept]


def test_few_samples_are_refused(wav2lip: Wav2Lip):
    pytest.importorskip("nncf")
    with pytest.raises(InvalidRequest, match="needs at least 2"):
        int8_wav2lip.quantise_with_accuracy_control(build_wav2lip(wav2lip.state_dict()), [])
