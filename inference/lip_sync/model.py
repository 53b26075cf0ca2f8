"""The networks that lip sync runs, loaded from what the user brought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from inference.backends import Device, OpenVinoNetwork, TorchNetwork, settle
from inference.backends.openvino import Array
from inference.errors import InvalidRequest, WeightsNotFound
from inference.faces.s3fd import S3fdDetector
from inference.conversion.architectures import S3FD_DETECTOR, WAV2LIP, Architecture, load_module
from inference.weights.user_supplied import find_brought
from inference.weights.resolve import DEFAULT_SETS, OPENVINO_SUFFIX, FoundWeights, find_weights, from_path
from inference.conversion.openvino_files import read_openvino
from inference.weights.registry import LIP_SYNC, REGISTRY
from inference.weights.registry import S3FD as S3FD_SET
from inference.weights.sources import WeightSources

BEST_ON_CPU = "bf16"  # half the time of f32; with random weights half a level of 255 apart on average, 5 at most
Network = Callable[..., Sequence[Array]]


@dataclass(frozen=True)
class Generator:
    """A Wav2Lip that is ready to run. name: what its films are called by. notice: on its licence."""

    name: str
    sha256: str
    network: Network
    notice: str | None

    def speak(self, mels: Array, faces: Array) -> Array:
        """(B, 3, 96, 96) float32, BGR 0..1; see `Wav2Lip.forward`."""
        return self.network(mels, faces)[0]


def load_generators(checkpoints: list[str | Path] | None, device: Device, sources: WeightSources) -> list[Generator]:
    """One for each checkpoint; None: those that the deployment brought, else the starter.

    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    asked = list(dict.fromkeys(map(str, checkpoints))) if checkpoints is not None else deployed(sources)
    if not asked:
        raise InvalidRequest("no checkpoint: expected one at least")
    generators = [load_generator(one, device, sources) for one in asked]
    names = [one.name for one in generators]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"two checkpoints are called {name!r}; rename one: films are named for them")
    return generators


def deployed(sources: WeightSources) -> list[str]:
    """The brought sets that are there; where there are none, the set that ships with Viseme."""
    found = []
    for one in REGISTRY.values():
        if one.is_user_supplied and one.job == LIP_SYNC:
            try:
                find_brought(one, sources)
            except WeightsNotFound:
                continue
            found.append(one.name)
    return found or [DEFAULT_SETS[LIP_SYNC]]


def load_generator(checkpoint: str, device: Device, sources: WeightSources) -> Generator:
    found = find_checkpoint(checkpoint, sources)
    is_openvino = found.path.suffix == OPENVINO_SUFFIX
    network, says = load_openvino(found, WAV2LIP, device) if is_openvino else (load_tensors(found, device), None)
    # Of the published files no hash is known: they are told by their names.
    known = REGISTRY.get(says or "") or found.weight_set or REGISTRY.get(found.path.stem)
    return Generator(Path(found.label).stem, found.sha256, network, known.notice if known else None)


def load_tensors(found: FoundWeights, device: Device) -> Network:
    _, module = load_module(found.path, WAV2LIP)
    if device.precision == "int8":
        raise InvalidRequest(
            f"precision int8: the weights {found.label} are not quantised; 'viseme weights convert {found.label} "
            "--to openvino --precision int8 -o DIR' makes those that are, and '--checkpoint DIR' takes them"
        )
    return make_ready(module, WAV2LIP, settle(device, BEST_ON_CPU))


def load_openvino(found: FoundWeights, architecture: Architecture, device: Device) -> tuple[Network, str | None]:
    """A network in OpenVINO's form, and the name of the weights it was made from, by its own word."""
    if device.name != "cpu":
        raise InvalidRequest(f"{found.label}: an OpenVINO model runs on a CPU, not on {device.name}; choose device cpu")
    read = read_openvino(found.path, architecture)
    device = settle(device, "int8" if read.is_int8 else BEST_ON_CPU)
    if read.is_int8 != (device.precision == "int8"):
        have, expected = ("", "auto or int8") if read.is_int8 else ("not ", "auto, f32 or bf16")
        raise InvalidRequest(f"{found.label}: is {have}quantised to int8; expected precision {expected}")
    return OpenVinoNetwork(read.model, device.precision, n_threads=0), read.weights


def find_checkpoint(checkpoint: str, sources: WeightSources) -> FoundWeights:
    known = REGISTRY.get(checkpoint)
    if known is not None and known.is_user_supplied:
        return from_path(find_brought(known, sources), known.name)
    return find_weights(checkpoint, LIP_SYNC, sources)


def find_s3fd(weights: str | Path | None, sources: WeightSources) -> FoundWeights:
    """Upstream's face detector, from a path, or from where the deployment brought it. Raises: WeightsNotFound."""
    if weights is None:
        return from_path(find_brought(S3FD_SET, sources), S3FD_SET.name)
    return find_weights(weights, S3FD_SET.job, sources)


def load_s3fd(found: FoundWeights, device: Device) -> S3fdDetector:
    """In float32 whatever lip sync runs in. Raises: WrongWeights."""
    device = Device(device.name, "f32")
    if found.path.suffix == OPENVINO_SUFFIX:
        return S3fdDetector(load_openvino(found, S3FD_DETECTOR, device)[0])
    return S3fdDetector(make_ready(load_module(found.path, S3FD_DETECTOR)[1], S3FD_DETECTOR, device))


def make_ready(module: nn.Module, architecture: Architecture, device: Device) -> Network:
    """The module on that device: OpenVINO's on a CPU, where it takes half of torch's time, torch's on a GPU."""
    if device.name != "cpu":
        return TorchNetwork(module, device)
    return OpenVinoNetwork(architecture.build(module), device.precision, n_threads=0)
