"""Mouths made sharper: Wav2Lip's faces have 96 pixels a side, and most faces in films have more."""

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

from inference.backends import Device, TorchNetwork
from inference.errors import InvalidRequest, WrongWeights
from inference.faces.paste import FADE_FROM
from inference.lip_sync.compose import Batch
from inference.lip_sync.options import Enhance
from inference.lip_sync.preprocess import SIDE
from inference.media import Frame
from inference.weights.fetch import fetch
from inference.weights.registry import SWIN2SR
from inference.weights.sources import WeightSources
from inference.weights.checkpoint import abbreviate

if TYPE_CHECKING:
    from transformers import Swin2SRForImageSuperResolution

MOUTH = slice(int(SIDE * FADE_FROM), SIDE)  # rows of a face: all that the blend takes
LEVELS = 255
WINDOW = 8  # px; sides are filled up to whole windows
# Of the published network; the rest is as transformers has it.
SIZES = {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "upscale": 2}


class Enhancer(Protocol):
    """Shows a picture larger and sharper. Another one needs this, and an entry in ENHANCERS."""

    scale: int

    def enhance(self, mouth_bgr: Frame) -> Frame:
        """(h, w, 3) uint8 BGR in, (h * scale, w * scale, 3) out."""


def enhance_mouths(batches: Iterable[Batch], enhancer: Enhancer) -> Iterator[Batch]:
    """The batches with sharper mouths, where the face in the film is larger than the network's."""
    for batch in batches:
        boxes = [shot.box for shot in batch.shots if shot.box is not None]
        patches = tuple(
            [enhance_face(face, enhancer) if box.width > SIDE else face for face, box in zip(faces, boxes, strict=True)]
            for faces in batch.patches
        )
        yield replace(batch, patches=patches)


def enhance_face(face_bgr: Frame, enhancer: Enhancer) -> Frame:
    """The face larger, (96 * scale, 96 * scale, 3): its lower part by the enhancer, what no blend takes bilinear."""
    side = SIDE * enhancer.scale
    larger = np.asarray(cv2.resize(face_bgr, (side, side)), np.uint8)
    larger[MOUTH.start * enhancer.scale :] = enhancer.enhance(face_bgr[MOUTH])
    return larger


class Swin2sr:
    """Swin2SR, a transformer for super-resolution. Source: transformers' Swin2SRForImageSuperResolution."""

    def __init__(self, model: Swin2SRForImageSuperResolution, device: Device) -> None:
        self.scale: int = model.config.upscale
        self._network = TorchNetwork(Reconstruction(model), device)

    def enhance(self, mouth_bgr: Frame) -> Frame:
        height, width = mouth_bgr.shape[:2]
        filled = np.pad(mouth_bgr, ((0, -height % WINDOW), (0, -width % WINDOW), (0, 0)), "symmetric")
        rgb = filled[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / LEVELS
        (found,) = self._network(rgb)
        levels = np.rint(np.clip(np.nan_to_num(found[0]), 0, 1) * LEVELS).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0)[: height * self.scale, : width * self.scale, ::-1])


class Reconstruction(nn.Module):
    """(B, 3, h, w) RGB 0..1 to the larger picture alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor) -> Tensor:
        larger: Tensor = self.model(pixel_values=rgb).reconstruction
        return larger


def load_swin2sr(device: Device, sources: WeightSources) -> Swin2sr:
    """With its published weights, fetched where they are not in the cache yet.

    Raises: InvalidRequest where transformers is not installed; WeightsNotFound, WrongWeights, StorageError.
    """
    transformers = import_transformers()  # before 49 MB are fetched for it
    (path,) = fetch(SWIN2SR.name, sources)
    precision = device.precision if device.name == "cuda" else "f32"
    return Swin2sr(read_swin2sr(transformers, path), Device(device.name, precision))


def read_swin2sr(transformers: ModuleType, path: Path) -> Swin2SRForImageSuperResolution:
    """From model.safetensors alone, by transformers' own names of tensors; nothing is asked of the Hub.

    Raises: WrongWeights where they are damaged, or of another network.
    """
    config = transformers.Swin2SRConfig(**SIZES, window_size=WINDOW)
    try:
        model, said = transformers.Swin2SRForImageSuperResolution.from_pretrained(
            path.parent,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as err:
        raise WrongWeights(f"{path}: not Swin2SR's weights, or damaged ({reason_of(err)})") from err
    wrong = [*said["missing_keys"], *said["unexpected_keys"], *(key for key, *_ in said["mismatched_keys"])]
    if wrong:
        raise WrongWeights(f"{path}: not a whole Swin2SR; missing, left over or of another shape: {abbreviate(wrong)}")
    found: Swin2SRForImageSuperResolution = model
    return found


def reason_of(err: Exception) -> str:
    return (str(err) or type(err).__name__).splitlines()[0]


def import_transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as err:
        raise InvalidRequest("--enhance swin2sr needs the package transformers: pip install 'viseme[enhance]'") from err
    module: ModuleType = transformers
    return module


ENHANCERS: dict[Enhance, Callable[[Device, WeightSources], Enhancer]] = {"swin2sr": load_swin2sr}


def load_enhancer(name: Enhance, device: Device, sources: WeightSources) -> Enhancer:
    """Raises: as the loaders do."""
    return ENHANCERS[name](device, sources)
