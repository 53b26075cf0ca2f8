"""Networks: parameters and forward passes, nothing else."""

from inference.models.audio_encoder import AudioVisualEncoder
from inference.models.avatar_unet import AvatarGenerator, AvatarUNet
from inference.models.lip_coord_net import LipCoordNet
from inference.models.s3fd import S3FD
from inference.models.wav2lip import Wav2Lip

__all__ = ["S3FD", "AudioVisualEncoder", "AvatarGenerator", "AvatarUNet", "LipCoordNet", "Wav2Lip"]
