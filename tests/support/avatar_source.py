"""An avatar of the synthetic speaker, with networks of upstream's architecture at a small size.

Their weights are random: the generated faces are meaningless.
"""

from __future__ import annotations

from pathlib import Path

import torch

from inference.avatar.build import AvatarSource
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.speaker import SyntheticClip, SyntheticClipOptions
from support.golden_weights import seeded_state

NARROW, N_AUDIO = (4, 6, 8, 10, 12), 2
NARROW_ENCODER = (4, 6, 8, 10, 32)  # 16 rows of 32 are 2 x 16 x 16
SENTENCE, SEED = "BIN BLUE AT F TWO NOW", 3
WIDTH, HEIGHT = 320, 240


def make_source(folder: Path) -> AvatarSource:
    """Write three seconds of the synthetic speaker, and tiny checkpoints in the formats that are found in the wild."""
    SyntheticClip(SENTENCE, SEED, SyntheticClipOptions(width=WIDTH, height=HEIGHT)).write(folder / "film.mp4")
    unet = seeded_state(AvatarUNet("ave", NARROW, N_AUDIO), 1.0)
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in unet.items()}, "epoch": 3}, folder / "unet.pth")
    audio_encoder = seeded_state(AudioVisualEncoder(NARROW_ENCODER), 1.0)
    torch.save({k.removeprefix("audio_encoder."): v for k, v in audio_encoder.items()}, folder / "ear.pth")
    return AvatarSource(folder / "film.mp4", folder / "unet.pth", folder / "ear.pth")
