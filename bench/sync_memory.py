"""Peak memory of lip sync for ten seconds and for five minutes of 720p: it must not grow with the length.

    python -m bench.sync_memory [--seconds 300] [--size 1280x720] [--full] [--face CLIP]

Each job runs in a process of its own: a film as long as the voice, which has two channels at 48 kHz. The network's
weights are random, and it is a narrow one unless --full: what it takes does not depend on the length.
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

from bench.films import frames_of, repeated, resize
from inference.lip_sync import LipSyncer
from inference.media import Frame
from inference.media.encode import write_film
from inference.media.sound import SoundForm
from inference.media.voice import Voice
from inference.models import Wav2Lip, Wav2LipWidths
from inference.speaker import SyntheticClip

MIB = 1024  # KiB, the unit of ru_maxrss on Linux
BRIEF_S = 10.0
MOST_GROWTH = 300  # MiB
RATE = 48_000
TEXT, SEED = "BIN BLUE AT F TWO NOW", 3
NARROW = Wav2LipWidths((4, 8, 16, 32, 64, 128, 128), (8, 16, 32, 64, 128), (128, 128, 128, 96, 64, 32, 16), 8)


def main() -> None:
    """Print one JSON object; exit 1 where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--face", type=Path, help="a clip of a talking face; else a rendered one")
    parser.add_argument("--job", type=Path, nargs=4, help=argparse.SUPPRESS)  # what each process is called with
    asked = parser.parse_args()
    if asked.job:
        run_job(*asked.job)
        return
    width, height = map(int, asked.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(SEED)
        torch.save(Wav2Lip(None if asked.full else NARROW).state_dict(), folder / "random.pth")
        frames = [resize(frame, (width, height)) for frame in faces(asked.face, folder)]
        peaks = {f"{s:g} s": measure(folder, frames, s) for s in (BRIEF_S, asked.seconds)}
    growth = max(peaks.values()) - min(peaks.values())
    print(json.dumps({"peak_mib": peaks, "growth_mib": growth}))
    raise SystemExit(growth > MOST_GROWTH)


def faces(clip: Path | None, folder: Path) -> list[Frame]:
    if clip is None:
        clip = folder / "rendered.mp4"
        SyntheticClip(TEXT, SEED).write(clip)
    return frames_of(clip)


def measure(folder: Path, frames: list[Frame], seconds: float) -> float:
    """MiB of resident memory at most, of a process that makes a film of that length."""
    face, voice = repeated(frames, folder / "face.mp4", seconds), write_voice(folder / "voice.mp4", seconds)
    job = [face, voice, folder / "random.pth", folder / "out.mp4"]
    command = [sys.executable, "-m", "bench.sync_memory", "--job", *map(str, job)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout)


def run_job(face: Path, voice: Path, checkpoint: Path, output: Path) -> None:
    """Make one film, and print this process's peak."""
    LipSyncer([checkpoint], device="cpu").sync(face, voice, output=output)
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB))


def write_voice(path: Path, seconds: float) -> Path:
    """A film of one grey picture a second, and noise that comes and goes in two channels."""
    rng = np.random.default_rng(SEED)
    with Voice(SoundForm(RATE, 2)) as voice:
        for _ in range(round(seconds)):
            loud = np.abs(np.sin(np.arange(RATE) / RATE * 6 * np.pi))[:, None]
            voice.add((rng.normal(0, 3000, (RATE, 2)) * loud).astype(np.int16).reshape(-1))
        with write_film(path, 1, voice) as writer:
            for _ in range(round(seconds)):
                writer.add(np.full((64, 64, 3), 128, np.uint8))
    return path


if __name__ == "__main__":
    main()
