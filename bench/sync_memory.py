"""Measure the peak memory of lip sync on a short and a long video: it must not grow with the length.

    python -m bench.sync_memory [--seconds 300] [--size 1280x720] [--full] [--face CLIP]

Lip-syncs videos of 10 seconds and of --seconds, each in a fresh process, to two-channel audio at 48 kHz of the same
length. The network has random weights and is narrow unless --full is given: its memory does not depend on the length.
Prints one JSON object: peak_mib, the peak resident memory by length, and growth_mib, the difference. Exits with status
1 if growth_mib is above 300.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.video_variants import read_frames, repeat_frames, resize_frame
from inference.dimensions.wav2lip import Wav2LipWidths
from inference.lip_sync import LipSyncer
from inference.media import Frame
from inference.media.audio_convert import AudioFormat
from inference.media.audio_spool import AudioSpool
from inference.media.encode import write_video
from inference.models import Wav2Lip
from inference.speaker import SyntheticClip

MIB = 1024  # KiB, the unit of ru_maxrss on Linux
SHORT_S = 10.0
MAX_GROWTH = 300  # MiB
RATE = 48_000
TEXT, SEED = "BIN BLUE AT F TWO NOW", 3
NARROW = Wav2LipWidths((4, 8, 16, 32, 64, 128, 128), (8, 16, 32, 64, 128), (128, 128, 128, 96, 64, 32, 16), 8)


def main() -> None:
    """Print one JSON object; exit with status 1 if memory grows with the length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--full", action="store_true", help="use the full-size network")
    parser.add_argument("--face", type=Path, help="clip of a talking face; default: a rendered one")
    parser.add_argument("--job", type=Path, nargs=4, help=argparse.SUPPRESS)  # arguments of run_job, in a fresh process
    args = parser.parse_args()
    if args.job:
        run_job(*args.job)
        return
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(SEED)
        torch.save(Wav2Lip(None if args.full else NARROW).state_dict(), folder / "random.pth")
        frames = [resize_frame(frame, (width, height)) for frame in read_face(args.face, folder)]
        peaks = {f"{s:g} s": measure(folder, frames, s) for s in (SHORT_S, args.seconds)}
    growth = max(peaks.values()) - min(peaks.values())
    print(json.dumps({"peak_mib": peaks, "growth_mib": growth}))
    raise SystemExit(growth > MAX_GROWTH)


def read_face(clip: Path | None, folder: Path) -> list[Frame]:
    """Return the frames of the clip, or of a rendered one."""
    if clip is None:
        clip = folder / "rendered.mp4"
        SyntheticClip(TEXT, SEED).write(clip)
    return read_frames(clip)


def measure(folder: Path, frames: list[Frame], seconds: float) -> float:
    """Return the peak resident memory of a fresh process that lip-syncs a video of that length, in MiB."""
    face, audio = repeat_frames(frames, folder / "face.mp4", seconds), write_audio(folder / "audio.mp4", seconds)
    job = [face, audio, folder / "random.pth", folder / "out.mp4"]
    command = [sys.executable, "-m", "bench.sync_memory", "--job", *map(str, job)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout)


def run_job(face: Path, audio: Path, checkpoint: Path, output: Path) -> None:
    """Lip-sync one video, and print the peak memory of this process."""
    LipSyncer([checkpoint], device="cpu").sync(face, audio, output=output)
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB))


def write_audio(path: Path, seconds: float) -> Path:
    """Write a video with one grey frame per second, and two channels of noise that swells and fades."""
    rng = np.random.default_rng(SEED)
    with AudioSpool(AudioFormat(RATE, 2)) as audio:
        for _ in range(round(seconds)):
            level = np.abs(np.sin(np.arange(RATE) / RATE * 6 * np.pi))[:, None]
            audio.append((rng.normal(0, 3000, (RATE, 2)) * level).astype(np.int16).reshape(-1))
        with write_video(path, 1, audio) as writer:
            for _ in range(round(seconds)):
                writer.add(np.full((64, 64, 3), 128, np.uint8))
    return path


if __name__ == "__main__":
    main()
