"""The server that `bench.attack` attacks: any checkout's, with folders of its own, and the memory of its processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from inference.settings import default_data_dir

READY_TIMEOUT_S = 180.0
READY_EVENT = '"event": "viseme is ready"'
RUN = "import sys; from container.cli import main; sys.exit(main(sys.argv[1:]))"
DECODER_COMMAND = "inference.media"  # in the command line of the decoder's child
WORKER_COMMAND = "multiprocessing.spawn"
FOREIGN_SETTINGS = ("VISEME_", "SAGEMAKER_", "AWS_", "HF_", "SM_")
FETCHED = Path("weights", "mediapipe")  # the one set that the server needs and that is not shipped
POLL_S = 0.025
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def checkout_env(root: Path, folder: Path) -> dict[str, str]:
    """Return an environment for a checkout's commands: its code, folders of its own, and no settings from outside."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    for name in ("data", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copytree(default_data_dir(os.environ) / FETCHED, folder / "data" / FETCHED, dirs_exist_ok=True)
    own = {"PYTHONPATH": str(root), "VISEME_DATA_DIR": str(folder / "data"), "TMPDIR": str(folder / "tmp")}
    return env | own | {"HF_HUB_OFFLINE": "1"}


def run_command(root: Path, folder: Path, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `viseme` of a checkout to its end."""
    command = [sys.executable, "-c", RUN, *arguments]
    env = checkout_env(root, folder)
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)


@dataclass
class AttackedServer:
    """A running server. Starts in a session of its own, so that everything it started can be ended."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    log: Path

    @property
    def leftovers(self) -> list[str]:
        """Return the names of the files in its folder for temporary files."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir() if path.name.startswith("viseme-"))

    def worker_pid(self) -> int:
        """Return the process ID of its worker. Raises: RuntimeError if there is none."""
        for pid in descendants_of(self.process.pid):
            if WORKER_COMMAND in command_of(pid):
                return pid
        raise RuntimeError("the server has no worker")

    def end_decoders(self) -> None:
        """End the decoder's children: the next file gets a new one, whose memory is its own."""
        for pid in descendants_of(self.process.pid):
            if DECODER_COMMAND in command_of(pid):
                with contextlib.suppress(OSError):  # gone, or of another user
                    os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it as the kernel would, without any chance to clean up, and wait for its children to follow."""
        children = descendants_of(self.process.pid)
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 10
        while any(command_of(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """End it and all it started."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def attacked_server(root: Path, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[AttackedServer]:
    """Serve the code in `root` on a free loopback port inside of the block.

    folder: for its data and temporary files; they stay. settings: more variables of its environment.
    Raises: SystemExit if it does not start.
    """
    log = folder / f"server-{time.time_ns()}.log"
    command = [sys.executable, "-c", RUN, "serve", "--port", "0"]
    env = checkout_env(root, folder) | dict(settings or {})
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=root, env=env, stderr=stderr, start_new_session=True)
    server = AttackedServer(process, 0, folder, log)
    try:
        server.port = wait_for_port(process, log)
        yield server
    finally:
        server.close()


def wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port that the log names once the models are loaded."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while READY_EVENT not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start; the end of its log:\n{text[-2000:]}")
        time.sleep(0.1)
    ready = next(line for line in text.splitlines() if READY_EVENT in line)
    return int(json.loads(ready)["port"])


def descendants_of(pid: int) -> list[int]:
    """Return the process IDs of all children, and theirs."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (fields := stat_of(int(path.name))):
            parents.setdefault(int(fields[1]), []).append(int(path.name))
    found: list[int] = []
    left = [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, the state first; none if the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS if fields else 0.0


def peak_bytes_of(pid: int) -> int:
    """Return the largest resident memory that a process had; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


@dataclass
class DecoderWatch:
    """The decoder's children of one server while a file is read: their largest memory, and their CPU time."""

    pid: int
    peak_bytes: int = 0
    _cpu_s: dict[int, tuple[float, float]] = field(default_factory=dict)  # at the start and last, by process
    _is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def cpu_s(self) -> float:
        return sum(last - first for first, last in self._cpu_s.values())

    @contextmanager
    def running(self) -> Iterator[DecoderWatch]:
        """Watch inside of the block."""
        self._look(is_start=True)
        thread = threading.Thread(target=self._poll)
        thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            thread.join()
            self._look()

    def _poll(self) -> None:
        while not self._is_over.wait(POLL_S):
            self._look()

    def _look(self, *, is_start: bool = False) -> None:
        for pid in descendants_of(self.pid):
            # Before its memory: until it runs its own command, a child has its parent's.
            if DECODER_COMMAND in command_of(pid):
                self.peak_bytes = max(self.peak_bytes, peak_bytes_of(pid))
                cpu_s = cpu_seconds_of(pid)
                first, last = self._cpu_s.get(pid, (cpu_s if is_start else 0.0, 0.0))
                self._cpu_s[pid] = first, max(cpu_s, last)


class CountingHandler(BaseHTTPRequestHandler):
    """Answers every request with 404, and records that it arrived."""

    def do_request(self) -> None:
        """Record the request."""
        self.server.requests.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = do_request  # noqa: N815 - the names of http.server

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


class CountingStorage(ThreadingHTTPServer):
    """An empty S3 on loopback. requests: what a server tried to read or write."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CountingHandler)
        self.requests: list[str] = []

    @contextmanager
    def running(self) -> Iterator[CountingStorage]:
        """Answer inside of the block."""
        thread = threading.Thread(target=self.serve_forever, args=(POLL_S,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    @property
    def settings(self) -> dict[str, str]:
        """Variables that lead a server to it, with credentials that are worth nothing."""
        address = f"http://127.0.0.1:{self.server_address[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL_S3": address, "AWS_EC2_METADATA_DISABLED": "true"} | keys
