"""Load the networks of lip sync: Wav2Lip checkpoints and S3FD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inference.backends import TENSORRT, Device, OpenVinoNetwork, resolve_auto_precision
from inference.backends.device import count_threads
from inference.backends.openvino_network import Array
from inference.backends.stored_precision import check_on_cpu, check_stored_precision, not_quantised
from inference.backends.tensorrt_network import TracedNetwork, try_tensorrt
from inference.errors import InvalidRequest, WeightsNotFound
from inference.faces.s3fd import S3fdDetector
from inference.settings import wanted_threads
from inference.weights.architectures import S3FD_DETECTOR, WAV2LIP, Architecture, NetworkWeights, load_weights
from inference.weights.openvino_files import read_openvino
from inference.weights.registry import LIP_SYNC, REGISTRY
from inference.weights.registry import S3FD as S3FD_SET
from inference.weights.resolve import DEFAULT_SETS, OPENVINO_SUFFIX, ResolvedWeights, find_weights, from_path
from inference.weights.sources import WeightSources
from inference.weights.user_supplied import find_user_supplied

# Half the time of f32; with random weights the outputs differ by half a level of 255 on average, by 5 at most.
DEFAULT_CPU_PRECISION = "bf16"
TENSORRT_BATCH = 64  # frames in one call of an engine; of more, the network makes several
Network = Callable[..., Sequence[Array]]


@dataclass(frozen=True)
class Generator:
    """A Wav2Lip checkpoint that is ready to run.

    name: part of the names of its output files. notice: about its licence.
    """

    name: str
    sha256: str
    network: Network
    notice: str | None

    def generate_faces(self, mels: Array, faces: Array) -> Array:
        """Generate (B, 3, 96, 96) float32 faces, BGR 0..1; see `Wav2Lip.forward`."""
        return self.network(mels, faces)[0]


def load_generators(checkpoints: list[str | Path] | None, device: Device, sources: WeightSources) -> list[Generator]:
    """Load one generator per checkpoint; None: those of the deployment, else the starter.

    Raises: InvalidRequest, WeightsNotFound, WrongWeights, AccessDenied, StorageError.
    """
    names_or_paths = (
        list(dict.fromkeys(map(str, checkpoints))) if checkpoints is not None else find_deployed_checkpoints(sources)
    )
    if not names_or_paths:
        raise InvalidRequest("no checkpoint; expected at least one")
    generators = [load_generator(one, device, sources) for one in names_or_paths]
    names = [one.name for one in generators]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"two checkpoints are called {name!r}; rename one: output files are named after them")
    return generators


def find_deployed_checkpoints(sources: WeightSources) -> list[str]:
    """Return the checkpoints that the deployment names, else the user-supplied sets that it has.

    Without any of these, the set that ships with Viseme.
    """
    if sources.checkpoints:
        return list(sources.checkpoints)
    found = []
    for one in REGISTRY.values():
        if one.is_user_supplied and one.task == LIP_SYNC:
            try:
                find_user_supplied(one, sources)
            except WeightsNotFound:
                continue
            found.append(one.name)
    return found or [DEFAULT_SETS[LIP_SYNC]]


def load_generator(checkpoint: str, device: Device, sources: WeightSources) -> Generator:
    """Load one checkpoint: the name of a set, a path, or a URL."""
    found = find_checkpoint(checkpoint, sources)
    is_openvino = found.path.suffix == OPENVINO_SUFFIX
    network, made_from = (
        load_openvino(found, WAV2LIP, device, sources.compiled)
        if is_openvino
        else (load_tensors(found, device, sources.compiled), None)
    )
    # The published files have no known hash: they are recognised by their names.
    registered = REGISTRY.get(made_from or "") or found.weight_set or REGISTRY.get(found.path.stem)
    return Generator(Path(found.label).stem, found.sha256, network, registered.notice if registered else None)


def load_tensors(found: ResolvedWeights, device: Device, compiled: Path | None) -> Network:
    weights = load_weights(found.path, WAV2LIP)
    if device.precision == "int8":
        raise not_quantised(found.label, "--checkpoint")
    return compile_network(weights, resolve_auto_precision(device, DEFAULT_CPU_PRECISION), compiled)


def load_openvino(
    found: ResolvedWeights, architecture: Architecture, device: Device, compiled: Path | None = None
) -> tuple[Network, str | None]:
    """Load a network in OpenVINO's format.

    Returns: the network, and the name of the weights it was converted from, as its file states.
    """
    check_on_cpu(found.label, device)
    stored = read_openvino(found.path, architecture)
    if stored.is_int8 and device.precision == "auto":
        device = replace(device, precision="int8")  # on every CPU: the file has no other precision
    device = resolve_auto_precision(device, DEFAULT_CPU_PRECISION)
    check_stored_precision(found.label, device, is_int8=stored.is_int8)
    return OpenVinoNetwork(stored.model, device.precision, count_threads(wanted_threads()), compiled), stored.weights


def find_checkpoint(checkpoint: str, sources: WeightSources) -> ResolvedWeights:
    registered = REGISTRY.get(checkpoint)
    if registered is not None and registered.is_user_supplied:
        return from_path(find_user_supplied(registered, sources), registered.name)
    return find_weights(checkpoint, LIP_SYNC, sources)


def find_s3fd(weights: str | Path | None, sources: WeightSources) -> ResolvedWeights:
    """Find S3FD, the face detector of upstream, by path or in the deployment. Raises: WeightsNotFound."""
    if weights is None:
        return from_path(find_user_supplied(S3FD_SET, sources), S3FD_SET.name)
    return find_weights(weights, S3FD_SET.task, sources)


def load_s3fd(found: ResolvedWeights, device: Device) -> S3fdDetector:
    """Load S3FD, in float32 for every precision of lip sync. Raises: WrongWeights."""
    device = Device(device.name, "f32")
    if found.path.suffix == OPENVINO_SUFFIX:
        return S3fdDetector(load_openvino(found, S3FD_DETECTOR, device)[0])
    return S3fdDetector(compile_network(load_weights(found.path, S3FD_DETECTOR), device))


def compile_network(weights: NetworkWeights, device: Device, compiled: Path | None = None) -> Network:
    """Compile a network for its device: by OpenVINO on a CPU, which takes half of torch's time, by torch on a GPU.

    If the device's engine is TensorRT and it can run here, by that.
    """
    if device.engine == TENSORRT and (network := try_tensorrt(trace(weights), device, compiled)) is not None:
        return network
    if device.name != "cpu":
        from inference.backends.torch_network import TorchNetwork

        return TorchNetwork(weights.make_module(), device)
    return OpenVinoNetwork(weights.build(), device.precision, count_threads(wanted_threads()), compiled)


def trace(weights: NetworkWeights) -> TracedNetwork:
    """Return what TensorRT needs of a network."""
    found = weights.architecture
    examples = (np.zeros(shape, np.float32) for shape in found.example(weights.sizes))
    return TracedNetwork(
        make=weights.make_module,
        name=f"{found.name} {weights.sizes}",
        arrays=weights.arrays,
        inputs=dict(zip(found.inputs, examples, strict=True)),
        outputs=found.outputs,
        max_batch=TENSORRT_BATCH,
    )
