"""The files of weight sets on this machine: their paths and their hashes."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from inference.atomic_write import atomic_file
from inference.errors import WeightsNotFound, WrongWeights
from inference.weights.registry import WeightFile, WeightSet
from inference.weights.sources import WeightSources

MAX_GRAPH_BYTES = 4 << 20  # of an .xml; `viseme weights convert` writes 90 kB to 1 MB
MAX_WEIGHTS_BYTES = 160 << 20  # of a .bin; the largest, Wav2Lip in float32, takes 145 MB


def locate(weight_set: WeightSet, file: WeightFile, cache: Path) -> Path:
    """Return a file of a set, with its hash checked.

    cache: the folder of fetched weights.
    Raises: WeightsNotFound if it was not fetched yet, WrongWeights if its hash differs.
    """
    return locate_hashed(weight_set, file, cache)[0]


def locate_hashed(weight_set: WeightSet, file: WeightFile, cache: Path) -> tuple[Path, str]:
    """Return a file of a set and its SHA-256, which is read once; see `locate`."""
    path = path_of(weight_set, file, cache)
    if not path.is_file():
        raise WeightsNotFound(
            f"{file.name} of the weights {weight_set.name!r} is not in {path.parent}; "
            f"run: viseme weights fetch {weight_set.name}"
        )
    return path, check_hash(path, file)


def locate_deployed(weight_set: WeightSet, file: WeightFile, sources: WeightSources) -> Path:
    """Return a file of a set like `locate`; if the deployment's model archive contains it, the one in there."""
    if sources.packed is not None and path_of(weight_set, file, sources.packed).is_file():
        return locate(weight_set, file, sources.packed)
    return locate(weight_set, file, sources.cache)


def path_of(weight_set: WeightSet, file: WeightFile, cache: Path) -> Path:
    return (weight_set.shipped_in or cache / weight_set.name) / file.name


def check_hash(path: Path, file: WeightFile) -> str:
    """Return the SHA-256 of a file.

    Raises: WrongWeights if it is not the registry's or, if the registry has none, not the one recorded when the file
    was first fetched.
    """
    if file.sha256 is None:
        return check_recorded(path)
    found = sha256_of(path)
    if found != file.sha256:
        size = "" if file.n_bytes is None else f"{file.n_bytes} bytes with "
        raise WrongWeights(f"{path}: {path.stat().st_size} bytes with SHA-256 {found}; expected {size}{file.sha256}")
    return found


def check_recorded(path: Path) -> str:
    """Return the SHA-256 of a file, compared with the recorded one; record it if there is none yet.

    Raises: WrongWeights if the file has changed since.
    """
    record = record_of(path)
    if not record.is_file():
        return write_record(path)
    found, expected = sha256_of(path), record.read_text("utf-8").split(" ")[0]
    if found != expected:
        raise WrongWeights(f"{path}: has SHA-256 {found}; it had {expected} when it was first fetched")
    return found


def write_record(path: Path) -> str:
    """Record a file's SHA-256 next to it, and return it."""
    found = sha256_of(path)
    with atomic_public_file(record_of(path)) as part:
        part.write_text(f"{found}  {path.name}\n", "utf-8")
    return found


def record_of(path: Path) -> Path:
    """Return the path of a file's recorded hash, which has the format of `sha256sum -c`."""
    return path.with_name(path.name + ".sha256")


def discard(path: Path) -> None:
    """Delete a file from the cache, with its recorded hash."""
    path.unlink(missing_ok=True)
    record_of(path).unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_openvino(path: Path) -> str:
    """Return the SHA-256 of an OpenVINO model's two files together. Raises: WeightsNotFound, WrongWeights."""
    return hashlib.sha256(b"".join(read_openvino_files(path))).hexdigest()


def read_openvino_files(path: Path) -> tuple[bytes, bytes]:
    """Read an OpenVINO model: the .xml and the .bin next to it. Raises: WrongWeights if one is too large."""
    max_bytes = {path: MAX_GRAPH_BYTES, path.with_suffix(".bin"): MAX_WEIGHTS_BYTES}
    for file, n_bytes in max_bytes.items():
        if not file.is_file():
            raise WeightsNotFound(f"{path}: an OpenVINO model is two files, and {file.name} is missing")
        if file.stat().st_size > n_bytes:
            raise WrongWeights(f"{file}: {file.stat().st_size} bytes; at most {n_bytes} expected")
    graph, weights = (file.read_bytes() for file in max_bytes)
    return graph, weights


def store_file(contents: bytes, weight_set: WeightSet, file: WeightFile, cache: Path) -> Path:
    """Store a fetched file in the cache atomically.

    Raises: WrongWeights if its hash is not the registry's.
    """
    found = hashlib.sha256(contents).hexdigest()
    if found != file.sha256:
        raise WrongWeights(f"{file.name} as fetched has SHA-256 {found}; expected {file.sha256}")
    path = path_of(weight_set, file, cache)
    with atomic_public_file(path) as part:
        part.write_bytes(contents)
    return path


def atomic_public_file(path: Path) -> AbstractContextManager[Path]:
    """Return `atomic_file` for a file that every user may read; its folder is created."""
    return atomic_file(path, mode=0o644, make_parents=True)
