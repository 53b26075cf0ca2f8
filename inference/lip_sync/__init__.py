"""Lip sync: a face and a voice into a talking film."""

from inference.lip_sync.options import PARITY, Pads, SyncOptions, SyncOutput, SyncResult
from inference.lip_sync.pipeline import LipSyncer
from inference.lip_sync.tracks import TrackCache

__all__ = ["PARITY", "LipSyncer", "Pads", "SyncOptions", "SyncOutput", "SyncResult", "TrackCache"]
