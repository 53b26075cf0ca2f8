"""CPU time of lip sync by stage, beside one plain forward pass of Wav2Lip in torch: `python -m bench.sync`.

The network is of full size with random weights: what it says means nothing, what it costs is the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from inference.lip_sync import LipSyncer
from inference.media.encode import Sound, write_film
from inference.models import Wav2Lip
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.stages import StageClock

TEXT, SEED = "BIN BLUE AT F TWO NOW", 3
MOST = 0.6  # of the plain forward pass: what the whole may take
N_PLAIN = 8  # forward passes measured
SETTLED = 3  # of each network's passes, left out
RATE = 16_000


def main() -> None:
    """Print one JSON object; exit 1 where the whole takes more than its share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="auto", choices=("auto", "f32", "bf16"))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--size", default="360x288")
    asked = parser.parse_args()
    width, height = map(int, asked.size.split("x"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.precision, asked.seconds, width, height)
    print(json.dumps(found, indent=1))
    raise SystemExit(found["ratio"] > MOST)


def measure(folder: Path, precision: str, seconds: float, width: int, height: int) -> dict[str, float]:
    """CPU milliseconds a frame of each stage, of all, of the plain pass; and their ratio."""
    torch.manual_seed(SEED)
    network = Wav2Lip().eval()
    torch.save(network.state_dict(), folder / "random.pth")
    face, voice = folder / "face.mp4", folder / "voice.mp4"
    SyntheticClip(TEXT, SEED, SyntheticClipOptions(width=width, height=height)).write(face)
    write_voice(voice, seconds)
    syncer = LipSyncer([folder / "random.pth"], device="cpu", precision=precision)
    syncer.sync(face, voice, output=folder / "warm.mp4")
    clock = StageClock(time.process_time)
    result = syncer.sync(face, voice, output=folder / "out.mp4", clock=clock)
    per_frame = {stage: round(ms / result.num_frames, 2) for stage, ms in result.timings_ms.items()}
    plain_ms = time_plain(network)
    return per_frame | {"plain_torch_f32": round(plain_ms, 2), "ratio": round(per_frame["total"] / plain_ms, 3)}


def write_voice(path: Path, seconds: float) -> None:
    """A film of one grey picture a second and a tone that comes and goes."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)
    with write_film(path, 1, Sound(tone, RATE)) as writer:
        for _ in range(round(seconds)):
            writer.add(np.full((64, 64, 3), 128, np.uint8))


def time_plain(network: Wav2Lip) -> float:
    """CPU milliseconds of one eager float32 forward pass for one frame, one thread."""
    mel, face = torch.zeros(1, 1, 80, 16), torch.rand(1, 6, 96, 96)
    spent = []
    with torch.inference_mode():
        for _ in range(SETTLED + N_PLAIN):
            start = time.process_time()
            network(mel, face)
            spent.append(time.process_time() - start)
    return float(np.median(spent[SETTLED:])) * 1000


if __name__ == "__main__":
    main()
