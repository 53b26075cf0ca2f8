"""From what was asked for to a file that can be loaded: which weights, where they lie, what is known of them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inference.errors import StorageError, WeightsNotFound
from inference.media.s3 import SCHEME
from inference.weights import hub, s3
from inference.weights.cache import check_hash, check_recorded, locate, sha256_of, sha256_of_openvino, whole_file
from inference.weights.fetch import fetch_from_hub
from inference.weights.registry import LIP_SYNC, REGISTRY, HubSource, WeightFile, WeightSet, find_set, set_of_hash
from inference.weights.sources import WeightSources

logger = logging.getLogger(__name__)

HUB_SCHEME = "hf://"
TORCH_SUFFIXES = (".pt", ".pth")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
OPENVINO_SUFFIX = ".xml"
LOCAL_SUFFIXES = (*SUFFIXES, OPENVINO_SUFFIX)  # of two files, so it is not fetched as one
PREFERRED = "model.safetensors"  # among several
FOLDERS = ("", "pretrain")  # of a model directory, where weights are looked for
DEFAULT_SETS = {"lip reading": "starter", LIP_SYNC: "starter"}
# What a deployment may bring besides, each for a job that asks for it by name.
BROUGHT = {Path(file.name).stem for one in REGISTRY.values() if one.is_user_supplied for file in one.files}


@dataclass(frozen=True)
class FoundWeights:
    """A weight file at hand.

    path: what to load: the file itself, or our safetensors copy of its tensors.
    label: what they are called towards callers.
    sha256: of the file as it was published or given; of an OpenVINO model, of its .xml and .bin together.
    weight_set: the registry's entry where the bytes are known to it.
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


def find_weights(weights: str | Path | None, job: str, sources: WeightSources) -> FoundWeights:
    """The weights of that name, path, s3://bucket/key or hf://owner/name; None: those the deployment brought.

    A file goes before a set of the same name. What is missing here is fetched.
    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    if weights is None:
        return find_deployed(job, sources)
    name = str(weights)
    if name.startswith(SCHEME):
        return from_s3(name, sources)
    if name.startswith(HUB_SCHEME):
        return from_repository(name.removeprefix(HUB_SCHEME), job, sources)
    path = Path(weights)
    if isinstance(weights, Path) or path.is_file() or looks_like_path(name):
        return from_path(path, name)
    return from_set(find_set(name, job), sources)


def find_deployed(job: str, sources: WeightSources) -> FoundWeights:
    """The model directory's weights, else those of HF_MODEL_ID, else the job's shipped set."""
    theirs = find_in_folder(sources.model_dir, without=BROUGHT) if sources.model_dir else None
    if theirs is not None:
        return from_path(theirs, theirs.name)
    if sources.hf_model_id:
        return from_repository(sources.hf_model_id, job, sources)
    return from_set(find_set(DEFAULT_SETS[job], job), sources)


def find_in_folder(folder: Path, without: Collection[str] = ()) -> Path | None:
    """The one weight file of a model directory, besides those called as in `without`; None where it has none.

    Raises: WeightsNotFound where there are several and none is called model.safetensors.
    """
    names = (path for sub in FOLDERS for path in sorted((folder / sub).glob("*")))
    files = [path for path in names if path.suffix in LOCAL_SUFFIXES and path.is_file() and path.stem not in without]
    return choose_one(files, str(folder))


def choose_one(files: list[Path], where: str) -> Path | None:
    preferred = [path for path in files if path.name == PREFERRED]
    if preferred or len(files) == 1:
        return (preferred or files)[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise WeightsNotFound(f"{where}: holds {len(files)} weight files ({names}); expected one, or {PREFERRED}")
    return None


def looks_like_path(weights: str) -> bool:
    return "/" in weights or weights.endswith(LOCAL_SUFFIXES)


def from_path(path: Path, label: str) -> FoundWeights:
    """A file that was given, or the one weight file of a folder that was."""
    file = find_in_folder(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise WeightsNotFound(f"{path}: " + ("no weights in this folder" if path.is_dir() else "no such file"))
    sha256 = hash_of(file)
    return FoundWeights(file, label, sha256, set_of_hash(sha256))


def hash_of(file: Path) -> str:
    if file.suffix != OPENVINO_SUFFIX:
        return sha256_of(file)
    return sha256_of_openvino(file)


def from_set(weight_set: WeightSet, sources: WeightSources) -> FoundWeights:
    """The first file of a set: shipped, in the model directory, in the cache, or fetched now."""
    file = weight_set.files[0]
    theirs = in_model_dir(weight_set, file, sources)
    if theirs is not None:
        return FoundWeights(theirs, weight_set.name, check_hash(theirs, file), weight_set)
    if weight_set.hub is None:
        path = locate(weight_set, file, sources.cache)
        return FoundWeights(path, weight_set.alias or weight_set.name, check_hash(path, file), weight_set)
    path = fetch_from_hub(weight_set, file, sources)
    sha256 = check_hash(path, file)
    return FoundWeights(safe_copy(path, sha256), weight_set.name, sha256, weight_set)


def in_model_dir(weight_set: WeightSet, file: WeightFile, sources: WeightSources) -> Path | None:
    """Where a deployment packed a file of the Hub's: at its path in the repository, or at the top."""
    if sources.model_dir is None or weight_set.hub is None or file.sha256 is None:
        return None
    places = (sources.model_dir / file.name, sources.model_dir / PurePosixPath(file.name).name)
    return next((path for path in places if path.is_file()), None)


def from_s3(uri: str, sources: WeightSources) -> FoundWeights:
    path = s3.fetch_s3(uri, sources)
    sha256 = check_recorded(path)
    return FoundWeights(safe_copy(path, sha256), uri, sha256, set_of_hash(sha256))


def from_repository(repository: str, job: str, sources: WeightSources) -> FoundWeights:
    """The weights of a Hub repository: the registry's pinned file where it knows the repository, else the only one."""
    hub.check_name(repository)
    for one in REGISTRY.values():
        if one.hub is not None and one.hub.repository == repository and one.job == job:
            return from_set(one, sources)
    folder = sources.cache / "repositories" / repository.replace("/", "--")
    source, name = choose_file(repository, folder, sources)
    path = folder / source.revision / name
    if not path.is_file():
        path = hub.download(source, name, folder / source.revision, sources)
    sha256 = check_recorded(path)
    label = f"{repository}@{source.revision}"
    return FoundWeights(safe_copy(path, sha256), label, sha256, set_of_hash(sha256))


def choose_file(repository: str, folder: Path, sources: WeightSources) -> tuple[HubSource, str]:
    """Which commit and which file; as the Hub says, or as it said last where it cannot be asked."""
    said = folder / "main"
    if said.is_file() and sources.hf_offline:
        return read_choice(said, repository)
    try:
        source, files = hub.list_files(repository, sources)
    except StorageError as err:
        if not said.is_file():
            raise
        logger.warning("%s; using the commit that was fetched before", err)
        return read_choice(said, repository)
    chosen = choose_one([Path(name) for name in files if name.endswith(SUFFIXES)], f"the Hub repository {repository}")
    if chosen is None:
        raise WeightsNotFound(f"the Hub repository {repository}: no {', '.join(SUFFIXES)} file at {source.revision}")
    with whole_file(said) as part:
        part.write_text(f"{source.revision} {chosen.as_posix()}\n", "utf-8")
    return source, chosen.as_posix()


def read_choice(said: Path, repository: str) -> tuple[HubSource, str]:
    revision, _, name = said.read_text("utf-8").strip().partition(" ")
    return HubSource(repository, revision), name


def safe_copy(path: Path, sha256: str) -> Path:
    """A fetched torch file's tensors as safetensors, beside it: made once, found the next time.

    Raises: WrongWeights where the file is not tensors alone.
    """
    if path.suffix not in TORCH_SUFFIXES:
        return path
    from inference.weights.checkpoint import is_copy_of, read_tensors, write_copy

    copy = path.with_suffix(".safetensors")
    if not (copy.is_file() and is_copy_of(copy, sha256)):
        write_copy(read_tensors(path), copy, sha256)
    return copy
