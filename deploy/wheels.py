"""The packages of requirements.txt, unpacked into the archive: then a container needs no package index at its start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.errors import DeployError

DOWNLOAD_TIMEOUT_S = 900
# The stock image has them in versions that fit each other and its CUDA; its own are used.
IMAGE_PACKAGES = frozenset({"numpy", "torch", "setuptools"})
LIBRARY_SCHEMES = ("purelib", "platlib")  # folders of *.data that belong into site-packages; others are scripts


@dataclass(frozen=True)
class Interpreter:
    """The Python that the packages are for. version: such as "3.12"; platforms: as wheels name them."""

    version: str
    platforms: tuple[str, ...]


STOCK_INTERPRETER = Interpreter("3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"))


def list_packages(requirements: str, interpreter: Interpreter) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the files of the packages and of what they need, by their paths in site-packages.

    requirements: the text of a requirements.txt. Raises: DeployError if they cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="viseme-wheels-") as folder:
        download_wheels(requirements, interpreter, Path(folder))
        for wheel in sorted(Path(folder).glob("*.whl")):
            if wheel.name.partition("-")[0].lower() not in IMAGE_PACKAGES:
                yield from list_wheel(wheel)


def download_wheels(requirements: str, interpreter: Interpreter, folder: Path) -> None:
    """Download wheels into a folder, with pip and its own settings."""
    path = folder / "requirements.txt"
    path.write_text(requirements, "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={interpreter.version}"]
    command += [f"--platform={platform}" for platform in interpreter.platforms]
    command += ["-r", str(path), "-d", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    if run.returncode != 0:
        reason = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise DeployError(f"the packages for --network-isolation cannot be fetched: {reason[-1]}")


def list_wheel(wheel: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield a wheel's files as an installer would place them in site-packages, without scripts and headers.

    Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name)
            if name.endswith("/"):
                continue
            if path.parts[0].endswith(".data"):
                if path.parts[1] not in LIBRARY_SCHEMES:
                    continue
                path = PurePosixPath(*path.parts[2:])
            yield path, packed.read(name)
