"""Super-resolution of mouths: Wav2Lip generates faces of 96 x 96 pixels, and most faces in videos are larger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from inference.backends import Device
from inference.backends.torch_network import TorchNetwork
from inference.errors import InvalidRequest, WrongWeights
from inference.faces.paste import FADE_FROM
from inference.lip_sync.compose import FaceFrameBatch
from inference.lip_sync.options import EnhancerName
from inference.lip_sync.preprocess import FACE_SIZE
from inference.media import Frame
from inference.weights.checkpoint import abbreviate
from inference.weights.fetch import fetch
from inference.weights.registry import SWIN2SR
from inference.weights.sources import WeightSources

if TYPE_CHECKING:
    from transformers import Swin2SRForImageSuperResolution

MOUTH_ROWS = slice(int(FACE_SIZE * FADE_FROM), FACE_SIZE)  # rows of a face that the blend uses
MAX_LEVEL = 255
ATTENTION_WINDOW = 8  # pixels; sides are padded to whole windows
# Configuration of the published network; everything else has the defaults of transformers.
SWIN2SR_CONFIG = {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "upscale": 2}


class Enhancer(Protocol):
    """Upscales images. A new enhancer implements this and gets an entry in ENHANCERS."""

    scale: int

    def enhance(self, mouth_bgr: Frame) -> Frame:
        """Upscale (h, w, 3) uint8 BGR to (h * scale, w * scale, 3)."""


def enhance_mouths(batches: Iterable[FaceFrameBatch], enhancer: Enhancer) -> Iterator[FaceFrameBatch]:
    """Yield the batches with enhanced mouths, if the face in the video is larger than the network's."""
    for batch in batches:
        boxes = [face_frame.box for face_frame in batch.face_frames if face_frame.box is not None]
        patches = tuple(
            [
                enhance_face(face, enhancer) if box.width > FACE_SIZE else face
                for face, box in zip(faces, boxes, strict=True)
            ]
            for faces in batch.patches
        )
        yield replace(batch, patches=patches)


def enhance_face(face_bgr: Frame, enhancer: Enhancer) -> Frame:
    """Upscale a face to (96 * scale, 96 * scale, 3).

    The enhancer upscales the lower part; the rest, which the blend does not use, is bilinear.
    """
    side = FACE_SIZE * enhancer.scale
    larger = np.asarray(cv2.resize(face_bgr, (side, side)), np.uint8)
    larger[MOUTH_ROWS.start * enhancer.scale :] = enhancer.enhance(face_bgr[MOUTH_ROWS])
    return larger


class Swin2srEnhancer:
    """Swin2SR, a transformer for super-resolution. Source: transformers' Swin2SRForImageSuperResolution."""

    def __init__(self, model: Swin2SRForImageSuperResolution, device: Device) -> None:
        self.scale: int = model.config.upscale
        self._network = TorchNetwork(Reconstruction(model), device)

    def enhance(self, mouth_bgr: Frame) -> Frame:
        height, width = mouth_bgr.shape[:2]
        padded = np.pad(
            mouth_bgr, ((0, -height % ATTENTION_WINDOW), (0, -width % ATTENTION_WINDOW), (0, 0)), "symmetric"
        )
        rgb = padded[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / MAX_LEVEL
        (output,) = self._network(rgb)
        levels = np.rint(np.clip(np.nan_to_num(output[0]), 0, 1) * MAX_LEVEL).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0)[: height * self.scale, : width * self.scale, ::-1])


class Reconstruction(nn.Module):
    """Returns the upscaled image alone, for (B, 3, h, w) RGB in 0..1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor) -> Tensor:
        larger: Tensor = self.model(pixel_values=rgb).reconstruction
        return larger


def load_swin2sr(device: Device, sources: WeightSources) -> Swin2srEnhancer:
    """Load Swin2SR with its published weights, which are downloaded if they are not in the cache.

    Raises: InvalidRequest if transformers is not installed; WeightsNotFound, WrongWeights, StorageError.
    """
    transformers = import_transformers()  # before 49 MB are downloaded for it
    (path,) = fetch(SWIN2SR.name, sources)
    precision = device.precision if device.name == "cuda" else "f32"
    return Swin2srEnhancer(read_swin2sr(transformers, path), Device(device.name, precision))


def read_swin2sr(transformers: ModuleType, path: Path) -> Swin2SRForImageSuperResolution:
    """Read Swin2SR from model.safetensors alone, by the tensor names of transformers; the Hub is not contacted.

    Raises: WrongWeights if the weights are damaged, or of another network.
    """
    config = transformers.Swin2SRConfig(**SWIN2SR_CONFIG, window_size=ATTENTION_WINDOW)
    try:
        model, info = transformers.Swin2SRForImageSuperResolution.from_pretrained(
            path.parent,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as err:
        raise WrongWeights(f"{path}: not Swin2SR's weights, or damaged ({first_line(err)})") from err
    wrong_keys = [*info["missing_keys"], *info["unexpected_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if wrong_keys:
        raise WrongWeights(
            f"{path}: not a complete Swin2SR; missing, unexpected or of another shape: {abbreviate(wrong_keys)}"
        )
    output: Swin2SRForImageSuperResolution = model
    return output


def first_line(err: Exception) -> str:
    return (str(err) or type(err).__name__).splitlines()[0]


def import_transformers() -> ModuleType:
    """Import transformers. Raises: InvalidRequest if it is not installed."""
    try:
        import transformers
    except ImportError as err:
        raise InvalidRequest("--enhance swin2sr needs the package transformers: pip install 'viseme[enhance]'") from err
    module: ModuleType = transformers
    return module


ENHANCERS: dict[EnhancerName, Callable[[Device, WeightSources], Enhancer]] = {"swin2sr": load_swin2sr}


def load_enhancer(name: EnhancerName, device: Device, sources: WeightSources) -> Enhancer:
    """Load an enhancer by name. Raises: the errors of its loader."""
    return ENHANCERS[name](device, sources)
