"""Measure the CPU time of starting each command, as a multiple of importing OpenVINO.

    python -m bench.cold_start [VIDEO] [--rounds 5]

Each command runs once to fill the caches in a data folder of its own (`VISEME_DATA_DIR`, with links to the fetched
weights), and then in every round. Prints the median CPU seconds, children included, and the ratio to `ov` of the same
round as the median, with the minimum and maximum:

  ov      python -c "import numpy, openvino; openvino.Core().available_devices"
  pass    python -c pass
  help    viseme --help; its ratio is to `pass`
  read    viseme read VIDEO
  sync    viseme sync VIDEO SPEECH (one second)
  speak   viseme avatar speak starter SPEECH
  ping    viseme serve, until /ping answers 200: the server, its worker and the decoder
  worker  the same for the worker that replaces a killed one

At the end: the seconds from that kill until /ping answers 200 again, on the wall clock, which other work prolongs.
Without VIDEO, a person is rendered who says one sentence of three seconds.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from inference.settings import Settings
from inference.speaker import SyntheticClip
from training.common.synthetic_clips import draw_sentence

OV = "import numpy, openvino; openvino.Core().available_devices"
SPEECH_RATE = 16000
READY_S = 600.0  # for a server to become ready, on a busy machine
POLL_S = 0.05
Measure = Callable[[], float]  # returns CPU seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        env = prepare_environment(work)
        video = args.video or render_video(work / "video.mp4")
        outages_s: list[float] = []
        measures = list_measures(work, video, write_speech(work / "speech.wav"), env, outages_s)
        rounds = [measure_round(measures) for _ in range(args.rounds + 1)][1:]  # the first one fills the caches
    print_results(rounds)
    print_outages(outages_s[1:])


def prepare_environment(work: Path) -> dict[str, str]:
    """Return the environment of the commands: a new data folder with links to the fetched weights."""
    (work / "data").mkdir()
    (work / "data" / "weights").symlink_to(Settings.from_env().weights_cache)
    return os.environ | {"VISEME_DATA_DIR": str(work / "data")}


def render_video(path: Path) -> Path:
    """Render a person who says one sentence."""
    SyntheticClip(draw_sentence(0), 0).write(path, with_audio=False)
    return path


def write_speech(path: Path) -> Path:
    """Write a second of a tone."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, SPEECH_RATE, 0, "NONE", ""))
        out.writeframes((8000 * np.sin(np.arange(SPEECH_RATE) / 12)).astype(np.int16).tobytes())
    return path


def list_measures(
    work: Path, video: Path, speech: Path, env: dict[str, str], outages_s: list[float]
) -> dict[str, Measure]:
    """Return what to measure, by name. outages_s: gets the seconds for which a killed worker was missing."""
    viseme = (sys.executable, "-m", "container.cli")
    out = str(work / "out.mp4")
    commands = {
        "ov": (sys.executable, "-c", OV),
        "pass": (sys.executable, "-c", "pass"),
        "help": (*viseme, "--help"),
        "read": (*viseme, "read", str(video)),
        "sync": (*viseme, "sync", str(video), str(speech), "-o", out),
        "speak": (*viseme, "avatar", "speak", "starter", str(speech), "-o", out),
    }
    measures: dict[str, Measure] = {
        name: lambda command=command: measure_command(command, env)  # type: ignore[misc]
        for name, command in commands.items()
    }
    measures["ping"] = lambda: measure_ping(viseme, env)
    measures["worker"] = lambda: measure_worker(viseme, env, outages_s)
    return measures


def measure_round(measures: dict[str, Measure]) -> dict[str, float]:
    """Run each command once."""
    return {name: measure() for name, measure in measures.items()}


def measure_command(command: tuple[str, ...], env: dict[str, str]) -> float:
    """Run a command and return its CPU seconds, with those of its children."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{errors.decode()}")
    return usage.ru_utime + usage.ru_stime


@contextmanager
def run_server(viseme: tuple[str, ...], env: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """Run a server on free ports; yield its process and the address of /ping."""
    with socket.socket() as http, socket.socket() as rpc:
        for one in (http, rpc):
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in (http, rpc)]
    arguments = ("serve", "--host", "127.0.0.1", "--port", str(ports[0]), "--grpc-port", str(ports[1]))
    server = subprocess.Popen((*viseme, *arguments), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(server.pid), f"http://127.0.0.1:{ports[0]}/ping"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def measure_ping(viseme: tuple[str, ...], env: dict[str, str]) -> float:
    """Return the CPU seconds of a server until it is ready."""
    with run_server(viseme, env) as (server, url):
        wait_until_ready(url)
        return cpu_seconds(server)


def measure_worker(viseme: tuple[str, ...], env: dict[str, str], outages_s: list[float]) -> float:
    """Return the CPU seconds of a killed worker's successor until it is ready; append the seconds until then."""
    with run_server(viseme, env) as (server, url):
        wait_until_ready(url)
        if (first := find_worker(server)) is None:
            raise SystemExit("the server has no worker")
        first.kill()
        started = time.monotonic()
        time.sleep(POLL_S)
        while (worker := find_worker(server)) is None:
            time.sleep(POLL_S)
        wait_until_ready(url)
        outages_s.append(time.monotonic() - started)
        return cpu_seconds(worker)


def find_worker(server: psutil.Process) -> psutil.Process | None:
    """Return the server's worker, the child that multiprocessing spawned and that is alive; None without one."""
    for child in server.children():
        if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline()):
            return child
    return None


def wait_until_ready(url: str) -> None:
    """Poll /ping until it answers 200."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_S)
    raise SystemExit(f"{url}: not ready after {READY_S:.0f} s")


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its descendants, those that ended included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def print_results(rounds: list[dict[str, float]]) -> None:
    """Print the medians."""
    print(f"median of {len(rounds)} rounds, CPU s of the second start, ratio to ov (help: to pass)")
    for name in rounds[0]:
        unit = "pass" if name == "help" else "ov"
        ratios = [one[name] / one[unit] for one in rounds]
        seconds = statistics.median(one[name] for one in rounds)
        print(f"{name:7}{seconds:6.2f} s{statistics.median(ratios):6.1f}  ({min(ratios):.1f}..{max(ratios):.1f})")


def print_outages(outages_s: list[float]) -> None:
    """Print for how long a killed worker is missing."""
    spread = f"{min(outages_s):.1f}..{max(outages_s):.1f}"
    print(
        f"{statistics.median(outages_s):.1f} s ({spread}) from the kill of a worker to /ping's 200; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
    )


if __name__ == "__main__":
    main()
