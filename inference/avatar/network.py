"""The two networks of an avatar: one hears, the other paints."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from inference.backends import Device, OpenVinoNetwork, TorchNetwork, settle
from inference.backends.cuda_graph import BATCHES, CudaGraphNetwork
from inference.backends.graphs.avatar import build_encoder, build_painter
from inference.backends.shared import SharedNetwork
from inference.conversion.onnx_avatar_import import encoder_from_onnx, unet_from_onnx
from inference.errors import InvalidRequest, WrongWeights
from inference.models import AudioVisualEncoder, AvatarPainter, AvatarUNet
from inference.models.avatar_unet import FACE_SIDE
from inference.weights.checkpoint import Tensors, check_keys, read_tensors

Module = TypeVar("Module", bound=nn.Module)

PRECISIONS = ("auto", "f32", "f16", "bf16")
CPU_PRECISION = "bf16"  # half the time of f32
ONNX_SUFFIX = ".onnx"
ENCODER_PREFIX = "audio_encoder."  # which published encoders lack
MAX_CHANNELS = 2048  # channels: a file that asks for more is no avatar's


def read_unet(path: Path, mode: str | None = None) -> AvatarUNet:
    """The U-Net with the weights of a checkpoint, in any widths: tensors, bare or nested, or an ONNX file of it.

    mode: None takes the one that the file tells; of tensors alone, hubert's look like those of ave.
    Raises: WeightsNotFound, WrongWeights.
    """
    if path.suffix == ONNX_SUFFIX:
        tensors, found = unet_from_onnx(path)
        if mode not in (None, found):
            raise WrongWeights(f"{path}: its strides are those of the mode {found}; expected {mode}")
        mode = found
    else:
        tensors = read_tensors(path)
    check_widths(tensors, path.name)
    try:
        module = AvatarUNet.like(tensors, mode)
    except (KeyError, IndexError, ValueError, RuntimeError):
        module = AvatarUNet(mode or "ave")  # another network's tensors: the check below names them
    return load_checked(module, tensors, path.name)


def read_encoder(path: Path) -> AudioVisualEncoder:
    """The encoder of the mel with the weights of a checkpoint, with or without the prefix `audio_encoder.`, or of ONNX.

    Raises: WeightsNotFound, WrongWeights.
    """
    tensors = encoder_from_onnx(path) if path.suffix == ONNX_SUFFIX else read_tensors(path)
    if not any(key.startswith(ENCODER_PREFIX) for key in tensors):
        tensors = {ENCODER_PREFIX + key: value for key, value in tensors.items()}
    tensors = {key: value for key, value in tensors.items() if key.startswith(ENCODER_PREFIX)}
    check_widths(tensors, path.name)
    try:
        module = AudioVisualEncoder.like(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError):
        module = AudioVisualEncoder()
    return load_checked(module, tensors, path.name)


def check_widths(tensors: Tensors, file: str) -> None:
    """Raises: WrongWeights where a network of such widths would take what memory there is."""
    for key, value in tensors.items():
        if value.dim() and max(value.shape) > 2 * MAX_CHANNELS:
            raise WrongWeights(f"{file}: {key} has shape {list(value.shape)}; at most {2 * MAX_CHANNELS} wide expected")


def load_checked(module: Module, tensors: Tensors, file: str) -> Module:
    check_keys(tensors, module.state_dict(), file, type(module).__name__)
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise WrongWeights(f"{file}: {key} holds numbers that are not finite")
    module.load_state_dict({key: value.float() for key, value in tensors.items()})
    return module.eval()


def make_generator(unet: AvatarUNet, device: Device, n_threads: int = 0) -> SharedNetwork:
    """(1, 320, 320, 3) uint8 BGR faces and (1, *audio_shape) float32 into (1, 320, 320, 3) uint8 that speak.

    By any threads at once. On a CPU one after the other, by all cores; on a GPU several in one batch.
    n_threads: of one call on a CPU; 0 for all.
    Raises: InvalidRequest for int8, which nothing was measured for.
    """
    if device.precision not in PRECISIONS:
        raise InvalidRequest(f"precision {device.precision!r}: avatars run in {', '.join(PRECISIONS)}")
    module = AvatarPainter(unet)
    device = settle(device, CPU_PRECISION)
    if device.name != "cpu":
        examples = (torch.zeros(1, FACE_SIDE, FACE_SIDE, 3, dtype=torch.uint8), torch.zeros(1, *unet.audio_shape))
        return SharedNetwork(CudaGraphNetwork(module, device, examples), BATCHES[-1])
    return SharedNetwork(OpenVinoNetwork(build_painter(module), device.precision, n_threads))


def make_audio_encoder(encoder: AudioVisualEncoder, device: Device) -> SharedNetwork:
    """(1, 1, 80, 16) float32 mels into (1, features) float32, in float32 everywhere: it takes 2 ms on a CPU."""
    if device.name != "cpu":
        return SharedNetwork(TorchNetwork(encoder, Device(device.name, "f32")))
    return SharedNetwork(OpenVinoNetwork(build_encoder(encoder, 1), "f32", n_threads=1))
