"""Networks: parameters and forward passes, nothing else."""

from inference.models.lip_coord_net import LipCoordNet

__all__ = ["LipCoordNet"]
