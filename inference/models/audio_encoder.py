"""The avatar's audio encoder: from a window of the mel spectrogram to the features that its U-Net takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from inference.dimensions.wav2lip import AUDIO_WIDTHS, audio_widths_of
from inference.models.wav2lip import audio_encoder


class AudioVisualEncoder(nn.Module):
    """The same layers as Wav2Lip's audio encoder.

    Source: SyncTalk_2D utils.py AudioEncoder (names, order of layers, 2,812,672 parameters).
    Deliberately different: the widths are free. Published files lack the prefix `audio_encoder.`.
    """

    def __init__(self, widths: Sequence[int] = AUDIO_WIDTHS) -> None:
        """Create the network.

        widths: channels of each block; the last is the number of features, divisible by 16 because 16 rows of them are
        the U-Net's input.
        """
        super().__init__()
        self.widths = tuple(widths)
        self.audio_encoder = audio_encoder(self.widths)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> AudioVisualEncoder:
        """Create a network with the widths of a state dict (with the prefix), but not its values.

        Raises: KeyError, IndexError if a tensor of every encoder is missing.
        """
        return cls(audio_widths_of(tensors))

    def forward(self, mel: Tensor) -> Tensor:
        """Return features (B, widths[-1]) float, not negative. mel: (B, 1, 80, 16) float, -4..4."""
        out: Tensor = self.audio_encoder(mel)
        return out[:, :, 0, 0]
