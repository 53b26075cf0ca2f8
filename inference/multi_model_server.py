"""The model server of SageMaker's stock images: ended if the models cannot be loaded.

Multi Model Server 1.1.11 logs what a handler's `initialize` raises and goes on as if it had succeeded
(`mms/model_loader.py`), answers `/ping` with 200 whatever its workers do (`ModelManager.workerStatus`), and starts a
load again and again that takes too long or whose process dies. SageMaker would report an endpoint in service that
answers no request. If its process ends instead, SageMaker reports that the container failed.

A container has the processes: hosting toolkit (process 1), Multi Model Server, worker, and the worker's child for one
connection, which runs the handler. After Multi Model Server the image's entry point sleeps for ever
(`mms-entrypoint.py` of aws/deep-learning-containers), so the toolkit must be ended too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import WorkerDied

if TYPE_CHECKING:
    import psutil

SERVER_CLASS = "com.amazonaws.ml.mms.ModelServer"
TOOLKIT_ARGUMENT = "serve"  # of the image's entry point, as SageMaker starts every container
MAX_DEAD_LOADS = 3  # processes that may die while they load, as if killed for memory, before the server is ended
MARGIN_S = 15.0  # a load is given up this long before the server would start another one beside it
ENTRY_SLEEP = "tail"  # the command with which the entry point sleeps
SLEEP_TIMEOUT_S = 3.0  # seconds for the toolkit to see that the server has ended
END_TIMEOUT_S = 5.0  # seconds for the toolkit to end once it is interrupted
POLL_S = 0.1


@contextlib.contextmanager
def ending_server_on_failure(timeout_s: float) -> Iterator[None]:
    """End the model server, if there is one, if the block fails or takes longer than the server waits.

    It is also ended if several processes died in the block before, since the server would start others for ever.
    timeout_s: that a load may take, from when this process started; at most what the server waits. 0: for ever.
    Raises: the error of the block.
    """
    server = find_server()
    if server is None:
        yield
        return
    watchdog = start_watchdog(timeout_s) if timeout_s else None
    try:
        with marked_load(server.pid):
            yield
    except BaseException as err:
        end_server(f"{type(err).__name__}: {err}", traceback.format_exc())
        raise
    finally:
        if watchdog is not None:
            watchdog.cancel()


@contextlib.contextmanager
def marked_load(server_pid: int) -> Iterator[None]:
    """Leave a file if this process dies in the block.

    Raises: WorkerDied if too many processes have left one.
    """
    # After a restart the container may still have its files, and the server its process ID.
    folder = Path(tempfile.gettempdir()) / f"viseme-loads-{server_pid}-{start_ticks(server_pid)}"
    folder.mkdir(exist_ok=True)
    n_dead = sum(not is_running(int(mark.name)) for mark in folder.iterdir())
    if n_dead >= MAX_DEAD_LOADS:
        raise WorkerDied(f"{n_dead} processes died while they loaded them; perhaps there is too little memory")
    mark = folder / str(os.getpid())
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since the machine did. Source: proc(5), /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def is_running(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_watchdog(timeout_s: float) -> threading.Timer:
    """Start the timer that ends the server shortly before it would give up this load."""
    import psutil

    # The server's own time began with this process, which first imported the toolkit.
    limit_s = max(timeout_s - MARGIN_S, timeout_s / 2) - (time.time() - psutil.Process().create_time())

    def give_up() -> None:
        end_server(f"not loaded in time, which is {timeout_s:g} s")
        os._exit(1)  # the load goes on in another thread

    watchdog = threading.Timer(max(limit_s, 0), give_up)
    watchdog.daemon = True
    watchdog.start()
    return watchdog


def find_server() -> psutil.Process | None:
    """Return the Multi Model Server that this process is a worker of; None if it runs elsewhere."""
    try:
        import psutil  # a requirement of Multi Model Server
    except ImportError:
        return None
    for parent in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            if SERVER_CLASS in parent.cmdline():
                return parent
    return None


def end_server(reason: str, details: str = "") -> None:
    """Log the reason and end toolkit, server and worker; do nothing outside Multi Model Server."""
    server = find_server()
    if server is None:
        return
    import psutil

    toolkit = server.parent()
    workers = [parent for parent in psutil.Process().parents() if server in parent.parents()]
    write_log(server.pid, f"{details}viseme: the models cannot be loaded, so the model server is ended: {reason}\n")
    for process in (server, *workers):
        with contextlib.suppress(psutil.Error):
            process.kill()
    with contextlib.suppress(psutil.Error):  # it has ended by itself
        if toolkit is not None and TOOLKIT_ARGUMENT in toolkit.cmdline():
            end_toolkit(toolkit)


def end_toolkit(toolkit: psutil.Process) -> None:
    """End the toolkit, whose server has just ended.

    As process 1 it ignores every signal without a handler, and its own for SIGTERM only ends the server. An interrupt
    ends it, with a traceback that is short once the entry point sleeps.
    """
    import psutil

    give_up = time.monotonic() + SLEEP_TIMEOUT_S
    while time.monotonic() < give_up and not is_asleep(toolkit):
        time.sleep(POLL_S)
    toolkit.send_signal(signal.SIGINT)
    try:
        toolkit.wait(END_TIMEOUT_S)
    except psutil.TimeoutExpired:
        toolkit.kill()


def is_asleep(toolkit: psutil.Process) -> bool:
    """Return whether the toolkit has finished, and its entry point runs the command with which it sleeps."""
    import psutil

    for child in toolkit.children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if child.name() == ENTRY_SLEEP:
                return True
    return False


def write_log(pid: int, text: str) -> None:
    """Write to the standard error of a process: the server would end before it has copied the worker's."""
    try:
        with open(f"/proc/{pid}/fd/2", "a", encoding="utf-8") as log:
            log.write(text)
    except OSError:  # not a file, pipe or terminal
        sys.stderr.write(text)
        sys.stderr.flush()
        time.sleep(1)
