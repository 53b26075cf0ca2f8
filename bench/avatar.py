"""A live avatar by stage, its memory, and several sessions of it at once: `python -m bench.avatar`.

Beside the stages stands one plain forward pass of the U-Net. The networks are of upstream's size with random weights:
what they paint means nothing, what they cost is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from inference.audio.features import mel_of_window
from inference.avatar import AvatarPackage
from inference.avatar.compose import CROP_SIDE, compose_patch, cut_face
from inference.avatar.manifest import IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.network import make_audio_encoder, make_generator
from inference.avatar.write import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.backends import choose_device, settle
from inference.faces import FaceBox
from inference.faces.paste import overwrite_face
from inference.models import AudioVisualEncoder, AvatarUNet

MOST = 0.2  # of the plain forward pass: what the model may take on a CPU
MOST_MB = 200  # of a package of 523 frames: memory that no file backs, and that the system cannot take back
LIVE_FPS, N_SESSIONS = 25, 4
SIDE, WIDTH, HEIGHT, N_FRAMES = 182, 1280, 720, 523
SETTLED, N_MEASURED = 5, 30  # calls left out, and measured
N_PLAIN = 6
N_IDLE = 100  # frames: 4 s of silence, over and over
SECONDS = 6.0  # spoken by each session
PATCH_QUALITY, FRAME_QUALITY = 90, 85
JPEG = cv2.IMWRITE_JPEG_QUALITY


def main() -> None:
    """Print one JSON object; exit 1 where something takes more than its share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--avatar", default="starter", help="who speaks in several sessions at once")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory_of is not None:
        print(json.dumps(speak_and_weigh(asked.memory_of, asked.device, asked.precision)))
        return
    found = measure_stages(asked.device, asked.precision)
    found |= measure_memory(asked.device, asked.precision)
    found |= measure_sessions(asked.avatar, asked.device, asked.precision)
    print(json.dumps(found, indent=1))
    is_slow = found["device"] == "cpu" and found["ratio"] > MOST
    raise SystemExit(is_slow or found["package_private_mb"] > MOST_MB or found["sessions_fps"] < LIVE_FPS * N_SESSIONS)


def measure_stages(device: str, precision: str) -> dict[str, Any]:
    """Milliseconds of one frame by stage, one thread, and of a plain eager pass in float32."""
    torch.set_num_threads(1)
    chosen = settle(choose_device(device, precision), "bf16")
    unet, encoder = AvatarUNet().eval(), AudioVisualEncoder().eval()
    plain_ms = time_plain(unet)
    painter, ear = make_generator(unet, chosen, n_threads=1), make_audio_encoder(encoder, chosen)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    crops = rng.integers(0, 256, (16, CROP_SIDE, CROP_SIDE, 3), np.uint8)
    box = FaceBox(500, 200, 500 + SIDE, 200 + SIDE)
    window = rng.integers(-3000, 3000, 3801, np.int16)
    heard = rng.random((1, *unet.audio_shape), np.float32)
    face = np.ascontiguousarray(cut_face(crops[0]))[None]
    said = painter(face, heard)[0][0]
    patch = compose_patch(crops[0], said, box)
    stages: dict[str, Callable[[], object]] = {
        "hear": lambda: ear(mel_of_window(window)[None, None]),
        "prepare": lambda: np.ascontiguousarray(cut_face(crops[int(rng.integers(16))]))[None],
        "model": lambda: painter(face, heard),
        "compose_patch": lambda: compose_patch(crops[0], said, box),
        "compose_frame": lambda: overwrite_face(frame, patch, box),
        "encode_patch": lambda: cv2.imencode(".jpg", patch, [JPEG, PATCH_QUALITY]),
        "encode_frame": lambda: cv2.imencode(".jpg", frame, [JPEG, FRAME_QUALITY]),
    }
    ms = {f"{name}_ms": round(median_ms(call), 3) for name, call in stages.items()}
    again_ms = time_plain(unet)
    plain_ms = min(plain_ms, again_ms)
    ratio = round(ms["model_ms"] / plain_ms, 3)
    about = {"device": chosen.name, "precision": chosen.precision}
    return about | ms | {"plain_torch_f32_ms": round(plain_ms, 1), "ratio": ratio}


def time_plain(unet: AvatarUNet) -> float:
    face, audio = torch.rand(1, 6, 320, 320), torch.rand(1, *unet.audio_shape)
    with torch.inference_mode():
        return median_ms(lambda: unet(face, audio), settled=2, n=N_PLAIN)


def median_ms(call: Callable[[], object], settled: int = SETTLED, n: int = N_MEASURED) -> float:
    """CPU time, so that whoever else is at work here does not count; on a GPU what the CPU waits for it counts, too."""
    spent = []
    for _ in range(settled + n):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return float(np.median(spent[settled:])) * 1000


def measure_memory(device: str, precision: str) -> dict[str, Any]:
    """What a process grows by, that loads a full-size package and has four sessions speak with it."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_package(Path(folder) / "full")
        command = [sys.executable, "-m", "bench.avatar", "--device", device, "--precision", precision]
        run = subprocess.run([*command, "--memory-of", str(made)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def make_package(output: Path) -> Path:
    """A package of 523 frames of 1280x720, of noise."""
    rng = np.random.default_rng(1)
    box = FaceBox(500, 200, 500 + SIDE, 200 + SIDE)
    small = rng.integers(60, 200, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    frame = np.asarray(cv2.resize(small, (WIDTH, HEIGHT)), np.uint8)
    with atomic_package_folder(output) as folder:
        shots = (CroppedFrame(np.roll(frame, 4 * i, axis=1), box) for i in range(N_FRAMES))
        written = write_frames(folder, shots, "noise")
        write_networks(folder, AvatarUNet(), AudioVisualEncoder())
        manifest = Manifest(
            name="full",
            frames=N_FRAMES,
            width=WIDTH,
            height=HEIGHT,
            mode="ave",
            idle=IdleRange(first=0, last=99, is_shut=False),
            landmarks="none",
            made_from={},
            files=describe_files(folder),
            boxes=written.rows(),
        )
        write_manifest(folder, manifest)
    return output


def speak_and_weigh(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """To be run in a process of its own."""
    small = AvatarUNet(widths=(4, 4, 4, 4, 4))
    make_generator(small, choose_device(device, precision))  # libraries and their threads are no package's
    before = memory_mb()
    package = AvatarPackage.load(folder, device, precision)
    loaded = memory_mb()
    speak_at_once(package, N_SESSIONS, 1.0)
    heard = np.zeros(package.audio_shape, np.float32)
    for i in range(0, package.n_frames, 4):  # as when it has spoken for long
        package.render(i, heard)
        package.background(i)
    for i in range(N_IDLE):
        package.silent_patch(i)
    after = memory_mb()
    return {
        "package_loaded_mb": round(loaded["all"] - before["all"]),
        "package_mb": round(after["all"] - before["all"]),
        "package_private_mb": round(after["private"] - before["private"]),
    }


def memory_mb() -> dict[str, float]:
    """Of this process: all that is resident, and what of it is backed by no file."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(status[name].split()[0]) for name in ("VmRSS", "RssAnon")}
    return {"all": kib["VmRSS"] / 1000, "private": kib["RssAnon"] / 1000}


def measure_sessions(avatar: str, device: str, precision: str) -> dict[str, Any]:
    """How many frames a second four sessions at once get, from two cores."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    package = AvatarPackage.load(avatar, device, precision)
    speak_at_once(package, 1, 1.0)
    found: dict[str, Any] = {"sessions_of": avatar, "cores": len(cores)}
    for n in (1, 2, N_SESSIONS):
        found[f"fps_of_{n}"] = round(speak_at_once(package, n, SECONDS), 1)
    first = package.session()
    first.push_audio(noise(0.6))
    start = time.perf_counter()
    next(first.frames())
    found["first_frame_ms"] = round((time.perf_counter() - start) * 1000, 1)
    package.close()
    return found | {"sessions_fps": found[f"fps_of_{N_SESSIONS}"]}


def speak_at_once(package: AvatarPackage, n_sessions: int, seconds: float) -> float:
    """Frames a second of all together, each made as soon as the one before is."""
    n_made = [0] * n_sessions

    def speak(i: int) -> None:
        session = package.session()
        session.push_audio(noise(seconds))
        session.flush()
        for _ in session.frames():
            n_made[i] += 1

    threads = [threading.Thread(target=speak, args=(i,)) for i in range(n_sessions)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(n_made) / (time.perf_counter() - start)


def noise(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.random.default_rng(2).integers(-3000, 3000, round(seconds * 16_000), np.int16)


if __name__ == "__main__":
    main()
