"""Networks: parameters and forward passes, nothing else."""

from inference.models.lip_coord_net import LipCoordNet
from inference.models.s3fd import S3FD
from inference.models.wav2lip import Wav2Lip, Wav2LipWidths

__all__ = ["S3FD", "LipCoordNet", "Wav2Lip", "Wav2LipWidths"]
