"""Measure the CPU time of lip sync by stage, against one plain forward pass of Wav2Lip.

    python -m bench.sync [--precision auto] [--seconds 8] [--size 360x288]

The network is of full size with random weights, which cost the same. Prints one JSON object, in CPU milliseconds per
frame, one thread: each stage, their total, plain_torch_f32 (one eager float32 forward pass for one frame), and ratio,
which is total / plain_torch_f32. Exits with status 1 if ratio is above 0.6.
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
from inference.media.encode import AudioBuffer, write_video
from inference.models import Wav2Lip
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.stage_timer import StageClock

TEXT, SEED = "BIN BLUE AT F TWO NOW", 3
MAX_RATIO = 0.6  # total time of a frame / time of a plain forward pass
N_WARMUP, N_PLAIN = 3, 8  # plain forward passes
RATE = 16_000


def main() -> None:
    """Print one JSON object; exit with status 1 if lip sync takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="auto", choices=("auto", "f32", "bf16"))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--size", default="360x288")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), args.precision, args.seconds, width, height)
    print(json.dumps(results, indent=1))
    raise SystemExit(results["ratio"] > MAX_RATIO)


def measure(folder: Path, precision: str, seconds: float, width: int, height: int) -> dict[str, float]:
    """Return the CPU milliseconds per frame of each stage, of their total and of a plain pass, and the ratio."""
    torch.manual_seed(SEED)
    network = Wav2Lip().eval()
    torch.save(network.state_dict(), folder / "random.pth")
    face, audio = folder / "face.mp4", folder / "audio.mp4"
    SyntheticClip(TEXT, SEED, SyntheticClipOptions(width=width, height=height)).write(face)
    write_audio(audio, seconds)
    syncer = LipSyncer([folder / "random.pth"], device="cpu", precision=precision)
    syncer.sync(face, audio, output=folder / "warmup.mp4")
    clock = StageClock(time.process_time)
    result = syncer.sync(face, audio, output=folder / "out.mp4", clock=clock)
    per_frame = {stage: round(ms / result.num_frames, 2) for stage, ms in result.timings_ms.items()}
    plain_ms = time_plain(network)
    return per_frame | {"plain_torch_f32": round(plain_ms, 2), "ratio": round(per_frame["total"] / plain_ms, 3)}


def write_audio(path: Path, seconds: float) -> None:
    """Write a video with one grey frame per second, and a tone that swells and fades."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)
    with write_video(path, 1, AudioBuffer(tone, RATE)) as writer:
        for _ in range(round(seconds)):
            writer.add(np.full((64, 64, 3), 128, np.uint8))


def time_plain(network: Wav2Lip) -> float:
    """Return the median CPU milliseconds of one eager float32 forward pass for one frame, one thread."""
    mel, face = torch.zeros(1, 1, 80, 16), torch.rand(1, 6, 96, 96)
    times = []
    with torch.inference_mode():
        for _ in range(N_WARMUP + N_PLAIN):
            start = time.process_time()
            network(mel, face)
            times.append(time.process_time() - start)
    return float(np.median(times[N_WARMUP:])) * 1000


if __name__ == "__main__":
    main()
