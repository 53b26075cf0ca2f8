"""TensorRT's code with onnxruntime's CPU provider in its place: no GPU is needed, and no engine is built."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.face_networks import make_wav2lip, run_module, wav2lip_inputs
from support.golden_weights import seeded_state, uniform

from inference.avatar.network import make_generator, make_image_generator, trace_generator
from inference.backends import Device, tensorrt_network
from inference.backends.openvino_network import OpenVinoNetwork
from inference.backends.tensorrt_network import (
    EngineUnavailable,
    OnnxNetwork,
    check_available,
    engine_key,
    open_session,
    provider_options,
    shapes_of,
    try_tensorrt,
    warn_once,
)
from inference.errors import InvalidRequest
from inference.lip_sync.model import compile_network, trace
from inference.models import AvatarUNet
from inference.settings import Settings
from inference.weights.architectures import NetworkWeights, weights_of

GPU = Device("cuda", "f32", "tensorrt")
RUNTIME = ("NVIDIA A10G", "(8, 6)", "580.65.06", "2.13.0", "1.31.1", "10.16.1")


@pytest.fixture(scope="module")
def wav2lip() -> NetworkWeights:
    return weights_of(make_wav2lip())


@pytest.fixture(scope="module")
def unet() -> NetworkWeights:
    module = AvatarUNet("ave", (4, 6, 8, 10, 12), 2)
    module.load_state_dict(seeded_state(module, 1.0))
    return weights_of(module)


@pytest.fixture
def cpu_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_network, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(tensorrt_network, "MEMORY", "cpu")
    monkeypatch.setattr(tensorrt_network, "PACKAGES", ("onnx", "onnxruntime"))
    monkeypatch.setattr(tensorrt_network, "current_gpu", lambda: 0)
    monkeypatch.setattr(tensorrt_network, "describe_runtime", lambda _: RUNTIME)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    warn_once.cache_clear()
    caplog.set_level(logging.WARNING, "viseme.backends")
    return caplog


@pytest.mark.usefixtures("cpu_provider")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_wav2lip_agrees_with_torch_in_any_batch(wav2lip: NetworkWeights, tmp_path: Path):
    network = compile_network(wav2lip, GPU, tmp_path / "compiled")
    assert isinstance(network, OnnxNetwork)
    for n in (1, 3, 70):  # 70 are more than an engine takes at once
        inputs = wav2lip_inputs(n)
        (expected,) = run_module(make_wav2lip(), *inputs)
        (found,) = network(*inputs)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        assert np.abs(found - expected).max() < 1e-4


@pytest.mark.usefixtures("cpu_provider")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_the_generator_agrees_with_torch(unet: NetworkWeights):
    generator = make_generator(unet, GPU)
    face, audio = np.uint8(uniform("face", (1, 320, 320, 3)) * 255), uniform("audio", (1, *unet.sizes.audio_shape))
    (expected,) = run_module(make_image_generator(unet), face, audio)
    (found,) = generator(face, audio)
    assert found.dtype == np.uint8
    assert np.ptp(expected) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1  # a level that the last bit decides
    assert (found == expected).mean() > 0.999


@pytest.mark.usefixtures("cpu_provider")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_the_graph_is_kept_for_the_next_start(wav2lip: NetworkWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, compiled = trace(wav2lip), tmp_path / "compiled"
    assert try_tensorrt(network, GPU, compiled) is not None
    (folder,) = (compiled / "tensorrt").iterdir()
    assert folder.name == engine_key(network, GPU, RUNTIME)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    monkeypatch.setattr(tensorrt_network, "export", lambda *_: pytest.fail("exported again"))
    assert try_tensorrt(network, GPU, compiled) is not None


@pytest.mark.usefixtures("cpu_provider")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_folder_that_others_can_write_to_is_not_used(
    wav2lip: NetworkWeights, tmp_path: Path, log: pytest.LogCaptureFixture
):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(0o777)
    assert try_tensorrt(trace(wav2lip), GPU, tmp_path / "compiled") is not None
    assert not list((tmp_path / "compiled").iterdir())
    assert log.messages == ["an engine can't be kept"]


def test_the_key_covers_all_that_an_engine_depends_on(wav2lip: NetworkWeights):
    network = trace(wav2lip)
    name = next(iter(network.arrays))
    others = [
        (replace(network, arrays={**network.arrays, name: network.arrays[name] + 1}), GPU, RUNTIME),
        (replace(network, max_batch=8), GPU, RUNTIME),
        (replace(network, name="Wav2Lip of other sizes"), GPU, RUNTIME),
        (network, replace(GPU, precision="f16"), RUNTIME),
        *((network, GPU, (*RUNTIME[:i], "another", *RUNTIME[i + 1 :])) for i in range(len(RUNTIME))),
    ]
    keys = {engine_key(*one) for one in [(network, GPU, RUNTIME), *others]}
    assert len(keys) == 1 + len(others)
    assert engine_key(trace(weights_of(make_wav2lip())), GPU, RUNTIME) in keys


def test_the_options_of_the_provider(wav2lip: NetworkWeights, tmp_path: Path):
    # Names and formats: onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    network = replace(trace(wav2lip), max_batch=8)
    options = provider_options(network, replace(GPU, precision="f16"), tmp_path, 1)
    assert options["device_id"] == 1
    assert (options["trt_fp16_enable"], options["trt_bf16_enable"]) == (True, False)
    assert options["trt_engine_cache_enable"]
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_profile_min_shapes"] == "audio:1x1x80x16,face:1x6x96x96"
    assert options["trt_profile_max_shapes"] == options["trt_profile_opt_shapes"] == shapes_of(network, 8)
    not_kept = provider_options(network, GPU, None, 0)
    assert not not_kept["trt_engine_cache_enable"]
    assert not not_kept["trt_fp16_enable"]
    assert "trt_engine_cache_path" not in not_kept


def test_without_a_gpu_one_line_says_why(
    wav2lip: NetworkWeights, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for _ in range(2):
        assert isinstance(compile_network(wav2lip, Device("cpu", "f32", "tensorrt")), OpenVinoNetwork)
    assert log.messages == [
        "TensorRT is not used: it needs an NVIDIA GPU, and the device is cpu; networks run as without "
        "VISEME_ENGINE=tensorrt"
    ]


def test_a_missing_package_and_a_missing_provider_are_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailable, match=r"^tensorrt cannot be imported .*pip install 'viseme\[tensorrt\]'"):
        check_available(GPU)
    monkeypatch.setattr(tensorrt_network, "PACKAGES", ("onnx", "onnxruntime"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineUnavailable, match="was built without it"):
        check_available(GPU)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_provider_than_the_wanted_one_is_an_error(
    unet: NetworkWeights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineUnavailable):
        open_session(tmp_path / "broken.onnx", [("CPUExecutionProvider", {})])
    tensorrt_network.export(trace_generator(unet), tmp_path / "model.onnx")
    with pytest.raises(EngineUnavailable, match=r"could not start it, only CPUExecutionProvider"):
        open_session(tmp_path / "model.onnx", [("TensorrtExecutionProvider", {})])
    assert capfd.readouterr().out == ""


def test_the_setting_is_checked():
    assert Settings.from_env({"VISEME_ENGINE": "tensorrt"}).engine == "tensorrt"
    with pytest.raises(InvalidRequest, match="VISEME_ENGINE='onnx'"):
        Settings.from_env({"VISEME_ENGINE": "onnx"})
