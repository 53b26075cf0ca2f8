from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from inference.errors import WeightsNotFound, WrongWeights
from inference.models import LipCoordNet
from inference.weights.checkpoint import fit_arrays, load_into, read_arrays, read_tensors, write_arrays

OnDisk = Callable[[str, bytes], Path]


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Small().state_dict()


def has_state(module: Small, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_a_torch_file_is_read_bare_or_nested(tmp_path: Path, wrap):
    torch.save(wrap(state()), tmp_path / "x.pt")
    module = Small()
    load_into(module, tmp_path / "x.pt")
    assert has_state(module, state())


def test_prefixes_of_wrappers_are_dropped(tmp_path: Path):
    torch.save({f"module.{k}": v for k, v in state().items()}, tmp_path / "x.pt")
    module = Small()
    load_into(module, tmp_path / "x.pt")
    assert has_state(module, state())


def test_half_precision_safetensors_become_float32(tmp_path: Path):
    save_file({k: v.half() for k, v in state().items()}, tmp_path / "x.safetensors")
    module = Small()
    load_into(module, tmp_path / "x.safetensors")
    assert module.layer.weight.dtype == torch.float32
    assert torch.allclose(module.layer.weight, state()["layer.weight"], atol=1e-3)


def test_legacy_torch_files_load(tmp_path: Path):
    torch.save(state(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert set(read_tensors(tmp_path / "x.pth")) == set(state())


class Evil:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (self.marker.touch, ())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path, legacy: bool):
    marker = tmp_path / "was-run"
    torch.save({"layer.weight": Evil(marker)}, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WrongWeights, match="more than tensors"):
        read_tensors(tmp_path / "x.pt")
    assert not marker.exists()


def test_a_compressed_torch_file_is_refused_before_it_is_unpacked(tmp_path: Path):
    torch.save({"a": torch.zeros(2_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "x.pt", "w", 8) as bomb:
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    with pytest.raises(WrongWeights, match="would unpack to"):
        read_tensors(tmp_path / "x.pt")


def test_a_dictionary_inside_itself_is_refused(tmp_path: Path):
    found: dict = {}
    found["model"] = found
    torch.save(found, tmp_path / "x.pt")
    with pytest.raises(WrongWeights, match=r"nested deeper|neither|damaged"):
        read_tensors(tmp_path / "x.pt")


def test_bytes_changed_anywhere_are_refused_or_read_but_never_crash(tmp_path: Path):
    torch.save(state(), tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 6):
            damaged[at] = rng.integers(256)
        (tmp_path / "y.pt").write_bytes(damaged)
        try:
            read_tensors(tmp_path / "y.pt")
        except WrongWeights:
            continue


def test_a_header_length_that_looks_like_json_is_not_taken_for_json(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    padding = 0x7B20  # a length whose first bytes are " {"
    save_file({"a": torch.zeros(1)}, path, {"note": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    save_file({"a": torch.zeros(1)}, path, {"note": "x" * (padding - length)})
    assert path.read_bytes()[:2] == b" {"
    assert set(read_tensors(path)) == {"a"}


WRONG = {
    "empty": (b"", "empty"),
    "page": (b"<!DOCTYPE html><html>Sign in</html>", "HTML page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "json": (b'{"error": "not found"}', "JSON"),
    "text": (b"BIN BLUE AT F TWO NOW", "neither safetensors nor a torch file"),
    "cut safetensors": (save(state())[:-5], "damaged or cut-off safetensors"),
    "plain pickle": (pickle.dumps({"a": 1}), "torch file|more than tensors"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_error_names_the_kind_of_a_wrong_file(on_disk: OnDisk, kind: str):
    contents, words = WRONG[kind]
    with pytest.raises(WrongWeights, match=words):
        read_tensors(on_disk("x.pt", contents))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_the_error_names_a_cut_off_torch_file(tmp_path: Path, on_disk: OnDisk, share: float):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    with pytest.raises(WrongWeights, match="cut off"):
        read_tensors(on_disk("cut.pt", whole[: int(len(whole) * share)]))


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path):
    with pytest.raises(WeightsNotFound, match="no such file"):
        read_tensors(tmp_path / "x.pt")
    with pytest.raises(WrongWeights, match="is a directory"):
        read_tensors(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path):
    save_file(state(), tmp_path / "x.safetensors")
    with pytest.raises(WrongWeights, match="weights of another model; expected LipCoordNet"):
        load_into(LipCoordNet(), tmp_path / "x.safetensors")


def test_the_error_names_missing_extra_and_misshapen_tensors(tmp_path: Path):
    save_file({"layer.weight": torch.zeros(3, 2), "head": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WrongWeights, match=r"missing layer\.bias; unexpected head"):
        load_into(Small(), tmp_path / "a.safetensors")
    save_file({"layer.weight": torch.zeros(4, 2), "layer.bias": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(WrongWeights, match=r"layer\.weight has shape \[4, 2\]; expected \[3, 2\]"):
        load_into(Small(), tmp_path / "b.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_arrays_equal_the_tensors(tmp_path: Path, dtype: torch.dtype, suffix: str):
    path = tmp_path / f"x{suffix}"
    tensors = {f"module.{key}": value.to(dtype) for key, value in state().items()}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    shapes = {key: tuple(value.shape) for key, value in state().items()}
    arrays = fit_arrays(read_arrays(path), shapes, path.name, "Small")
    for key, value in read_tensors(path).items():
        assert arrays[key].dtype == np.float32
        np.testing.assert_array_equal(arrays[key], value.float().numpy())


def test_parameters_are_read_as_arrays(tmp_path: Path):
    torch.manual_seed(1)
    torch.save(dict(Small().named_parameters()), tmp_path / "x.pth")
    found = read_arrays(tmp_path / "x.pth")
    assert {key: value.tolist() for key, value in found.items()} == {key: t.tolist() for key, t in state().items()}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, device="meta"), "float32 on meta"),
        (torch.zeros(3, dtype=torch.float16, device="meta"), "float16 on meta"),
    ],
)
def test_tensors_without_values_are_refused(tmp_path: Path, tensor: torch.Tensor, message: str):
    torch.save({"layer.bias": tensor}, tmp_path / "x.pth")
    with pytest.raises(WrongWeights, match=rf"x.pth: layer.bias is a tensor of torch.{message}"):
        read_arrays(tmp_path / "x.pth")


def test_the_counter_of_batches_stays_an_integer(tmp_path: Path):
    norm = torch.nn.BatchNorm2d(2).state_dict()
    save_file(norm, tmp_path / "x.safetensors")
    shapes = {key: tuple(value.shape) for key, value in norm.items()}
    arrays = fit_arrays(read_arrays(tmp_path / "x.safetensors"), shapes, "x", "BatchNorm2d")
    write_arrays(arrays, tmp_path / "again.safetensors", {"a": "b"})
    again = read_tensors(tmp_path / "again.safetensors")
    assert {key: (value.dtype, value.shape) for key, value in again.items()} == {
        key: (value.dtype, value.shape) for key, value in norm.items()
    }


@pytest.mark.parametrize(
    "contents", [b"", b"<html>", b"{}", b"version https://git-lfs", b"abc", (9).to_bytes(8, "little") + b"{"]
)
def test_arrays_are_refused_like_tensors(tmp_path: Path, contents: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(contents)
    with pytest.raises(WrongWeights) as of_tensors:
        read_tensors(path)
    with pytest.raises(WrongWeights) as of_arrays:
        read_arrays(path)
    assert str(of_arrays.value) == str(of_tensors.value)
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises((WrongWeights, WeightsNotFound), match=r"directory|no such file"):
            read_arrays(folder)


def test_arrays_that_do_not_fit_are_named_like_tensors(tmp_path: Path):
    expected = {key: tuple(value.shape) for key, value in state().items()}
    incomplete, reshaped = {"layer.weight": torch.zeros(3, 2)}, state() | {"layer.bias": torch.zeros(4)}
    for tensors in ({"other": torch.zeros(1)}, incomplete, reshaped):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(WrongWeights) as of_module:
            load_into(Small(), tmp_path / "x.safetensors")
        with pytest.raises(WrongWeights) as of_arrays:
            fit_arrays(read_arrays(tmp_path / "x.safetensors"), expected, "x.safetensors", "Small")
        assert str(of_arrays.value) == str(of_module.value)
