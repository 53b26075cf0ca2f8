"""Lip sync: from a face and speech to a video in which the face speaks."""

from inference.lip_sync.options import PARITY, Pads, SyncOptions, SyncOutput, SyncResult
from inference.lip_sync.pipeline import LipSyncer
from inference.lip_sync.tracks import TrackCache

__all__ = ["PARITY", "LipSyncer", "Pads", "SyncOptions", "SyncOutput", "SyncResult", "TrackCache"]
