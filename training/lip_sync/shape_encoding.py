"""The layer between the halves of a narrow Wav2Lip: it is computed, not trained.

The audio half predicts the shape of a mouth, and the drawing half draws that of a given shape. A shape is three
numbers, and the audio encoder has 256 outputs, so that shapes are encoded in them in a fixed way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from inference.models import Wav2Lip
from inference.models.wav2lip import Conv2d
from training.common.mouth_examples import SHAPES
from training.common.speech_encoder import SpeechEncoder
from training.lip_sync.widths import N_FEATURES

MAX_KINK = 2.0  # range of a shape's numbers in which the numbers that encode it begin to rise
SHUT, WIDEST = -0.9, 2.5  # how an opening of 0 and of 1 is encoded: about as far from its mean as height and width are
TALL = 0.5  # height is predicted less surely than the opening, and lips that are drawn open must be drawn higher


class ShapeEncoding(nn.Module):
    """A fixed encoding of a shape in the audio encoder's outputs.

    Each number is the ReLU of a random mixture of the shape, less a random offset.
    """

    mixture: Tensor  # (N_FEATURES, 3)
    kink: Tensor  # (N_FEATURES,)

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.register_buffer("mixture", torch.from_numpy(rng.normal(size=(N_FEATURES, len(SHAPES))).astype(np.float32)))
        kinks = rng.uniform(-MAX_KINK, MAX_KINK, N_FEATURES)
        self.register_buffer("kink", torch.from_numpy(kinks.astype(np.float32)))

    def forward(self, shapes: Tensor) -> Tensor:
        """Encode shapes (B, 3) as the audio encoder outputs them: (B, N_FEATURES, 1, 1)."""
        features: Tensor = torch.relu(shapes @ self.mixture.T - self.kink)[..., None, None]
        return features

    @torch.no_grad()
    def set_last_layer(self, encoder: nn.Sequential, weight: Tensor, bias: Tensor) -> None:
        """Set an encoder's last layer to encode the shape that is read out of the layer before it.

        weight: (3, N_FEATURES) and bias: (3,) of the readout.
        """
        conv, norm = layers_of(encoder[-1])
        conv.weight.copy_((self.mixture @ weight)[..., None, None])
        cast(Tensor, conv.bias).copy_(self.mixture @ bias - self.kink)
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.zero_()


def spread(shapes: Tensor) -> Tensor:
    """Return shapes (B, 3) of `training.lip_sync.samples.own_shapes` as the encoding takes them."""
    return torch.cat([SHUT + (WIDEST - SHUT) * shapes[:, :1], shapes[:, 1:]], dim=1)


@dataclass(frozen=True)
class OpeningMap:
    """From a predicted mouth to a shape as the encoding takes it.

    shut, widest: what an opening of 0 and of 1 becomes. offset: subtracted from the opening before it is cut
    off at 0, so that lips which are expected to be nearly shut are shut. form: factor of height and width. tall: share
    of the opening that is added to the height, as lips become higher when they open.
    """

    shut: float = SHUT
    widest: float = WIDEST
    offset: float = 0.0
    form: float = 1.0
    tall: float = 0.0


@torch.no_grad()
def set_audio_half(network: Wav2Lip, encoder: SpeechEncoder, encoding: ShapeEncoding, opening: OpeningMap) -> None:
    """Make an encoder the audio half of a network whose other half draws the shapes of an encoding."""
    network.audio_encoder[:-1].load_state_dict(encoder.layers.state_dict())
    _, norm = layers_of(network.audio_encoder[-2])
    norm.bias[0] -= opening.offset
    weight, bias = encoder.shape_readout()
    factors = torch.tensor([opening.widest - opening.shut, opening.form, opening.form])
    weight, bias = weight * factors[:, None], bias * factors
    bias[0] += opening.shut
    weight[1] += opening.tall * weight[0]
    bias[1] += opening.tall * bias[0]
    encoding.set_last_layer(network.audio_encoder, weight, bias)


def layers_of(block: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return the convolution and the batch norm of one of Wav2Lip's blocks."""
    conv, norm = cast(Conv2d, block).conv_block
    return cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)
