"""The networks that lip sync runs, loaded from what the user brought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from inference.backends import Device, OpenVinoNetwork, TorchNetwork, settle
from inference.backends.openvino import Array, trace
from inference.errors import InvalidRequest, WeightsNotFound
from inference.faces.s3fd import S3fdDetector
from inference.models import S3FD, Wav2Lip, Wav2LipWidths
from inference.models.wav2lip import FACE_CHANNELS, FACE_SIDE, MEL_COLUMNS, MEL_ROWS
from inference.weights.brought import find_brought
from inference.weights.find import FoundWeights, find_weights, from_path
from inference.weights.registry import LIP_SYNC, REGISTRY
from inference.weights.registry import S3FD as S3FD_SET
from inference.weights.sources import WeightSources
from inference.weights.tensors import check_keys, load_into, read_tensors

NONE_SHIPPED = (
    "no lip-sync weights come with Viseme yet: give a Wav2Lip checkpoint of your own by its path or s3://bucket/key "
    "(--checkpoint wav2lip.pth), or put wav2lip.pth or wav2lip_gan.pth into SM_MODEL_DIR. The published ones are at "
    "Rudrabha/Wav2Lip on GitHub, for research and personal use only"
)
NOT_SHIPPED = "starter"
PRECISIONS = ("auto", "f32", "f16", "bf16")
BEST_ON_CPU = "bf16"  # half the time of f32; with random weights half a level of 255 apart on average, 5 at most
WAV2LIP_EXAMPLE = (torch.zeros(1, 1, MEL_ROWS, MEL_COLUMNS), torch.zeros(1, FACE_CHANNELS, FACE_SIDE, FACE_SIDE))
S3FD_EXAMPLE = (torch.zeros(1, 3, 96, 96),)
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
    """One for each checkpoint; None: those that the deployment brought.

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
    """The brought sets that are there."""
    found = []
    for one in REGISTRY.values():
        if one.is_brought and one.job == LIP_SYNC:
            try:
                find_brought(one, sources)
            except WeightsNotFound:
                continue
            found.append(one.name)
    if not found:
        raise WeightsNotFound(NONE_SHIPPED)
    return found


def load_generator(checkpoint: str, device: Device, sources: WeightSources) -> Generator:
    found = find_checkpoint(checkpoint, sources)
    tensors = read_tensors(found.path)
    try:
        module = Wav2Lip(Wav2LipWidths.of(tensors))
    except (KeyError, IndexError, ValueError, RuntimeError):
        module = Wav2Lip()  # another network's tensors: the check below names them
    check_keys(tensors, module.state_dict(), found.path.name, "Wav2Lip")
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    known = next((one for one in REGISTRY.values() if one.files[0].name == found.path.name), None)
    notice = known.notice if known else None
    return Generator(Path(found.label).stem, found.sha256, make_ready(module, device, WAV2LIP_EXAMPLE), notice)


def find_checkpoint(checkpoint: str, sources: WeightSources) -> FoundWeights:
    known = REGISTRY.get(checkpoint)
    if known is not None and known.is_brought:
        return from_path(find_brought(known, sources), known.name)
    if checkpoint == NOT_SHIPPED and not Path(checkpoint).is_file():
        raise WeightsNotFound(NONE_SHIPPED)
    return find_weights(checkpoint, LIP_SYNC, sources)


def find_s3fd(weights: str | Path | None, sources: WeightSources) -> FoundWeights:
    """Upstream's face detector, from a path, or from where the deployment brought it. Raises: WeightsNotFound."""
    if weights is None:
        return from_path(find_brought(S3FD_SET, sources), S3FD_SET.name)
    return find_weights(weights, S3FD_SET.job, sources)


def load_s3fd(found: FoundWeights, device: Device) -> S3fdDetector:
    """Raises: WrongWeights."""
    module = S3FD()
    load_into(module, found.path)
    return S3fdDetector(make_ready(module, Device(device.name, "f32"), S3FD_EXAMPLE))


def make_ready(module: nn.Module, device: Device, examples: tuple[Tensor, ...]) -> Network:
    """The module on that device: OpenVINO's on a CPU, where it takes half of torch's time, torch's on a GPU.

    Raises: InvalidRequest for int8, which nothing was measured for.
    """
    if device.precision not in PRECISIONS:
        raise InvalidRequest(f"precision {device.precision!r}: lip sync runs in {', '.join(PRECISIONS)}")
    device = settle(device, BEST_ON_CPU)
    if device.name != "cpu":
        return TorchNetwork(module, device)
    return OpenVinoNetwork(trace(module, examples), device.precision, n_threads=0)
