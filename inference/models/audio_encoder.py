"""The avatar's ear: a window of the mel spectrogram into the features that its U-Net listens to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from inference.models.wav2lip import audio_encoder

WIDTHS = (32, 64, 128, 256, 512)
WIDTH_STARTS = (0, 3, 6, 9, 11)  # where the flat list of layers changes its width


class AudioVisualEncoder(nn.Module):
    """The same layers as Wav2Lip's audio encoder.

    Source: SyncTalk_2D utils.py AudioEncoder (names, order of layers, 2,812,672 parameters).
    Deliberately different: the widths are free. Published files lack the prefix `audio_encoder.`.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        """widths: the last is the number of features; 16 rows of them fill the U-Net's input, so it divides by 16."""
        super().__init__()
        self.widths = tuple(widths)
        self.audio_encoder = audio_encoder(self.widths)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> AudioVisualEncoder:
        """One whose widths are those of a state dict, with the prefix; its numbers are not taken over.

        Raises: KeyError, IndexError for a tensor that every encoder has and this one has not.
        """
        return cls([tensors[f"audio_encoder.{i}.conv_block.0.weight"].shape[0] for i in WIDTH_STARTS])

    def forward(self, mel: Tensor) -> Tensor:
        """Features (B, widths[-1]) float, 0 and above. mel: (B, 1, 80, 16) float, -4..4."""
        out: Tensor = self.audio_encoder(mel)
        return out[:, :, 0, 0]
