"""The networks that `bench.gpu_check` runs, with their inputs.

Networks of trained weights show whether results stay the same; those of full size with random weights what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from container.commands.calibration_data import make_lip_reading_samples, make_lip_sync_samples
from inference.avatar import AvatarPackage
from inference.avatar.compose import cut_face
from inference.avatar.manifest import ENCODER, NETWORK
from inference.avatar.network import read_encoder, read_unet
from inference.avatar.starter import STARTER
from inference.backends import Device
from inference.backends.cuda_graph import CudaGraphNetwork
from inference.backends.openvino_network import Array
from inference.backends.torch_network import DTYPES, TorchNetwork
from inference.errors import WeightsNotFound
from inference.faces.s3fd import to_input
from inference.lip_reading.greedy_decoder import read_greedy
from inference.lip_reading.options import FPS
from inference.lip_reading.staged_network import stage_torch
from inference.lip_sync.model import find_s3fd
from inference.models import S3FD, AvatarGenerator, AvatarUNet, LipCoordNet, Wav2Lip
from inference.settings import Settings
from inference.speaker import SyntheticClip
from inference.weights.architectures import LIP_COORD_NET, S3FD_DETECTOR, WAV2LIP, Architecture, load_weights
from inference.weights.registry import LIP_SYNC, STARTER_AVATAR
from inference.weights.resolve import DEFAULT_SETS, find_weights
from training.common.synthetic_clips import draw_sentence

SEED = 5
FULL_SCALE = 255
FEATURE_ROWS = 16  # of the audio encoder, for one frame of an avatar
JOB = "lip reading"
Network = Callable[..., Sequence[Array]]
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class CheckedNetwork:
    """A network to run on the CPU and on a GPU.

    name: in the tables. unit: what one input is: a clip, a frame.
    make: makes its module, with the same weights each time. inputs: arrays (n, ...) of n different inputs.
    count_same: returns how much of two outputs is the same, from 0 to 1: texts, pixels; None if nothing is counted.
    same_is: what is counted. step: the smallest difference of two outputs, such as a level of 255.
    load: makes the network in a precision, if not as one module; it has no CUDA graph then.
    """

    name: str
    unit: str
    make: Make
    inputs: tuple[Array, ...]
    count_same: Callable[[Array, Array], float] | None = None
    same_is: str = ""
    step: float = 0.0
    load: Callable[[Device], Network] | None = None

    def run_eager(self, device: Device) -> Network:
        """Return the network as torch runs it, one launch per operator."""
        return self.load(device) if self.load is not None else TorchNetwork(self.make(), device)

    def record(self, device: Device, n_batch: int) -> Network:
        """Return the network as one recorded CUDA graph for batches of this size."""
        examples = tuple(torch.from_numpy(one[:1]) for one in self.inputs)
        module = self.make() if self.is_image_to_image else Autocast(self.make(), device)
        return CudaGraphNetwork(module, device, examples, (n_batch,))

    @property
    def is_image_to_image(self) -> bool:
        """Whether it takes bytes and casts them itself."""
        return self.inputs[0].dtype == np.uint8


class Autocast(nn.Module):
    """A module of float arrays that computes in another precision."""

    def __init__(self, module: nn.Module, device: Device) -> None:
        super().__init__()
        self.module, self._device, self._dtype = module, device.name, DTYPES[device.precision]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in float32: numpy has no bfloat16. A graph must not hold what autocast has cached."""
        is_on = self._dtype != torch.float32
        with torch.autocast(self._device, self._dtype, enabled=is_on, cache_enabled=False):
            outputs = self.module(*inputs)
        return tuple(one.float() for one in (outputs if isinstance(outputs, tuple) else (outputs,)))


def list_networks(settings: Settings, weights: str, n_inputs: int) -> dict[str, Callable[[], CheckedNetwork]]:
    """Return what makes each network, by its name on the command line."""
    return {
        "reading": lambda: make_reading(settings, weights, n_inputs),
        "reading-stages": lambda: in_stages(make_reading(settings, weights, n_inputs)),
        "wav2lip": lambda: make_wav2lip(settings, n_inputs),
        "wav2lip-full": lambda: seeded(make_wav2lip(settings, n_inputs), "Wav2Lip, full size", Wav2Lip),
        "s3fd": lambda: make_s3fd(settings, n_inputs),
        "unet": lambda: make_unet(settings, n_inputs),
        "unet-full": lambda: make_full_unet(settings, n_inputs),
        "encoder": lambda: make_encoder(settings, n_inputs),
    }


def make_reading(settings: Settings, weights: str, n_inputs: int) -> CheckedNetwork:
    """Return LipCoordNet with rendered sentences."""
    sources = settings.weight_sources
    make = maker(find_weights(weights, JOB, sources).path, LIP_COORD_NET)
    inputs = join(make_lip_reading_samples(sources, n_samples=n_inputs), n_inputs)
    return CheckedNetwork("LipCoordNet", "clip", make, inputs, count_same_texts, "texts")


def in_stages(network: CheckedNetwork) -> CheckedNetwork:
    """Return LipCoordNet as long videos run it: convolutions first, then the recurrent layers."""

    def load(device: Device) -> Network:
        module = network.make()
        assert isinstance(module, LipCoordNet)
        return replace(stage_torch(module, device), whole=None)

    return replace(network, name="LipCoordNet in stages", load=load)


def make_wav2lip(settings: Settings, n_inputs: int) -> CheckedNetwork:
    """Return the starter of lip sync with rendered faces."""
    sources = settings.weight_sources
    make = maker(find_weights(DEFAULT_SETS[LIP_SYNC], LIP_SYNC, sources).path, WAV2LIP)
    inputs = join(make_lip_sync_samples(sources), n_inputs)
    return CheckedNetwork("Wav2Lip, starter", "frame", make, inputs, count_same_pixels, "pixels")


def make_s3fd(settings: Settings, n_inputs: int) -> CheckedNetwork:
    """Return the face detector with frames of 360x288; with random weights if the user has not supplied it."""
    frames = islice(SyntheticClip(draw_sentence(0), 0).frames(), n_inputs)
    inputs = (np.concatenate([to_input(one.frame) for one in frames]),)
    try:
        make = maker(find_s3fd(None, settings.weight_sources).path, S3FD_DETECTOR)
    except WeightsNotFound:
        return CheckedNetwork("S3FD, random weights", "frame", random_maker(S3FD), inputs)
    return CheckedNetwork("S3FD", "frame", make, inputs)


def make_unet(settings: Settings, n_inputs: int) -> CheckedNetwork:
    """Return the starter avatar's generator with its own frames, and features of speech."""
    assert STARTER_AVATAR.shipped_in is not None
    unet = read_unet(STARTER_AVATAR.shipped_in / NETWORK, "ave")
    encoder = make_encoder(settings, n_inputs)
    (rows,) = TorchNetwork(encoder.make(), Device("cpu", "f32"))(take(encoder.inputs, range(FEATURE_ROWS))[0])
    features = [np.roll(rows, i, axis=0).reshape(unet.sizes.audio_shape) for i in range(n_inputs)]
    package = AvatarPackage.load(STARTER, "cpu", settings=settings)
    faces = [np.array(cut_face(package.crop(i % package.n_frames))) for i in range(n_inputs)]

    def make() -> nn.Module:
        module = unet.make_module()
        assert isinstance(module, AvatarUNet)
        return AvatarGenerator(module)

    inputs = (np.stack(faces), np.stack(features).astype(np.float32))
    return CheckedNetwork("U-Net, starter", "frame", make, inputs, count_same_pixels, "pixels", 1.0)


def make_full_unet(settings: Settings, n_inputs: int) -> CheckedNetwork:
    """Return a generator of upstream's size with random weights and random features."""
    faces = make_unet(settings, n_inputs).inputs[0]
    shape = (len(faces), *AvatarUNet().audio_shape)
    features = np.random.default_rng(SEED).random(shape, dtype=np.float32)
    make = random_maker(lambda: AvatarGenerator(AvatarUNet()))
    return CheckedNetwork("U-Net, full size", "frame", make, (faces, features), count_same_pixels, "pixels", 1.0)


def make_encoder(settings: Settings, n_inputs: int) -> CheckedNetwork:
    """Return the starter avatar's audio encoder with windows of rendered speech."""
    assert STARTER_AVATAR.shipped_in is not None
    path = STARTER_AVATAR.shipped_in / ENCODER
    mels = join(make_lip_sync_samples(settings.weight_sources), n_inputs)[0]
    return CheckedNetwork("audio encoder", "window", read_encoder(path).make_module, (mels,))


def seeded(network: CheckedNetwork, name: str, make: Make) -> CheckedNetwork:
    """Return another module with random weights for the same inputs."""
    return replace(network, name=name, make=random_maker(make))


def random_maker(make: Make) -> Make:
    """Return a function that makes a module with the same random weights each time."""

    def seed_and_make() -> nn.Module:
        torch.manual_seed(SEED)
        return make().eval()

    return seed_and_make


def maker(path: Path, architecture: Architecture) -> Make:
    """Return a function that makes the module of a file of weights."""
    return load_weights(path, architecture).make_module


def join(samples: Iterator[tuple[Array, ...]], n_inputs: int) -> tuple[Array, ...]:
    """Return the first inputs, each (1, ...), as one array per input of the network."""
    return tuple(np.concatenate(each) for each in zip(*islice(samples, n_inputs), strict=True))


def take(inputs: Sequence[Array], indices: Iterable[int]) -> tuple[Array, ...]:
    """Return the inputs of these indices; after the last one, the first comes again."""
    chosen = [i % len(inputs[0]) for i in indices]
    return tuple(np.ascontiguousarray(one[chosen]) for one in inputs)


def count_same_texts(expected: Array, found: Array) -> float:
    """Return the share of clips whose greedy texts are the same."""
    texts = ([read_greedy(one, FPS).text for one in logits] for logits in (expected, found))
    return float(np.mean([a == b for a, b in zip(*texts, strict=True)]))


def count_same_pixels(expected: Array, found: Array) -> float:
    """Return the share of values that are the same level of 0 to 255; floats are 0 to 1."""
    levels = (one if one.max() > 1 else np.round(one * FULL_SCALE) for one in (expected, found))
    return float(np.equal(*levels).mean())
