"""Lip sync: from a face and speech to a video in which the face speaks."""

from inference.lip_sync.active_speaker import ActiveSpeaker
from inference.lip_sync.box_cache import BoxCache
from inference.lip_sync.options import PARITY, Pads, SyncOptions, SyncOutput, SyncResult
from inference.lip_sync.pipeline import LipSyncer
from inference.lip_sync.segments import SyncSegment

__all__ = [
    "PARITY",
    "ActiveSpeaker",
    "BoxCache",
    "LipSyncer",
    "Pads",
    "SyncOptions",
    "SyncOutput",
    "SyncResult",
    "SyncSegment",
]
