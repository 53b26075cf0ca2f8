"""Reads tensors from untrusted weight files: as data only, checked key by key."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.errors import WeightsNotFound, WrongWeights
from inference.weights.cache import atomic_public_file, check_recorded, write_record

Tensors = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)
NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # under which training scripts store tensors
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
COPIED_FROM = "copied_from_sha256"  # metadata of a safetensors copy: hash of the original
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
MAX_HEADER_BYTES = 100_000_000  # of JSON; safetensors' own limit
MAX_NESTING = 4
N_NAMED = 3  # keys listed in a message
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
    check_keys(tensors, module.state_dict(), file, type(module).__name__)
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    return module


def read_tensors(path: Path) -> Tensors:
    """Read all tensors of a file, without the prefixes of wrappers. No code in the file is run.

    Raises: WeightsNotFound, WrongWeights.
    """
    if path.is_dir():
        raise WrongWeights(f"{path}: is a directory; expected a .safetensors, .pt or .pth file")
    if not path.is_file():
        raise WeightsNotFound(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(512)
    if looks_like_safetensors(head):
        return strip_prefixes(read_safetensors(path))
    reject_known_non_weights(head, path)
    if head[:4] == ZIP_START:
        check_zip(path)
        return strip_prefixes(unnest(read_torch(path), path))
    if head[:1] == PICKLE_START:
        return strip_prefixes(unnest(read_torch(path), path))
    raise WrongWeights(f"{path}: neither safetensors nor a torch file (starts with {head[:8].hex(' ')})")


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
    try:
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError) as err:
        raise WrongWeights(f"{path}: damaged or cut-off safetensors ({err})") from err


def write_copy(tensors: Tensors, path: Path, sha256: str) -> None:
    """Write tensors as safetensors, and record the copy's hash next to it.

    sha256: of the original. Another process may do the same at the same time: files are replaced atomically.
    """
    write_safetensors(tensors, path, {COPIED_FROM: sha256})
    write_record(path)


def write_safetensors(tensors: Tensors, path: Path, metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically."""
    with atomic_public_file(path) as part:
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata)


def is_copy_of(path: Path, sha256: str) -> bool:
    """Return whether our safetensors copy is undamaged and was made from the file with this hash."""
    try:
        check_recorded(path)
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(COPIED_FROM) == sha256
    except (WrongWeights, SafetensorError):
        return False  # the caller writes a new copy


def read_torch(path: Path) -> object:
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


def strip_prefixes(found: Mapping[str, object]) -> Tensors:
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    for prefix in WRAPPER_PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def check_keys(found: Tensors, expected: Mapping[str, Tensor], file: str, architecture: str) -> None:
    """Raise WrongWeights naming the tensors that are missing, unexpected or of another shape."""
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
    for key, value in expected.items():
        if found[key].shape != value.shape:
            raise WrongWeights(
                f"{file}: {key} has shape {list(found[key].shape)}; expected {list(value.shape)} for {architecture}"
            )


def abbreviate(keys: Mapping[str, object] | list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    names = list(keys)
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more if names else "nothing"
