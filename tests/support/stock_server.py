"""The stock image's own server, Multi Model Server under Hugging Face's toolkit, over an unpacked archive."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.arguments import stock_server_environment
from deploy.aws_requests import WORKERS_VARIABLE
from support.stock_layer import Layer

PATIENCE_S = 300.0  # only a guard against hanging
COMPILED = Path(__file__).parents[2] / "build" / "stock-image" / "compiled"  # compiled files of the image's packages
RUN = Path(__file__).with_name("stock_server_run.py")
CONSOLE_SCRIPT = """#!{python}
import sys
from mms.model_server import start
sys.exit(start())
"""


@dataclass(frozen=True)
class Reply:
    """A response as its caller receives it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class StockServer:
    """The processes of a container, and requests to its port."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def invoke(self, body: bytes, content_type: str | None, **headers: str) -> Reply:
        """Call /invocations. headers: with underscores for hyphens."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request(
            "POST", "/invocations", body, names | ({"Content-Type": content_type} if content_type else {})
        )

    def is_open(self) -> bool:
        with socket.socket() as own:
            return own.connect_ex(("127.0.0.1", self.port)) == 0

    def processes(self) -> list[psutil.Process]:
        """Return the processes that live in the container, besides process 1."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def command_lines(self) -> list[str]:
        """Return the commands of the living processes besides process 1."""
        found = []
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # zombies, too
                found.append(" ".join(one.cmdline()))
        return found

    def terminate(self) -> None:
        """Send what Docker sends to stop a container."""
        self.process.send_signal(signal.SIGTERM)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a condition. Raises: AssertionError with the end of the log if it takes too long."""
        give_up = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < give_up, self.log()[-3000:]
            time.sleep(0.1)

    def wait_until_loaded(self) -> None:
        def is_loaded() -> bool:
            has_stopped = self.process.poll() is not None or "Model server stopped." in self.log()
            assert not has_stopped, self.log()[-3000:]
            return "Model model loaded io_fd=" in self.log()

        self.wait_until(is_loaded)


@contextmanager
def stock_server(
    layer: Layer, model_dir: Path, prefix: Sequence[str] = (), **environment: str
) -> Iterator[StockServer]:
    """Start the server with the environment that `deploy.endpoint` sets, and end all its processes afterwards.

    model_dir: named `model`, in a folder that stands for /opt/ml. prefix: a command that starts the server's.
    environment: replaces variables.
    """
    home = Path(tempfile.mkdtemp(prefix="stock-"))  # short: names of sockets have 107 bytes at most
    port = free_port()
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [*prefix, str(layer.python), "-P", str(RUN), "serve", str(home / "mms.properties")],
            env=container_environment(layer, model_dir, home, port) | environment,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = StockServer(process, port, home / "log")
    try:
        yield server
    finally:
        family = server.processes()
        process.kill()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def container_environment(layer: Layer, model_dir: Path, home: Path, port: int) -> dict[str, str]:
    """Return the environment of the image, of SageMaker, and of `deploy.endpoint`."""
    scripts = home / "bin"
    scripts.mkdir()
    script = scripts / "multi-model-server"
    script.write_text(CONSOLE_SCRIPT.format(python=layer.python))
    script.chmod(0o755)
    image_scripts = layer.below.parents[2] / "bin"  # of which the toolkit runs model-archiver, if HF_MODEL_ID is set
    address = f"http://127.0.0.1:{port}"
    return stock_server_environment("realtime", 1) | {
        WORKERS_VARIABLE: "1",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(model_dir / "code"),
        "VISEME_DEVICE": "cpu",
        "PATH": os.pathsep.join(str(one) for one in (scripts, layer.python.parent, image_scripts, os.environ["PATH"])),
        "HOME": str(home),
        "TEMP": str(home),
        "TMPDIR": str(home),
        "LOG_LOCATION": str(home / "logs"),
        "METRICS_LOCATION": str(home / "logs"),
        "PYTHONPYCACHEPREFIX": str(COMPILED),
        "PYTHONUNBUFFERED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "SAGEMAKER_BASE_DIR": str(model_dir.parent),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "MMS_INFERENCE_ADDRESS": address,  # the toolkit opens it to the network
        "MMS_MANAGEMENT_ADDRESS": address,
    }


def free_port() -> int:
    """Return a port of the registered range: the server refuses those that the system gives out."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as own:
            if own.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")
