"""Resolves a name, path or address of weights to a file that can be loaded, and what the registry has on it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inference.errors import StorageError, WeightsNotFound
from inference.media.s3.client import SCHEME
from inference.weights import hub, s3
from inference.weights.cache import (
    atomic_public_file,
    check_hash,
    check_recorded,
    locate_hashed,
    sha256_of,
    sha256_of_openvino,
)
from inference.weights.fetch import fetch_from_hub
from inference.weights.registry import (
    LIP_READING,
    LIP_SYNC,
    REGISTRY,
    HubSource,
    WeightFile,
    WeightSet,
    find_set,
    find_set_by_hash,
)
from inference.weights.sources import WeightSources

logger = logging.getLogger("viseme.weights")

HUB_SCHEME = "hf://"
TORCH_SUFFIXES = (".pt", ".pth")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
OPENVINO_SUFFIX = ".xml"
LOCAL_SUFFIXES = (*SUFFIXES, OPENVINO_SUFFIX)  # OpenVINO models have two files and are not fetched
PREFERRED = "model.safetensors"  # wins if there are several files
FOLDERS = ("", "pretrain")  # of a model directory that are searched
DEFAULT_SETS = {LIP_READING: "starter", LIP_SYNC: "starter"}
# Files of a model directory that tasks select by name, so that they are not a deployment's default weights.
USER_SUPPLIED_STEMS = {Path(file.name).stem for one in REGISTRY.values() if one.is_user_supplied for file in one.files}


@dataclass(frozen=True)
class ResolvedWeights:
    """A weight file on this machine.

    path: the file to load: the file itself, or our safetensors copy of its tensors.
    label: the name of the weights in responses and messages.
    sha256: of the file as published or given; of an OpenVINO model, of its .xml and .bin together.
    weight_set: the registry's entry with this hash; None if there is none.
    """

    path: Path
    label: str
    sha256: str
    weight_set: WeightSet | None = None

    @property
    def landmarks(self) -> str | None:
        return self.weight_set.landmarks if self.weight_set else None

    @property
    def language(self) -> str | None:
        return self.weight_set.language if self.weight_set else None


def find_weights(weights: str | Path | None, task: str, sources: WeightSources) -> ResolvedWeights:
    """Resolve weights by name, path, s3://bucket/key or hf://owner/name; None resolves the deployment's default.

    A file takes precedence over a set of the same name. Missing files are fetched.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    if weights is None:
        return find_deployed(task, sources)
    name = str(weights)
    if name.startswith(SCHEME):
        return from_s3(name, sources)
    if name.startswith(HUB_SCHEME):
        return from_repository(name.removeprefix(HUB_SCHEME), task, sources)
    path = Path(weights)
    if isinstance(weights, Path) or path.is_file() or is_path_like(name):
        return from_path(path, name)
    return from_set(find_set(name, task), sources)


def find_deployed(task: str, sources: WeightSources) -> ResolvedWeights:
    """Return the weights that the deployment names, else those in its model directory, else those of HF_MODEL_ID.

    Without any of these, the set that ships for the task.
    """
    if sources.weights and task == LIP_READING:
        return find_weights(sources.weights, task, sources)
    theirs = find_in_folder(sources.model_dir, exclude=USER_SUPPLIED_STEMS) if sources.model_dir else None
    if theirs is not None:
        return from_path(theirs, theirs.name)
    if sources.hf_model_id:
        return from_repository(sources.hf_model_id, task, sources)
    return from_set(find_set(DEFAULT_SETS[task], task), sources)


def find_in_folder(folder: Path, exclude: Collection[str] = ()) -> Path | None:
    """Return the only weight file of a model directory; None if it has none.

    exclude: stems of files to ignore.
    Raises: WeightsNotFound if there are several and none is named model.safetensors.
    """
    names = (path for sub in FOLDERS for path in sorted((folder / sub).glob("*")))
    files = [path for path in names if path.suffix in LOCAL_SUFFIXES and path.is_file() and path.stem not in exclude]
    return choose_one(files, str(folder))


def choose_one(files: list[Path], place: str) -> Path | None:
    preferred = [path for path in files if path.name == PREFERRED]
    if preferred or len(files) == 1:
        return (preferred or files)[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise WeightsNotFound(f"{place}: contains {len(files)} weight files ({names}); expected one, or {PREFERRED}")
    return None


def is_path_like(weights: str) -> bool:
    return "/" in weights or weights.endswith(LOCAL_SUFFIXES)


def from_path(path: Path, label: str) -> ResolvedWeights:
    """Resolve a path: a file, or a folder with one weight file."""
    file = find_in_folder(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise WeightsNotFound(f"{path}: " + ("no weights in this folder" if path.is_dir() else describe_missing(label)))
    sha256 = hash_of(file)
    return ResolvedWeights(file, label, sha256, find_set_by_hash(sha256))


def describe_missing(label: str) -> str:
    """Return what is wrong with a path that leads nowhere; a Hub repository's name looks like one."""
    if hub.REPOSITORY_NAME.fullmatch(label) and "/" in label and not label.endswith(LOCAL_SUFFIXES):
        return f"no such file; a repository of the Hub is written {HUB_SCHEME}{label}"
    return "no such file"


def hash_of(file: Path) -> str:
    if file.suffix != OPENVINO_SUFFIX:
        return sha256_of(file)
    return sha256_of_openvino(file)


def from_set(weight_set: WeightSet, sources: WeightSources) -> ResolvedWeights:
    """Resolve a set to its first file: in the model directory, shipped, in the cache, or fetched now."""
    file = weight_set.files[0]
    theirs = in_model_dir(weight_set, file, sources)
    if theirs is not None:
        return ResolvedWeights(theirs, weight_set.name, check_hash(theirs, file), weight_set)
    if weight_set.hub is None:
        path, sha256 = locate_hashed(weight_set, file, sources.cache)
        return ResolvedWeights(path, weight_set.alias or weight_set.name, sha256, weight_set)
    path = fetch_from_hub(weight_set, file, sources)
    sha256 = check_hash(path, file)
    return ResolvedWeights(safe_copy(path, sha256), weight_set.name, sha256, weight_set)


def in_model_dir(weight_set: WeightSet, file: WeightFile, sources: WeightSources) -> Path | None:
    """Return a Hub file that a deployment packed, at its path in the repository or at the top; None if it did not."""
    if sources.model_dir is None or weight_set.hub is None or file.sha256 is None:
        return None
    places = (sources.model_dir / file.name, sources.model_dir / PurePosixPath(file.name).name)
    return next((path for path in places if path.is_file()), None)


def from_s3(uri: str, sources: WeightSources) -> ResolvedWeights:
    path = s3.fetch_s3(uri, sources)
    sha256 = check_recorded(path)
    return ResolvedWeights(safe_copy(path, sha256), uri, sha256, find_set_by_hash(sha256))


def from_repository(repository: str, task: str, sources: WeightSources) -> ResolvedWeights:
    """Resolve a Hub repository to the file pinned in the registry; if it is not there, to its only weight file."""
    hub.check_name(repository)
    for one in REGISTRY.values():
        if one.hub is not None and one.hub.repository == repository and one.task == task:
            return from_set(one, sources)
    folder = sources.cache / "repositories" / repository.replace("/", "--")
    source, name = choose_file(repository, folder, sources)
    path = folder / source.revision / name
    if not path.is_file():
        path = hub.download(source, name, folder / source.revision, sources)
    sha256 = check_recorded(path)
    label = f"{repository}@{source.revision}"
    return ResolvedWeights(safe_copy(path, sha256), label, sha256, find_set_by_hash(sha256))


def choose_file(repository: str, folder: Path, sources: WeightSources) -> tuple[HubSource, str]:
    """Return the commit and file to use, from the Hub; from its last response if it can't be reached."""
    record = folder / "main"
    if record.is_file() and sources.hf_offline:
        return read_choice(record, repository)
    try:
        source, files = hub.list_files(repository, sources)
    except StorageError as err:
        if not record.is_file():
            raise
        logger.warning("%s; using the commit that was fetched before", err)
        return read_choice(record, repository)
    chosen = choose_one([Path(name) for name in files if name.endswith(SUFFIXES)], f"the Hub repository {repository}")
    if chosen is None:
        raise WeightsNotFound(f"the Hub repository {repository}: no {', '.join(SUFFIXES)} file at {source.revision}")
    with atomic_public_file(record) as part:
        part.write_text(f"{source.revision} {chosen.as_posix()}\n", "utf-8")
    return source, chosen.as_posix()


def read_choice(record: Path, repository: str) -> tuple[HubSource, str]:
    revision, _, name = record.read_text("utf-8").strip().partition(" ")
    return HubSource(repository, revision), name


def safe_copy(path: Path, sha256: str) -> Path:
    """Return a safetensors copy of a fetched torch file; it is written once, next to the file, and reused.

    Raises: WrongWeights if the file contains anything but tensors.
    """
    if path.suffix not in TORCH_SUFFIXES:
        return path
    from inference.weights.checkpoint import is_copy_of, read_tensors, write_copy

    copy = path.with_suffix(".safetensors")
    if not (copy.is_file() and is_copy_of(copy, sha256)):
        write_copy(read_tensors(path), copy, sha256)
    return copy
