"""A network from a mel window to the mouth, with the phoneme as a second task."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.models.wav2lip import Conv2d
from training.common.mouth_examples import (
    BILABIALS,
    CLASS_NUMBERS,
    PHONEME_CLASSES,
    SHAPES,
    UNKNOWN,
    MouthBatch,
)

# Weights of the parts of the loss. An opening differs by some 0.3, height and width by 1.
OPENING_WEIGHT, FORM_WEIGHT, CONTACT_WEIGHT, CLASS_WEIGHT = 8.0, 0.25, 0.25, 0.15
BILABIAL_WEIGHT = 3.0  # weight of an opening on b, m, p, against 1
SMOOTH_L1_BETA = 0.5  # smaller errors count by their square


class MouthPrediction(NamedTuple):
    """shapes: (B, 3) opening, height and width; the opening is below 0 if lips are pressed together.

    contacts: (B,) logits of lips that touch as in b, m, p. classes: (B, n) logits of PHONEME_CLASSES.
    """

    shapes: Tensor
    contacts: Tensor
    classes: Tensor


class SpeechEncoder(nn.Module):
    """Layers of Wav2Lip's audio encoder, all but its last, and linear readouts of the mouth and of the phoneme.

    The first output of these layers is the opening, before its ReLU. So the network itself draws no opening below 0 as
    one: lips that it expects to be pressed together are shut, and its last layer can be computed from the readouts.
    """

    def __init__(self, layers: nn.Sequential, n_features: int) -> None:
        super().__init__()
        self.layers = layers
        self.form = nn.Linear(n_features, len(SHAPES) - 1)
        self.contact = nn.Linear(n_features, 1)
        self.phoneme = nn.Linear(n_features, len(PHONEME_CLASSES))

    def forward(self, mels: Tensor) -> MouthPrediction:
        """Predict mouths from windows (B, 1, 80, 16)."""
        before = cast(Conv2d, self.layers[-1]).conv_block(self.layers[:-1](mels)).flatten(1).float()
        features = torch.relu(before)
        shapes = torch.cat([before[:, :1], self.form(features)], dim=1)
        return MouthPrediction(shapes, self.contact(features)[:, 0], self.phoneme(features))

    @torch.no_grad()
    def shape_readout(self) -> tuple[Tensor, Tensor]:
        """Return weight (3, n_features) and bias (3,) that read the shape out of the layers' outputs, after ReLU."""
        weight = torch.zeros(len(SHAPES), self.form.in_features)
        weight[0, 0] = 1
        weight[1:] = self.form.weight
        return weight, torch.cat([torch.zeros(1), self.form.bias])


def prediction_loss(found: MouthPrediction, batch: MouthBatch) -> Tensor:
    """Return the loss of a batch; what is unknown of an example does not count."""
    bilabial = torch.tensor(sorted(CLASS_NUMBERS[name] for name in BILABIALS))
    is_bilabial, is_known = torch.isin(batch.classes, bilabial).float(), (batch.classes != UNKNOWN).float()
    errors = functional.smooth_l1_loss(found.shapes, batch.shapes, beta=SMOOTH_L1_BETA, reduction="none") * batch.known
    opening = (errors[:, 0] * (1 + (BILABIAL_WEIGHT - 1) * is_bilabial)).mean()
    form = errors[:, 1:].sum() / batch.known[:, 1:].sum().clamp_min(1)
    contact = functional.binary_cross_entropy_with_logits(found.contacts, is_bilabial, weight=is_known)
    classes = functional.cross_entropy(found.classes, batch.classes, ignore_index=UNKNOWN)
    loss = OPENING_WEIGHT * opening + FORM_WEIGHT * form + CONTACT_WEIGHT * contact
    return loss + CLASS_WEIGHT * torch.nan_to_num(classes)  # NaN if the batch has no phoneme at all
