"""Reads tensors from untrusted weight files: as data only, checked key by key.

`read_arrays` and `fit_arrays` need torch only for torch files and for types that numpy lacks; it takes a second to
import.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from inference.backends.torch_import import require_torch
from inference.dimensions.layers import BATCH_COUNTER, Shape
from inference.errors import WeightsNotFound, WrongWeights
from inference.weights.cache import atomic_public_file, check_recorded, write_record

if TYPE_CHECKING:
    from torch import Tensor, nn

Tensors = dict[str, "Tensor"]
Arrays = dict[str, npt.NDArray[Any]]
Module = TypeVar("Module", bound="nn.Module")
Value = TypeVar("Value")  # a tensor or an array
NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # under which training scripts store tensors
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
COPIED_FROM = "copied_from_sha256"  # metadata of a safetensors copy: hash of the original
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
MAX_HEADER_BYTES = 100_000_000  # of JSON; safetensors' own limit
MAX_NESTING = 4
N_NAMED = 3  # keys listed in a message
NUMPY_TYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}  # in safetensors
# Exceptions of torch's reader for damaged files, found by feeding it some.
DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError, OSError)


def load_into(module: nn.Module, path: Path) -> None:
    """Load the tensors of a file into a module, as float32.

    path: safetensors, or a torch file with nothing but tensors (state dict, bare or nested).
    Raises: WeightsNotFound, WrongWeights (naming what the file is).
    """
    fill_module(module, read_tensors(path), path.name)


def fill_module(module: Module, tensors: Tensors, file: str) -> Module:
    """Load tensors into a module, as float32, and return it. Raises: WrongWeights naming the file if they don't fit."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    check_keys(tensors, expected, file, type(module).__name__)
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    return module


def fit_arrays(found: Arrays, expected: Mapping[str, Shape], file: str, architecture: str) -> Arrays:
    """Return the arrays of a network as float32, as torch's `load_state_dict` would convert them.

    expected: their shapes. Raises: WrongWeights naming the file if they don't fit.
    """
    check_keys(found, expected, file, architecture)
    # Only training uses the counter of batches.
    return {
        key: found[key].astype(np.int64 if key.endswith(BATCH_COUNTER) else np.float32, copy=False) for key in expected
    }


def read_arrays(path: Path) -> Arrays:
    """Read all tensors of a file as arrays, without the prefixes of wrappers. No code in the file is run.

    Types that numpy lacks become float32.
    Raises: WeightsNotFound, WrongWeights.
    """
    if looks_like_safetensors(read_head(path)):
        arrays = read_safetensors_arrays(path)
        if arrays is not None:
            return strip_prefixes(arrays)
    return {key: to_array(value, f"{path}: {key}") for key, value in read_tensors(path).items()}


def to_array(tensor: Tensor, label: str) -> npt.NDArray[Any]:
    """Return a tensor of a file as an array. Raises: WrongWeights if it has no values, or is sparse or quantised."""
    import torch

    try:
        # Files of `named_parameters()` have tensors that require gradients, which numpy refuses.
        found: npt.NDArray[Any] = (
            (tensor if tensor.dtype in (torch.int64, torch.float32) else tensor.float()).detach().numpy()
        )
    except (RuntimeError, TypeError) as err:
        kind = f"a tensor of {tensor.dtype} on {tensor.device} with the layout {tensor.layout}"
        raise WrongWeights(f"{label} is {kind}; expected plain values") from err
    return found


def read_tensors(path: Path) -> Tensors:
    """Read all tensors of a file, without the prefixes of wrappers. No code in the file is run.

    Raises: WeightsNotFound, WrongWeights.
    """
    head = read_head(path)
    if looks_like_safetensors(head):
        return strip_prefixes(read_safetensors(path))
    reject_known_non_weights(head, path)
    if head[:4] == ZIP_START:
        check_zip(path)
        return strip_prefixes(tensors_of(unnest(read_torch(path), path)))
    if head[:1] == PICKLE_START:
        return strip_prefixes(tensors_of(unnest(read_torch(path), path)))
    raise WrongWeights(f"{path}: neither safetensors nor a torch file (starts with {head[:8].hex(' ')})")


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file. Raises: WeightsNotFound, WrongWeights for a folder."""
    if path.is_dir():
        raise WrongWeights(f"{path}: is a directory; expected a .safetensors, .pt or .pth file")
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    with path.open("rb") as file:
        return file.read(512)


def reject_known_non_weights(head: bytes, path: Path) -> None:
    """Raise WrongWeights if the first bytes are those of a known kind of file that has no weights."""
    text = head.lstrip().lower()
    if not head:
        raise WrongWeights(f"{path}: is empty (0 bytes)")
    if b"<net " in text:
        raise WrongWeights(f"{path}: is an OpenVINO model, not tensors; expected the weights it was converted from")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WrongWeights(f"{path}: is an HTML page, not weights; perhaps the download needed a login")
    if text.startswith(b"version https://git-lfs"):
        raise WrongWeights(f"{path}: is a Git LFS pointer, not the weights; run 'git lfs pull' in its repository")
    if text.startswith(b"{"):
        raise WrongWeights(f"{path}: is JSON text, not weights")


def looks_like_safetensors(head: bytes) -> bool:
    """Return whether a file starts with eight bytes of a plausible length, then a JSON object.

    Eight letters of text, read as a length, would exceed the limit.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def check_zip(path: Path) -> None:
    """Refuse a zip that would unpack to more than its own size: torch stores tensors uncompressed.

    Raises: WrongWeights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, *DAMAGE) as err:
        raise WrongWeights(f"{path}: a torch file that is cut off or damaged ({err})") from err
    if n_bytes > path.stat().st_size:
        raise WrongWeights(f"{path}: would unpack to {n_bytes} bytes, more than its own size, as no torch file does")


def read_safetensors(path: Path) -> Tensors:
    require_torch(f"{path}: reading types that numpy lacks, such as bfloat16,")
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError) as err:
        raise damaged_safetensors(path, err) from err


def read_safetensors_arrays(path: Path) -> Arrays | None:
    """Read a file with numpy; None if it has types that numpy lacks, such as bfloat16."""
    try:
        with safe_open(path, framework="numpy") as file:
            if any(file.get_slice(key).get_dtype() not in NUMPY_TYPES for key in file.keys()):  # noqa: SIM118
                return None
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, json.JSONDecodeError) as err:
        raise damaged_safetensors(path, err) from err


def damaged_safetensors(path: Path, err: Exception) -> WrongWeights:
    return WrongWeights(f"{path}: damaged or cut-off safetensors ({err})")


def write_copy(tensors: Tensors, path: Path, sha256: str) -> None:
    """Write tensors as safetensors, and record the copy's hash next to it.

    sha256: of the original. Another process may do the same at the same time: files are replaced atomically.
    """
    write_safetensors(tensors, path, {COPIED_FROM: sha256})
    write_record(path)


def write_arrays(arrays: Arrays, path: Path, metadata: dict[str, str]) -> None:
    """Write arrays as safetensors, atomically."""
    from safetensors.numpy import save_file

    with atomic_public_file(path) as part:
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, part, metadata)


def write_safetensors(tensors: Tensors, path: Path, metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with atomic_public_file(path) as part:
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata)


def is_copy_of(path: Path, sha256: str) -> bool:
    """Return whether our safetensors copy is undamaged and was made from the file with this hash."""
    try:
        check_recorded(path)
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get(COPIED_FROM) == sha256
    except (WrongWeights, SafetensorError):
        return False  # the caller writes a new copy


def read_torch(path: Path) -> object:
    require_torch(f"{path}: reading a torch file")
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise WrongWeights(
            f"{path}: contains more than tensors (it would run code when loaded), so it is refused; "
            "save only its state_dict, or use safetensors"
        ) from err
    except DAMAGE as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise WrongWeights(f"{path}: a damaged or cut-off torch file ({reason})") from err


def unnest(found: object, path: Path, depth: int = 0) -> Mapping[str, object]:
    if not isinstance(found, Mapping):
        raise WrongWeights(f"{path}: contains a {type(found).__name__}; expected a dictionary of tensors")
    for key in NESTED_KEYS:
        if isinstance(found.get(key), Mapping):
            if depth == MAX_NESTING:
                raise WrongWeights(f"{path}: dictionaries nested deeper than {MAX_NESTING} levels")
            return unnest(found[key], path, depth + 1)
    return found


def tensors_of(found: Mapping[str, object]) -> Tensors:
    """Return the entries that are tensors."""
    from torch import Tensor

    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def strip_prefixes(tensors: dict[str, Value]) -> dict[str, Value]:
    """Return tensors or arrays without the prefix of a wrapper, if all have it."""
    for prefix in WRAPPER_PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def check_keys(found: Mapping[str, Any], expected: Mapping[str, Shape], file: str, architecture: str) -> None:
    """Raise WrongWeights naming the tensors that are missing, unexpected or of another shape.

    found: tensors or arrays.
    """
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    if len(missing) == len(expected):
        raise WrongWeights(
            f"{file}: weights of another model; expected {architecture} ({abbreviate(expected)}), "
            f"found {abbreviate(found)}"
        )
    if missing or extra:
        raise WrongWeights(
            f"{file}: not a complete {architecture}; missing {abbreviate(missing)}; unexpected {abbreviate(extra)}"
        )
    for key, shape in expected.items():
        if tuple(found[key].shape) != shape:
            raise WrongWeights(
                f"{file}: {key} has shape {list(found[key].shape)}; expected {list(shape)} for {architecture}"
            )


def abbreviate(keys: Mapping[str, object] | list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    names = list(keys)
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more if names else "nothing"
