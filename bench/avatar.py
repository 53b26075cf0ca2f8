"""Measure the cost of a live avatar: each stage, the memory of a package, and several sessions at once.

    python -m bench.avatar [--device auto] [--precision auto] [--avatar starter]

Stages and memory are measured on networks of upstream's size with random weights: the images are noise, but the cost is
the same. Prints one JSON object:

  *_ms                            CPU milliseconds of one frame by stage, one thread
  plain_torch_f32_ms              one forward pass of the U-Net in eager torch and float32
  ratio                           model_ms / plain_torch_f32_ms
  package_loaded_mb, package_mb   growth of the process: a package of 523 frames loaded, and after four sessions
  package_private_mb              the part of package_mb that no file backs
  fps_of_1, fps_of_2, fps_of_4    frames per second of so many sessions of --avatar together, on two cores
  first_frame_ms                  time to the first frame of a session
  sessions_fps                    fps_of_4

Exits with status 1 if, on a CPU, ratio is above 0.2; if package_private_mb is above 200; or if sessions_fps is below
25 for each of four sessions.
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

from inference.audio.avatar_features import mel_of_window
from inference.avatar import AvatarPackage
from inference.avatar.compose import CROP_SIDE, compose_patch, cut_face
from inference.avatar.manifest import IdleRange, Manifest, describe_files, write_manifest
from inference.avatar.network import make_audio_encoder, make_generator
from inference.avatar.write_package import CroppedFrame, atomic_package_folder, write_frames, write_networks
from inference.backends import choose_device, resolve_auto_precision
from inference.faces import FaceBox
from inference.faces.paste import overwrite_face
from inference.models import AudioVisualEncoder, AvatarUNet
from inference.weights.architectures import weights_of

MAX_RATIO = 0.2  # time of the network on a CPU / time of a plain forward pass
MAX_PRIVATE_MB = 200  # memory of a package of 523 frames that no file backs, which the system cannot reclaim
LIVE_FPS, N_SESSIONS = 25, 4
SIDE, WIDTH, HEIGHT, N_FRAMES = 182, 1280, 720, 523
N_WARMUP, N_MEASURED = 5, 30  # calls
N_PLAIN = 6  # plain forward passes measured
N_IDLE = 100  # frames of the idle loop: 4 s
SPEECH_S = 6.0  # audio of each session
PATCH_QUALITY, FRAME_QUALITY = 90, 85
JPEG_QUALITY = cv2.IMWRITE_JPEG_QUALITY


def main() -> None:
    """Print one JSON object; exit with status 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--avatar", default="starter", help="package of the concurrent sessions")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of is not None:
        print(json.dumps(measure_package_memory(args.memory_of, args.device, args.precision)))
        return
    results = measure_stages(args.device, args.precision)
    results |= measure_memory(args.device, args.precision)
    results |= measure_sessions(args.avatar, args.device, args.precision)
    print(json.dumps(results, indent=1))
    raise SystemExit(
        (results["device"] == "cpu" and results["ratio"] > MAX_RATIO)
        or results["package_private_mb"] > MAX_PRIVATE_MB
        or results["sessions_fps"] < LIVE_FPS * N_SESSIONS
    )


def measure_stages(device: str, precision: str) -> dict[str, Any]:
    """Measure the CPU milliseconds of one frame by stage, one thread, and of an eager forward pass in float32."""
    torch.set_num_threads(1)
    resolved = resolve_auto_precision(choose_device(device, precision), "bf16")
    unet, encoder = AvatarUNet().eval(), AudioVisualEncoder().eval()
    plain_ms = time_plain(unet)
    generator, audio_encoder = (
        make_generator(weights_of(unet), resolved, n_threads=1),
        make_audio_encoder(weights_of(encoder), resolved),
    )
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    crops = rng.integers(0, 256, (16, CROP_SIDE, CROP_SIDE, 3), np.uint8)
    box = FaceBox(500, 200, 500 + SIDE, 200 + SIDE)
    window = rng.integers(-3000, 3000, 3801, np.int16)
    audio_features = rng.random((1, *unet.audio_shape), np.float32)
    face = np.ascontiguousarray(cut_face(crops[0]))[None]
    output = generator(face, audio_features)[0][0]
    patch = compose_patch(crops[0], output, box)
    stages: dict[str, Callable[[], object]] = {
        "hear": lambda: audio_encoder(mel_of_window(window)[None, None]),
        "prepare": lambda: np.ascontiguousarray(cut_face(crops[int(rng.integers(16))]))[None],
        "model": lambda: generator(face, audio_features),
        "compose_patch": lambda: compose_patch(crops[0], output, box),
        "compose_frame": lambda: overwrite_face(frame, patch, box),
        "encode_patch": lambda: cv2.imencode(".jpg", patch, [JPEG_QUALITY, PATCH_QUALITY]),
        "encode_frame": lambda: cv2.imencode(".jpg", frame, [JPEG_QUALITY, FRAME_QUALITY]),
    }
    ms = {f"{name}_ms": round(median_ms(call), 3) for name, call in stages.items()}
    plain_ms = min(plain_ms, time_plain(unet))
    ratio = round(ms["model_ms"] / plain_ms, 3)
    about = {"device": resolved.name, "precision": resolved.precision}
    return about | ms | {"plain_torch_f32_ms": round(plain_ms, 1), "ratio": ratio}


def time_plain(unet: AvatarUNet) -> float:
    face, audio = torch.rand(1, 6, 320, 320), torch.rand(1, *unet.audio_shape)
    with torch.inference_mode():
        return median_ms(lambda: unet(face, audio), n_warmup=2, n=N_PLAIN)


def median_ms(call: Callable[[], object], n_warmup: int = N_WARMUP, n: int = N_MEASURED) -> float:
    """Return the median CPU time of a call, in milliseconds.

    CPU time excludes other processes; on a GPU it includes the time for which the CPU waits for the GPU.
    """
    times = []
    for _ in range(n_warmup + n):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times[n_warmup:])) * 1000


def measure_memory(device: str, precision: str) -> dict[str, Any]:
    """Measure the growth of a fresh process that loads a full-size package and runs four sessions of it."""
    with tempfile.TemporaryDirectory() as folder:
        package = make_package(Path(folder) / "full")
        command = [sys.executable, "-m", "bench.avatar", "--device", device, "--precision", precision]
        run = subprocess.run([*command, "--memory-of", str(package)], capture_output=True, text=True, check=True)
    results: dict[str, Any] = json.loads(run.stdout)
    return results


def make_package(output: Path) -> Path:
    """Write a package of 523 frames of noise, 1280x720, with networks of upstream's size and random weights."""
    rng = np.random.default_rng(1)
    box = FaceBox(500, 200, 500 + SIDE, 200 + SIDE)
    small = rng.integers(60, 200, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    frame = np.asarray(cv2.resize(small, (WIDTH, HEIGHT)), np.uint8)
    with atomic_package_folder(output) as folder:
        frames = (CroppedFrame(np.roll(frame, 4 * i, axis=1), box) for i in range(N_FRAMES))
        written = write_frames(folder, frames, "noise")
        write_networks(folder, weights_of(AvatarUNet()), weights_of(AudioVisualEncoder()))
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


def measure_package_memory(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Measure the growth of this process, which must not have loaded a package yet."""
    small = AvatarUNet(widths=(4, 4, 4, 4, 4))
    # Loads the libraries, which are not part of a package.
    make_generator(weights_of(small), choose_device(device, precision))
    before = memory_mb()
    package = AvatarPackage.load(folder, device, precision)
    loaded = memory_mb()
    run_sessions(package, N_SESSIONS, 1.0)
    audio_features = np.zeros(package.audio_shape, np.float32)
    for i in range(0, package.n_frames, 4):  # touches frames all over the package, as long speech does
        package.render(i, audio_features)
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
    """Return this process's resident memory: "all" of it, and the "private" part that no file backs."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(status[name].split()[0]) for name in ("VmRSS", "RssAnon")}
    return {"all": kib["VmRSS"] / 1000, "private": kib["RssAnon"] / 1000}


def measure_sessions(avatar: str, device: str, precision: str) -> dict[str, Any]:
    """Measure the frames per second of one, two and four sessions together, on two cores."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    package = AvatarPackage.load(avatar, device, precision)
    run_sessions(package, 1, 1.0)
    results: dict[str, Any] = {"sessions_of": avatar, "cores": len(cores)}
    for n in (1, 2, N_SESSIONS):
        results[f"fps_of_{n}"] = round(run_sessions(package, n, SPEECH_S), 1)
    session = package.session()
    session.push_audio(make_noise(0.6))
    start = time.perf_counter()
    next(session.frames())
    results["first_frame_ms"] = round((time.perf_counter() - start) * 1000, 1)
    package.close()
    return results | {"sessions_fps": results[f"fps_of_{N_SESSIONS}"]}


def run_sessions(package: AvatarPackage, n_sessions: int, seconds: float) -> float:
    """Run sessions in parallel without pacing; return the frames per second of all together."""
    counts = [0] * n_sessions

    def run_session(i: int) -> None:
        session = package.session()
        session.push_audio(make_noise(seconds))
        session.flush()
        for _ in session.frames():
            counts[i] += 1

    threads = [threading.Thread(target=run_session, args=(i,)) for i in range(n_sessions)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def make_noise(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.random.default_rng(2).integers(-3000, 3000, round(seconds * 16_000), np.int16)


if __name__ == "__main__":
    main()
