"""Build the image without Docker, start it as SageMaker does, use it, and stop it.

    python -m bench.image_check [--variant cpu] [--folder /var/tmp]

Needs root on Debian with the packages buildah and debootstrap, about 12 GB of disk (cpu) or 25 GB (gpu), and the
network. The Dockerfile is built in chroot isolation on a Debian 12 made by debootstrap, in place of its own base, and
with pip's settings of this machine, which also choose torch's build. The image then runs twice, as root and as process
1 of a namespace of its own, but with this machine's network: once with a file system that it may write to, and once
read-only but for /tmp, as on SageMaker Serverless. Prints for the image

  build          seconds, without the base
  size           unpacked, and compressed as it is pushed; its manifest must be one that SageMaker accepts

and for each start

  /ping          seconds until it answers 200, and seconds of CPU time
  clip           milliseconds to read the clip of deploy/smoke, 3 s of video: the first time, then the median of 5 and
                 the mean CPU time
  video          milliseconds to sync its face to one second of speech, likewise
  memory         of all processes after that, each page counted once
  SIGTERM        seconds until the container has ended, which it must do with exit code 0

Everything is deleted at the end, also after a failure. Mounts are made in namespaces that end with their processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.image_builder import SUITE, TAIL, Builder
from bench.image_container import Container, UnpackedImage
from bench.ping import READY_EVENT, request_status
from deploy.image import VARIANTS
from deploy.smoke_test import ReadingCheck, SmokeRequest, SyncCheck

PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}  # by command
READY_S = 300.0  # SageMaker waits 15 minutes
POLL_S = 0.05
N_REQUESTS = 5


def main() -> None:
    """Build, run and measure the variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=tuple(VARIANTS), action="append", help="repeatable; default: cpu")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for temporary files; default: /var/tmp")  # noqa: S108
    args = parser.parse_args()
    fault = find_fault()
    if fault:
        raise SystemExit(f"image-check: {fault}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("image-check: stopped"))  # so that everything is deleted
    with tempfile.TemporaryDirectory(prefix="viseme-image-", dir=args.folder, ignore_cleanup_errors=True) as name:
        builder = Builder(Path(name))
        show("base", f"Debian {SUITE} in {builder.make_base():.0f} s")
        for variant in args.variant or ["cpu"]:
            show("variant", variant)
            check_variant(builder, variant)
    if Path(name).exists():
        raise SystemExit(f"image-check: {name} could not be deleted")


def find_fault() -> str | None:
    """Return why this machine cannot build the image; None if it can."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        return "needs root on Debian"
    missing = sorted(package for command, package in PACKAGES.items() if shutil.which(command) is None)
    return f"missing; apt-get install {' '.join(missing)}" if missing else None


def check_variant(builder: Builder, variant: str) -> None:
    took_s = builder.build(VARIANTS[variant])
    show("build", f"{took_s:.0f} s")
    show("size", builder.describe_size())
    for mode in ("rw", "ro"):
        with builder.unpacked() as container:
            check_container(container, mode)


def check_container(container: UnpackedImage, mode: str) -> None:
    """Start the image, use it, stop it, and print what that takes. Raises: SystemExit if anything goes wrong."""
    show("file system", "writable" if mode == "rw" else "read-only but for /tmp")
    info = subprocess.run(container.command(mode, "avatar", "info", "starter"), capture_output=True, check=False)
    if info.returncode:
        raise SystemExit(f"image-check: avatar info starter:\n{info.stderr[-TAIL:].decode(errors='replace')}")
    log = container.root.with_name(f"{container.root.name}.{mode}.log")
    port = free_port()
    container.environment.append(f"SAGEMAKER_BIND_TO_PORT={port}")
    with log.open("wb") as stderr:
        outer = subprocess.Popen(container.command(mode, "serve"), stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        use_server(Container(outer), port, log)
    except BaseException:
        print(log.read_text(errors="replace")[-TAIL:], file=sys.stderr)
        raise
    finally:
        outer.kill()  # the container ends with it, because of --kill-child
        outer.wait()
        log.unlink()


def use_server(container: Container, port: int, log: Path) -> None:
    """Measure a server that is starting."""
    started_s = time.monotonic()
    while request_status(port, "GET", "/ping") != 200:
        if container.outer.poll() is not None or time.monotonic() - started_s > READY_S:
            raise SystemExit("image-check: the container did not become ready; its log is above")
        time.sleep(POLL_S)
    show("/ping", f"200 after {time.monotonic() - started_s:.1f} s ({container.cpu_s():.1f} s of CPU)")
    show("ready", describe_ready(log))
    for label, request in (("clip", ReadingCheck()), ("video", SyncCheck())):
        show(label, time_requests(container, port, request))
    show("memory", f"{container.memory_mib():.0f} MiB, {len(container.processes)} processes")
    show("SIGTERM", f"ended after {container.stop():.1f} s")


def time_requests(container: Container, port: int, request: SmokeRequest) -> str:
    """Send a request several times; describe how long that takes and what is answered.

    Raises: SystemExit if the answer is wrong.
    """
    took_ms: list[float] = []
    cpu_s: list[float] = []
    headers = {"content-type": request.content_type, "accept": "application/json"}
    for _ in range(N_REQUESTS + 1):
        started_s = time.monotonic()
        answer = httpx.post(
            f"http://127.0.0.1:{port}/invocations", content=request.body(), headers=headers, timeout=60, trust_env=False
        )
        took_ms.append((time.monotonic() - started_s) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"image-check: {request.name}: {answer.status_code}: {answer.text[:TAIL]}")
        described = describe_answer(request, answer.json())
        cpu_s.append(container.cpu_s())
    cpu_ms = (cpu_s[-1] - cpu_s[0]) * 1000 / N_REQUESTS
    then = f"{statistics.median(took_ms[1:]):.0f} ms ({cpu_ms:.0f} of CPU)"
    return f"{took_ms[0]:.0f} ms the first time, then {then}; {described}"


def describe_answer(request: SmokeRequest, answer: dict[str, Any]) -> str:
    try:
        return request.describe(answer)
    except (KeyError, TypeError, ValueError, IndexError) as err:
        raise SystemExit(f"image-check: {request.name}: not what was requested: {err!r}") from err


def describe_ready(log: Path) -> str:
    """Return what the server's line about its start says of its runtimes."""
    line = next(line for line in log.read_text().splitlines() if READY_EVENT in line)
    found = json.loads(line)
    fields = ("device", "precision", "torch_version", "openvino_version")
    return ", ".join(f"{name} {found[name]}" for name in fields if name in found)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def show(name: str, text: str) -> None:
    print(f"{name:<12} {text}", flush=True)


if __name__ == "__main__":
    main()
