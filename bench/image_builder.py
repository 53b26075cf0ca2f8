"""Builds the image without Docker, by buildah, and with pip's settings of this machine."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.image_container import ISOLATED, UnpackedImage
from deploy.image import DOCKERFILE, ROOT
from deploy.image_manifest import parse_manifest

BASE, IMAGE = "localhost/viseme-check-base", "localhost/viseme-check"
SUITE = "bookworm"  # of the Dockerfile's own base
SETTINGS = "/run/pip-settings"  # in the container that builds
PROC = ("--mount-proc",)  # of the namespace's own processes
TAIL = 3000  # characters of output that are shown after a failure


@dataclass(frozen=True)
class Builder:
    """Buildah, with everything it stores in one folder."""

    folder: Path

    def buildah(self, *words: str) -> str:
        """Run buildah and return its output. Raises: SystemExit if it fails."""
        store = ["--root", f"{self.folder}/store", "--runroot", f"{self.folder}/run", "--storage-driver", "vfs"]
        return self.run(["buildah", *store, *words])

    def run(self, command: Sequence[str]) -> str:
        """Run a command in namespaces of its own, so that it leaves neither mounts nor processes behind."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        run = subprocess.run(
            [*ISOLATED, *PROC, *command],
            env=os.environ | {"TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            output = (run.stdout + run.stderr)[-TAIL:]
            raise SystemExit(f"image-check: {command[0]} failed with exit code {run.returncode}:\n{output}")
        return run.stdout

    def make_base(self) -> float:
        """Make Debian's smallest system into an image. Returns: seconds."""
        started_s = time.monotonic()
        root = self.folder / "base"
        self.run(["debootstrap", "--variant=minbase", SUITE, str(root)])
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, str(root), "/")
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(root)
        return time.monotonic() - started_s

    def build(self, arguments: dict[str, str]) -> float:
        """Build the Dockerfile. Returns: seconds."""
        started_s = time.monotonic()
        settings = PipSettings.of_this_machine(self.folder / "pip")
        # Layers would keep a full copy of each step.
        options = ["--isolation", "chroot", "--format", "docker", "--layers=false", "--tag", IMAGE]
        for name, value in ({"BASE_IMAGE": BASE} | arguments).items():
            options += ["--build-arg", f"{name}={value}"]
        options += ["--secret", f"id=pip,src={settings.conf}", "--volume", f"{settings.conf.parent}:{SETTINGS}:ro"]
        for folder in settings.folders:
            options += ["--volume", f"{folder}:{folder}:ro"]
        self.buildah("bud", *options, "--file", str(DOCKERFILE), str(ROOT))
        return time.monotonic() - started_s

    def describe_size(self) -> str:
        """Describe the image's size. Raises: SystemExit if SageMaker would refuse its manifest."""
        [found] = json.loads(self.buildah("images", "--json", IMAGE))
        pushed = self.folder / "pushed"
        self.buildah("push", "--quiet", IMAGE, f"dir:{pushed}")
        manifest = parse_manifest({"imageManifest": (pushed / "manifest.json").read_text()})
        shutil.rmtree(pushed)
        if manifest.fault:
            raise SystemExit(f"image-check: {manifest.fault}")
        return f"{found['size']}, {(manifest.n_bytes or 0) / 1e6:.0f} MB compressed, {manifest.media_type}"

    @contextmanager
    def unpacked(self) -> Iterator[UnpackedImage]:
        """Unpack the image; delete what the container has written at the end."""
        config = json.loads(self.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        container = self.buildah("from", IMAGE).strip()
        try:
            root = Path(self.buildah("mount", container).strip())  # the driver vfs mounts nothing
            yield UnpackedImage(root, config["Env"], config["Entrypoint"])
        finally:
            self.buildah("rm", container)


@dataclass(frozen=True)
class PipSettings:
    """pip's settings for the build. conf: a pip.conf; folders: local indexes, which it names."""

    conf: Path
    folders: frozenset[Path]

    @classmethod
    def of_this_machine(cls, folder: Path) -> PipSettings:
        """Write this machine's settings into a folder, together with the files that they name."""
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "config", "list"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        lines, folders = ["[global]"], set[Path]()
        for line in found.stdout.splitlines():
            key, _, value = line.partition("=")
            words = ast.literal_eval(value).split()
            paths = [Path(word.removeprefix("file://")) for word in words]
            folders |= {index_root(path) for path in paths if path.is_absolute() and path.is_dir()}
            for path in (path for path in paths if path.is_absolute() and path.is_file()):
                shutil.copy(path, folder / path.name)
                words[paths.index(path)] = f"{SETTINGS}/{path.name}"
            lines.append(f"{key.rpartition('.')[2]} = {' '.join(words)}")
        conf = folder / "pip.conf"
        conf.write_text("\n".join(dict.fromkeys(lines)) + "\n")
        return cls(conf, frozenset(folders))


def index_root(path: Path) -> Path:
    """Return the folder of an index: the files that its pages link to are usually beside them."""
    return path.parent if path.name == "simple" else path
