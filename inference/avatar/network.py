"""The two networks of an avatar: the audio encoder and the generator."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from inference.backends import Device, OpenVinoNetwork, TorchNetwork, resolve_auto_precision
from inference.backends.batching import BatchingNetwork
from inference.backends.cuda_graph import BATCH_SIZES, CudaGraphNetwork
from inference.backends.graphs.avatar import build_encoder, build_generator
from inference.errors import InvalidRequest, WrongWeights
from inference.models import AudioVisualEncoder, AvatarGenerator, AvatarUNet
from inference.models.avatar_unet import FACE_SIDE
from inference.weights.architectures import ENCODER_PREFIX, new_encoder, new_unet
from inference.weights.checkpoint import Tensors, fill_module, read_tensors
from inference.weights.onnx_avatar import encoder_from_onnx, unet_from_onnx

Module = TypeVar("Module", bound=nn.Module)

PRECISIONS = ("auto", "f32", "f16", "bf16")
CPU_PRECISION = "bf16"  # used for "auto" on a CPU; half the time of f32
ONNX_SUFFIX = ".onnx"
MAX_CHANNELS = 2048  # wider networks are rejected


def read_unet(path: Path, mode: str | None = None) -> AvatarUNet:
    """Read a U-Net of any width from a checkpoint: tensors, bare or nested, or an ONNX file.

    mode: if None, the mode that the file indicates; the tensors of hubert look like those of ave, and count as ave.

    Raises: WeightsNotFound, WrongWeights.
    """
    if path.suffix == ONNX_SUFFIX:
        tensors, found = unet_from_onnx(path)
        if mode not in (None, found):
            raise WrongWeights(f"{path}: its strides are those of mode {found}; expected {mode}")
        mode = found
    else:
        tensors = read_tensors(path)
    check_widths(tensors, path.name)
    return load_checked(new_unet(tensors, mode), tensors, path.name)


def read_encoder(path: Path) -> AudioVisualEncoder:
    """Read the audio encoder from a checkpoint, with or without the prefix `audio_encoder.`, or from ONNX.

    Raises: WeightsNotFound, WrongWeights.
    """
    tensors = encoder_from_onnx(path) if path.suffix == ONNX_SUFFIX else read_tensors(path)
    if not any(key.startswith(ENCODER_PREFIX) for key in tensors):
        tensors = {ENCODER_PREFIX + key: value for key, value in tensors.items()}
    tensors = {key: value for key, value in tensors.items() if key.startswith(ENCODER_PREFIX)}
    check_widths(tensors, path.name)
    return load_checked(new_encoder(tensors), tensors, path.name)


def check_widths(tensors: Tensors, file: str) -> None:
    """Raise WrongWeights if a tensor is too wide: such a network would exhaust the memory."""
    for key, value in tensors.items():
        if value.dim() and max(value.shape) > 2 * MAX_CHANNELS:
            raise WrongWeights(f"{file}: {key} has shape {list(value.shape)}; at most {2 * MAX_CHANNELS} wide expected")


def load_checked(module: Module, tensors: Tensors, file: str) -> Module:
    fill_module(module, tensors, file)
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise WrongWeights(f"{file}: {key} contains values that are not finite")
    return module.eval()


def make_generator(unet: AvatarUNet, device: Device, n_threads: int = 0) -> BatchingNetwork:
    """Make the generator: (1, 320, 320, 3) uint8 BGR faces and (1, *audio_shape) float32 to (1, 320, 320, 3) uint8 BGR.

    Any number of threads may call it at once. A CPU runs the calls one after another on all cores; a GPU batches them.

    n_threads: CPU threads per call; 0 for all. Raises: InvalidRequest for int8, which was never measured.
    """
    if device.precision not in PRECISIONS:
        raise InvalidRequest(f"precision {device.precision!r}: avatars run in {', '.join(PRECISIONS)}")
    module = AvatarGenerator(unet)
    device = resolve_auto_precision(device, CPU_PRECISION)
    if device.name != "cpu":
        examples = (torch.zeros(1, FACE_SIDE, FACE_SIDE, 3, dtype=torch.uint8), torch.zeros(1, *unet.audio_shape))
        return BatchingNetwork(CudaGraphNetwork(module, device, examples), BATCH_SIZES[-1])
    return BatchingNetwork(OpenVinoNetwork(build_generator(module), device.precision, n_threads))


def make_audio_encoder(encoder: AudioVisualEncoder, device: Device) -> BatchingNetwork:
    """Make the audio encoder: (1, 1, 80, 16) float32 mels to (1, features) float32.

    It runs in float32 everywhere; a call takes 2 ms on a CPU.
    """
    if device.name != "cpu":
        return BatchingNetwork(TorchNetwork(encoder, Device(device.name, "f32")))
    return BatchingNetwork(OpenVinoNetwork(build_encoder(encoder, 1), "f32", n_threads=1))
