"""The two networks of an avatar: the audio encoder and the generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from inference.backends import TENSORRT, Device, OpenVinoNetwork, resolve_auto_precision
from inference.backends.batching import BatchingNetwork, Network
from inference.backends.device import count_threads
from inference.backends.graphs.avatar import build_encoder, build_generator
from inference.backends.parallel_network import ParallelNetwork
from inference.backends.tensorrt_network import TracedNetwork, try_tensorrt
from inference.dimensions.avatar import FACE_SIDE
from inference.errors import InvalidRequest, WrongWeights
from inference.settings import wanted_threads
from inference.weights.architectures import (
    AUDIO_ENCODER,
    AVATAR_UNET,
    ENCODER_PREFIX,
    Architecture,
    NetworkWeights,
    Sizes,
)
from inference.weights.checkpoint import Arrays, fit_arrays, read_arrays
from inference.weights.onnx_avatar import encoder_from_onnx, unet_from_onnx

if TYPE_CHECKING:
    from inference.backends.cuda_graph import CudaGraphNetwork
    from inference.models import AvatarGenerator

PRECISIONS = ("auto", "f32", "f16", "bf16")
CPU_PRECISION = "bf16"  # used for "auto" on a CPU; half the time of f32
NARROW_WIDTH = 8  # channels of the largest map, of the starter; such a U-Net takes 30 ms on one core in float32
MAX_PARALLEL = 8  # calls of a narrow U-Net at a time
ANY_BATCH = -1  # size of a graph's batch
TENSORRT_BATCH = 8  # frames of several sessions in one call
ONNX_SUFFIX = ".onnx"
MAX_CHANNELS = 2048  # wider networks are rejected


def read_unet(path: Path, mode: str | None = None) -> NetworkWeights:
    """Read a U-Net of any width from a checkpoint: tensors, bare or nested, or an ONNX file.

    mode: if None, the mode that the file indicates; the tensors of hubert look like those of ave, and count as ave.

    Returns: its weights; their sizes are `UNetDimensions`. Raises: WeightsNotFound, WrongWeights.
    """
    if path.suffix == ONNX_SUFFIX:
        arrays, found = unet_from_onnx(path)
        if mode not in (None, found):
            raise WrongWeights(f"{path}: its strides are those of mode {found}; expected {mode}")
        mode = found
    else:
        arrays = read_arrays(path)
    check_widths(arrays, path.name)
    sizes = AVATAR_UNET.sizes_of(arrays)
    return check_weights(AVATAR_UNET, replace(sizes, mode=mode or sizes.mode), arrays, path.name)


def read_encoder(path: Path) -> NetworkWeights:
    """Read the audio encoder from a checkpoint, with or without the prefix `audio_encoder.`, or from ONNX.

    Returns: its weights; their sizes are the channels of each block. Raises: WeightsNotFound, WrongWeights.
    """
    arrays = encoder_from_onnx(path) if path.suffix == ONNX_SUFFIX else read_arrays(path)
    if not any(key.startswith(ENCODER_PREFIX) for key in arrays):
        arrays = {ENCODER_PREFIX + key: value for key, value in arrays.items()}
    arrays = {key: value for key, value in arrays.items() if key.startswith(ENCODER_PREFIX)}
    check_widths(arrays, path.name)
    return check_weights(AUDIO_ENCODER, AUDIO_ENCODER.sizes_of(arrays), arrays, path.name)


def check_widths(arrays: Arrays, file: str) -> None:
    """Raise WrongWeights if a tensor is too wide: such a network would exhaust the memory."""
    for key, value in arrays.items():
        if value.ndim and max(value.shape) > 2 * MAX_CHANNELS:
            raise WrongWeights(f"{file}: {key} has shape {list(value.shape)}; at most {2 * MAX_CHANNELS} wide expected")


def check_weights(architecture: Architecture, sizes: Sizes, arrays: Arrays, file: str) -> NetworkWeights:
    fitting = fit_arrays(arrays, architecture.shapes(sizes), file, architecture.name)
    for key, value in arrays.items():
        if not np.isfinite(value).all():
            raise WrongWeights(f"{file}: {key} contains values that are not finite")
    return NetworkWeights(architecture, sizes, fitting)


def make_generator(
    unet: NetworkWeights,
    device: Device,
    n_threads: int | None = None,
    compiled: Path | None = None,
    max_batch: int | Literal["auto"] = "auto",
    *,
    is_shared: bool = False,
) -> Network:
    """Make the generator: (1, 320, 320, 3) uint8 BGR faces and (1, *audio_shape) float32 to (1, 320, 320, 3) uint8 BGR.

    Any number of threads may call it at once. A CPU runs the calls one after another on all cores; a GPU batches them.
    is_shared: whether frames are rendered at the same time. Then a CPU runs each call of a narrow U-Net on one core,
    and as many as it has cores at a time: see `ParallelNetwork`.

    n_threads: CPU threads per call; None for the limit of the process, else all cores. compiled: folder of compiled
    networks. max_batch: calls in a batch; by default one on a CPU, where a batch takes as long as its frames alone, and
    all that a GPU has graphs for.
    Raises: InvalidRequest for int8, which was never measured.
    """
    if device.precision not in PRECISIONS:
        raise InvalidRequest(f"precision {device.precision!r}: avatars run in {', '.join(PRECISIONS)}")
    device = resolve_auto_precision(device, CPU_PRECISION)
    if device.engine == TENSORRT and (engine := try_tensorrt(trace_generator(unet), device, compiled)) is not None:
        return BatchingNetwork(engine, TENSORRT_BATCH if max_batch == "auto" else max_batch)
    if device.name != "cpu":
        from inference.backends.cuda_graph import BATCH_SIZES

        most = BATCH_SIZES[-1] if max_batch == "auto" else min(max_batch, BATCH_SIZES[-1])
        return BatchingNetwork(record_generator(unet, device), most)
    most = 1 if max_batch == "auto" else max_batch
    graph = build_generator(unet.arrays, unet.sizes, 1 if most == 1 else ANY_BATCH)
    n_threads = n_threads or count_threads(wanted_threads())
    if is_shared and most == 1 and unet.sizes.widths[0] <= NARROW_WIDTH:
        return ParallelNetwork(graph, device.precision, min(n_threads, MAX_PARALLEL))
    return BatchingNetwork(OpenVinoNetwork(graph, device.precision, n_threads, compiled), most)


def trace_generator(unet: NetworkWeights) -> TracedNetwork:
    """Return what TensorRT needs of the generator."""
    face = np.zeros((1, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    return TracedNetwork(
        make=lambda: make_image_generator(unet),
        name=f"AvatarGenerator {unet.sizes}",
        arrays=unet.arrays,
        inputs={"face": face, "audio": np.zeros((1, *unet.sizes.audio_shape), np.float32)},
        outputs=("faces",),
        max_batch=TENSORRT_BATCH,
    )


def make_image_generator(unet: NetworkWeights) -> AvatarGenerator:
    """Make the module of the generator."""
    from inference.models import AvatarGenerator

    return AvatarGenerator(unet.make_module()).eval()  # type: ignore[arg-type]


def record_generator(unet: NetworkWeights, device: Device) -> CudaGraphNetwork:
    """Record the generator as a CUDA graph."""
    import torch

    from inference.backends.cuda_graph import CudaGraphNetwork

    face_shape, audio_shape = (1, FACE_SIDE, FACE_SIDE, 3), (1, *unet.sizes.audio_shape)
    examples = (torch.zeros(face_shape, dtype=torch.uint8), torch.zeros(audio_shape))
    return CudaGraphNetwork(make_image_generator(unet), device, examples)


def make_audio_encoder(encoder: NetworkWeights, device: Device, compiled: Path | None = None) -> BatchingNetwork:
    """Make the audio encoder: (1, 1, 80, 16) float32 mels to (1, features) float32.

    It runs in float32 everywhere; a call takes 2 ms on a CPU.
    """
    if device.name != "cpu":
        from inference.backends.torch_network import TorchNetwork

        return BatchingNetwork(TorchNetwork(encoder.make_module(), Device(device.name, "f32")))
    return BatchingNetwork(OpenVinoNetwork(build_encoder(encoder.arrays, 1), "f32", 1, compiled))
