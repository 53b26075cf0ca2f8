"""Wav2Lip and S3FD in other forms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from golden_weights import seeded_state, uniform
from openvino import opset13 as ops
from safetensors import safe_open

from container.cli import main
from inference.backends import Device, OpenVinoNetwork
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip
from inference.conversion import int8_wav2lip
from inference.conversion.architectures import S3FD_DETECTOR, WAV2LIP, make_from_widths
from inference.conversion.convert import convert, find_convertible, write_openvino
from inference.conversion.openvino_files import read_openvino
from inference.errors import InvalidRequest, WeightsNotFound, WrongWeights
from inference.lip_sync import LipSyncer
from inference.lip_sync.model import load_generator, load_s3fd
from inference.models import S3FD, Wav2Lip, Wav2LipWidths
from inference.settings import Settings
from inference.weights.registry import LIP_SYNC, REGISTRY, WeightFile, WeightSet
from inference.weights.resolve import from_path
from inference.weights.sources import WeightSources

NARROW = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)
CPU = Device("cpu", "f32")


@pytest.fixture(scope="module")
def wav2lip() -> Wav2Lip:
    module = Wav2Lip(NARROW).eval()
    module.load_state_dict(seeded_state(module, 0.9))
    return module


@pytest.fixture(scope="module")
def s3fd() -> S3FD:
    module = S3FD().eval()
    module.load_state_dict(seeded_state(module))
    return module


@pytest.fixture(scope="module")
def files(wav2lip: Wav2Lip, s3fd: S3FD, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("brought")
    torch.save({"state_dict": {f"module.{k}": v for k, v in wav2lip.state_dict().items()}}, folder / "wav2lip.pth")
    torch.save(s3fd.state_dict(), folder / "s3fd.pth")
    return {name: folder / f"{name}.pth" for name in ("wav2lip", "s3fd")}


def spoken(n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    audio, face = uniform("wav2lip.audio", (n, 1, 80, 16)) * 8 - 4, uniform("wav2lip.face", (n, 6, 96, 96))
    face[:, :3, 48:] = 0
    return audio, face


def by_module(module: torch.nn.Module, *inputs: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        found = module(*map(torch.from_numpy, inputs))
    return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]


def an_image(height: int, width: int) -> np.ndarray:
    return (uniform("image", (1, 3, height, width)) * 255 - 110).astype(np.float32)


@pytest.mark.parametrize("n", [1, 3])
def test_wav2lips_graph_gives_what_the_module_gives(wav2lip: Wav2Lip, n: int):
    (expected,) = by_module(wav2lip, *spoken(n))
    (found,) = OpenVinoNetwork(build_wav2lip(wav2lip))(*spoken(n))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [(160, 128), (97, 131)])
def test_s3fds_graph_gives_what_the_module_gives(s3fd: S3FD, size: tuple[int, int]):
    expected = by_module(s3fd, an_image(*size))
    for one, other in zip(OpenVinoNetwork(build_s3fd(s3fd))(an_image(*size)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_whole_network_agrees_with_upstreams(shared: Path):
    module = Wav2Lip().eval()
    module.load_state_dict(seeded_state(module))
    with np.load(shared / "golden" / "wav2lip.npz") as golden:
        np.testing.assert_allclose(OpenVinoNetwork(build_wav2lip(module))(*spoken())[0], golden["output"], atol=1e-4)


@pytest.mark.parametrize(("form", "precision"), [("openvino", "f16"), ("openvino", "f32"), ("onnx", "f16")])
def test_wav2lip_in_another_form(wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, form: str, precision: str):
    path = convert(from_path(files["wav2lip"], "wav2lip.pth"), form, precision, tmp_path)[-1]
    if form == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(["faces"], dict(zip(("audio", "face"), spoken(), strict=True)))[0]
    else:
        assert path.name == f"wav2lip{'' if precision == 'f32' else '-f16'}.xml"
        found = load_generator(str(tmp_path), CPU, WeightSources(tmp_path)).speak(*spoken())
    (expected,) = by_module(wav2lip, *spoken())
    assert np.abs(found - expected).max() < (1e-5 if precision == "f32" else 0.02)
    if form == "openvino":
        n_bytes = sum(value.numel() for value in wav2lip.state_dict().values()) * (4 if precision == "f32" else 2)
        assert path.with_suffix(".bin").stat().st_size < n_bytes * 1.1


def test_s3fd_in_other_forms(s3fd: S3FD, files: dict[str, Path], tmp_path: Path):
    found = from_path(files["s3fd"], "s3fd.pth")
    paths = convert(found, "openvino", "f16", tmp_path)
    assert [path.name for path in paths] == ["s3fd-f16.bin", "s3fd-f16.xml"]
    assert 42e6 < sum(path.stat().st_size for path in paths) < 46e6
    detector = load_s3fd(from_path(tmp_path, "s3fd"), CPU)
    expected = by_module(s3fd, an_image(96, 96))
    for one, other in zip(detector._network(an_image(96, 96)), expected, strict=True):
        assert np.abs(one - other).max() < 0.02 * max(np.abs(other).max(), 1)
    with pytest.raises(InvalidRequest, match="int8: not for S3FD"):
        convert(found, "openvino", "int8", tmp_path)


def test_safetensors_halve_a_checkpoint_and_say_where_from(files: dict[str, Path], tmp_path: Path, weights_cache):
    (path,) = convert(from_path(files["wav2lip"], "a"), "safetensors", "bf16", tmp_path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["architecture"] == "Wav2Lip"
        assert json.loads(file.metadata()["widths"]) == json.loads(json.dumps(NARROW))
        assert file.get_tensor("output_block.1.weight").dtype == torch.bfloat16
        assert file.get_tensor("output_block.0.conv_block.1.num_batches_tracked").dtype == torch.int64
    assert LipSyncer([path], device="cpu", precision="f32").generators[0].name == "wav2lip-bf16"


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Faces smooth in space, as pictures are: ranges of noise are not those of any face."""
    audio, face = spoken(8)
    smooth = np.repeat(np.repeat(face[..., ::12, ::12], 12, axis=2), 12, axis=3)
    return [(audio[i : i + 1], smooth[i : i + 1]) for i in range(8)]


def test_int8_runs_near_float32(
    wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list
):
    pytest.importorskip("nncf")
    found, said = from_path(files["wav2lip"], "wav2lip.pth"), []
    with pytest.raises(InvalidRequest, match="needs samples"):
        convert(found, "openvino", "int8", tmp_path)
    monkeypatch.setattr(
        int8_wav2lip.quantise_with_accuracy_control, "__defaults__", (0.5,)
    )  # the first try is good enough
    path = convert(found, "openvino", "int8", tmp_path, lambda _: samples, said.append)[-1]
    assert "no layer had to stay in float32" in said[0]
    assert read_openvino(path, WAV2LIP).is_int8
    generator = load_generator(str(path), Device("cpu", "auto"), WeightSources(tmp_path))
    (expected,) = by_module(wav2lip, *samples[0])
    assert 0 < np.abs(generator.speak(*samples[0]) - expected).mean() < 0.02
    with pytest.raises(InvalidRequest, match="is quantised to int8; expected precision auto or int8"):
        load_generator(str(path), CPU, WeightSources(tmp_path))
    with pytest.raises(InvalidRequest, match="not quantised"):
        load_generator(str(files["wav2lip"]), Device("cpu", "int8"), WeightSources(tmp_path))


def test_layers_that_harm_mouths_stay_in_float32_and_are_named(
    wav2lip: Wav2Lip, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list
):
    """NNCF's search takes minutes: here it is told the answer, and what it is asked for is looked at."""
    nncf = pytest.importorskip("nncf")
    kept, asked = ("face_decoder_blocks.6.1", "output_block.0"), {}

    def search(model, calibration, validation, measure, *, max_drop, subset_size, **_):
        run = openvino.Core().compile_model(model, "CPU")
        asked.update(drop=max_drop, n=subset_size, itself=measure(run, validation.get_data()))
        scope = nncf.IgnoredScope(names=list(kept))
        return nncf.quantize(model, calibration, subset_size=subset_size, ignored_scope=scope)

    monkeypatch.setattr(nncf, "quantize_with_accuracy_control", search)
    said = []
    path = convert(from_path(files["wav2lip"], "a"), "openvino", "int8", tmp_path, lambda _: samples, said.append)[-1]
    assert asked["drop"] == pytest.approx(0.02)
    assert asked["n"] == 6
    assert asked["itself"][0] == pytest.approx(1, abs=1e-3)
    assert len(asked["itself"][1]) == 2
    assert said[0].endswith("in float32: face_decoder_blocks.6.1, output_block.0")
    read = read_openvino(path, WAV2LIP)
    assert read.is_int8
    assert openvino.Core().read_model(path).get_rt_info(["viseme", "kept_in_float32"]).astype(str).split() == [*kept]


def test_few_samples_are_refused(wav2lip: Wav2Lip):
    pytest.importorskip("nncf")
    with pytest.raises(InvalidRequest, match="needs at least 2"):
        int8_wav2lip.quantise_with_accuracy_control(build_wav2lip(wav2lip), [])


def swap_relu(graph: openvino.Model) -> None:
    relu = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Relu")
    openvino.utils.replace_node(relu, ops.tanh(relu.input(0).get_source_output()))


@pytest.mark.parametrize(
    ("change", "widths", "words"),
    [
        (swap_relu, json.dumps(NARROW), "another graph than Wav2Lip's"),
        (lambda _: None, None, "not Wav2Lip as"),
        (lambda _: None, json.dumps(Wav2LipWidths()), "another (graph|network) than Wav2Lip"),
        (lambda _: None, "[[100000000]]", "its widths are"),
        (lambda _: None, "{", "not Wav2Lip as"),
    ],
    ids=["another graph", "no widths", "other widths", "huge widths", "no JSON"],
)
def test_any_other_file_is_refused(wav2lip: Wav2Lip, tmp_path: Path, change: Callable, widths: str | None, words: str):
    graph = build_wav2lip(wav2lip)
    change(graph)
    about = {"architecture": "Wav2Lip"} | ({"widths": widths} if widths is not None else {})
    path = write_openvino(graph, tmp_path / "a.xml", about, is_half=False)[-1]
    with pytest.raises(WrongWeights, match=words):
        read_openvino(path, WAV2LIP)


def test_one_network_is_not_taken_for_another(files: dict[str, Path], tmp_path: Path):
    path = convert(from_path(files["wav2lip"], "a"), "openvino", "f16", tmp_path)[-1]
    assert read_openvino(path, None).architecture is WAV2LIP
    with pytest.raises(WrongWeights, match="another network than S3FD"):
        read_openvino(path, S3FD_DETECTOR)
    with pytest.raises(WrongWeights, match="another network than LipCoordNet"):
        read_openvino(path)
    with pytest.raises(InvalidRequest, match="runs on a CPU, not on cuda"):
        load_generator(str(path), Device("cuda", "f16"), WeightSources(tmp_path))


@pytest.mark.parametrize(
    "said",
    [
        [[1, 2]],
        [1, 2, 3, 4],
        [[True] * 7, [3] * 5, [4] * 7, 7],
        [[0] * 7, [3] * 5, [4] * 7, 7],
        [[4] * 7, [3] * 5, [4] * 7, 7, []],
        [[4] * 7, [3] * 5, [4] * 7, 7, 5],
    ],
)
def test_widths_that_are_none(said: list):
    with pytest.raises(ValueError, match="its widths are"):
        make_from_widths(WAV2LIP, json.dumps(said))


def test_the_command_takes_what_the_user_brought(
    files: dict[str, Path], settings: Settings, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SM_MODEL_DIR", str(files["wav2lip"].parent))
    assert main(["weights", "convert", "wav2lip", "--to", "openvino", "--precision", "f16", "-o", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert out.split() == [str(tmp_path / "wav2lip-f16.bin"), str(tmp_path / "wav2lip-f16.xml")]
    assert "exclude commercial use" in err
    generator = load_generator(str(tmp_path), CPU, WeightSources(tmp_path))
    assert generator.notice is not None
    assert main(["weights", "verify", str(tmp_path / "wav2lip-f16.xml")]) == 0
    out, err = capfd.readouterr()
    assert out == f"{generator.sha256}  {tmp_path / 'wav2lip-f16.xml'}\n"
    assert "a whole Wav2Lip" in err
    assert main(["weights", "verify", str(files["s3fd"])]) == 0
    assert "a whole S3FD" in capfd.readouterr().err


def test_a_set_that_is_not_there_says_how_to_bring_it(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match=r"s3fd\.pth does not come with Viseme"):
        find_convertible("s3fd", WeightSources(tmp_path))


def test_a_set_of_another_job_is_found_by_its_name(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contents = files["wav2lip"].read_bytes()
    ours = WeightSet(
        name="ours",
        job=LIP_SYNC,
        architecture="Wav2Lip",
        files=(WeightFile("wav2lip.pth", hashlib.sha256(contents).hexdigest()),),
        source="here",
        licence="ours",
        shipped_in=files["wav2lip"].parent,
    )
    monkeypatch.setitem(REGISTRY, "ours", ours)
    assert find_convertible("ours", WeightSources(tmp_path)).weight_set is ours
    with pytest.raises(WeightsNotFound, match="no such set"):
        find_convertible("mediapipe", WeightSources(tmp_path))
