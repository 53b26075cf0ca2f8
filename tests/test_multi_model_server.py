"""A load that fails under a model server; processes of the same shape stand in for it.

Source of the shape: a container of the stock image. The real server is in tests/deploy/test_multi_model_server.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from inference import multi_model_server
from inference.errors import WorkerDied
from inference.multi_model_server import SERVER_CLASS, ending_server_on_failure

PATIENCE_S = 60.0  # only a guard against hanging
TOOLKIT = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would this one
server = subprocess.Popen([sys.executable, "-c", sys.argv[2], "{server}", sys.argv[3]])
server.wait()
subprocess.call(["tail", "-f", "/dev/null"])
"""
SERVER = """
import subprocess, sys
while subprocess.call([sys.executable, "-c", sys.argv[2]]) < 0:
    pass
"""
WORKER = """
import os, time
from inference.multi_model_server import ending_server_on_failure
with ending_server_on_failure({timeout_s}):
    {load}
"""


def start(tmp_path: Path, load: str, timeout_s: float, server: str = SERVER_CLASS) -> tuple[subprocess.Popen, Path]:
    log = tmp_path / "log"
    worker = WORKER.format(timeout_s=timeout_s, load=load)
    with log.open("ab") as stderr:
        command = [sys.executable, "-c", TOOLKIT.format(server=server), "serve", SERVER, worker]
        env = os.environ | {"TMPDIR": str(tmp_path)}
        return subprocess.Popen(command, stderr=stderr, env=env, start_new_session=True), log


@pytest.mark.parametrize(
    ("load", "timeout_s", "reason"),
    [
        ("raise ValueError('no such weights')", 0, "ValueError: no such weights"),
        ("import no_such_package", 300, "ModuleNotFoundError: No module named 'no_such_package'"),
        ("time.sleep(100)", 2, "not loaded in time, which is 2 s"),
        ("os.kill(os.getpid(), 9)", 300, "WorkerDied: 3 processes died while they loaded them; perhaps there is too "),
    ],
)
def test_a_failed_load_ends_server_and_container(tmp_path: Path, load: str, timeout_s: float, reason: str):
    toolkit, log = start(tmp_path, load, timeout_s)
    family: set[psutil.Process] = set()
    give_up = time.monotonic() + PATIENCE_S
    try:
        while toolkit.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(psutil.NoSuchProcess):
                family |= set(psutil.Process(toolkit.pid).children(recursive=True))
            time.sleep(0.05)
    finally:
        toolkit.kill()
    assert toolkit.returncode == -signal.SIGINT
    assert len(family) >= 2  # server and worker; what the entry point sleeps with may end before it is seen
    end_sleep(family)
    while any(multi_model_server.is_running(one.pid) for one in family):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert f"viseme: the models cannot be loaded, so the model server is ended: {reason}" in log.read_text()


def end_sleep(family: set[psutil.Process]) -> None:
    """End what the entry point sleeps with: an interrupt may come between its start and the wait for it.

    In a container the end of process 1 ends everything.
    """
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.name() == multi_model_server.ENTRY_SLEEP:
                one.kill()


def test_a_load_that_succeeds_leaves_the_server_alone(tmp_path: Path):
    toolkit, log = start(tmp_path, "print('loaded')", 300)
    server = psutil.Process(toolkit.pid)
    try:
        psutil.wait_procs(server.children(), timeout=60)  # the worker's end ends this stand-in
        assert toolkit.poll() is None
        assert "viseme:" not in log.read_text()
    finally:
        for one in server.children(recursive=True):
            one.kill()
        toolkit.kill()
        toolkit.wait()


def test_loads_that_died_under_an_earlier_server_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = [subprocess.Popen([sys.executable, "-c", ""]) for _ in range(multi_model_server.MAX_DEAD_LOADS)]
    with multi_model_server.marked_load(os.getpid()):
        [folder] = tmp_path.iterdir()
        assert [mark.name for mark in folder.iterdir()] == [str(os.getpid())]
    for one in ended:
        one.wait()
        (folder / str(one.pid)).touch()
    with pytest.raises(WorkerDied, match="3 processes died"), multi_model_server.marked_load(os.getpid()):
        pass
    monkeypatch.setattr(multi_model_server, "start_ticks", lambda pid: 1)  # the next server with the same process ID
    with multi_model_server.marked_load(os.getpid()):
        pass


def test_without_a_server_the_error_is_only_raised(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="no such weights"), ending_server_on_failure(300):
        raise ValueError("no such weights")
    assert multi_model_server.find_server() is None
    assert capfd.readouterr().err == ""
