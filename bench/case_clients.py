"""Runs the clients of the case scripts against a server: what they print, by the name of the request."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from bench.attack_server import AttackedServer, attacked_server
from bench.case_runs import Outcome
from inference.settings import Settings

CLIENT_LIMIT_S = 400.0
STUB_LIMIT_S = 60.0
BUCKET = "clips"
HTTP_NAME, LIVE_NAME = r"(.*?)\s+(?:\d{3} |EXC )", r"(.*?)\s+frames \d"  # at the start of a line about a request


def run_clients(root: Path, scripts: Path, inputs: Path) -> dict[str, Outcome]:
    """Serve the code in `root`, and run http_clients.py and live_clients.py; return the outcome of each request."""
    video, still = inputs / "case_inputs/plain.mp4", inputs / "stills/plain.jpg"
    audio, live_audio = inputs / "voices/base.wav", inputs / "case_inputs/live.wav"
    with tempfile.TemporaryDirectory(prefix="viseme-cases-") as name, s3_stub(scripts, video, audio) as endpoint:
        folder = Path(name)
        copy_starter(folder)
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
        with attacked_server(root, folder, keys | {"AWS_ENDPOINT_URL_S3": endpoint}) as server:
            http = run_client(
                scripts / "http_clients.py", f"http://127.0.0.1:{server.port}", video, audio, still, BUCKET
            )
            outcomes = split_output(http, HTTP_NAME, is_indented=False)
            live = run_client(scripts / "live_clients.py", f"ws://127.0.0.1:{server.port}", live_audio)
            outcomes |= split_output(live, LIVE_NAME, is_indented=True)
            outcomes["chunks"] = send_chunks(server, video)
            outcomes["caller leaves"] = leave_in_the_middle(server, video)
    return outcomes


def copy_starter(folder: Path) -> None:
    """Copy the starter avatar that was rendered before, so that the server need not."""
    made = Settings.from_env().data_dir / "avatars"
    if made.is_dir():
        shutil.copytree(made, folder / "data" / "avatars", ignore=shutil.ignore_patterns("*.lock"))


def run_client(script: Path, *arguments: object) -> str:
    """Return what a client prints; what it printed so far if it does not end in time."""
    command = [sys.executable, str(script), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CLIENT_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as err:
        return (err.stdout or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def split_output(printed: str, pattern: str, *, is_indented: bool) -> dict[str, Outcome]:
    """Return the part of the output about each request. pattern: finds its name. is_indented: further lines are."""
    parts: dict[str, list[str]] = {}
    name = ""
    for line in printed.splitlines():
        if not (is_indented and line.startswith(" ")):
            match = re.match(pattern, line)
            name = (match[1] if match else line).strip()
        parts.setdefault(name, []).append(line)
    return {name: Outcome(printed="\n".join(lines)) for name, lines in parts.items()}


def send_chunks(server: AttackedServer, video: Path) -> Outcome:
    """Send a video in chunks, without its length."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = video.read_bytes()
    parts = (body[i : i + 5000] for i in range(0, len(body), 5000))
    headers = {"Content-Type": "video/mp4", "Transfer-Encoding": "chunked"}
    with contextlib.closing(connection):
        connection.request("POST", "/invocations", parts, headers, encode_chunked=True)
        answer = connection.getresponse()
        return Outcome(printed=f"chunks {answer.status} {answer.read()[:200].decode()}")


def leave_in_the_middle(server: AttackedServer, video: Path) -> Outcome:
    """Send a video and close the connection without waiting; return how long the next caller waits."""
    body, headers = video.read_bytes(), {"Content-Type": "video/mp4"}
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port)) as leaving:
        leaving.request("POST", "/invocations", body, headers)
        time.sleep(0.5)
    started = time.monotonic()
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as next_one:
        next_one.request("POST", "/invocations", body, headers)
        answer = next_one.getresponse()
        return Outcome(printed=f" {answer.status} {answer.reason} after {time.monotonic() - started:.1f} s")


@contextmanager
def s3_stub(scripts: Path, video: Path, audio: Path) -> Iterator[str]:
    """Serve the stand-in for S3 on a free port; provide its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(scripts / "s3_stub.py"), str(port), str(video), str(audio)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        started = time.monotonic()
        while (line := process.stdout.readline()) and b"ready" not in line:
            if time.monotonic() > started + STUB_LIMIT_S:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
