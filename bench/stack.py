"""The services of infra/compose.yaml on this machine, without Docker: for trying them, and for load.

    python -m bench.stack [--port 8080] [--workers 2]      (make stack)

starts PostgreSQL, Redis and Prometheus from Debian's packages, a server that only accepts jobs, and workers that run
them; prints the URLs; and ends all of them on SIGINT or SIGTERM. Everything is kept in a temporary folder, and deleted.
Without Prometheus the rest starts; Grafana is in none of Debian's packages.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from bench.backing_servers import free_port, postgresql_server, redis_server

INFRA = Path(__file__).parents[1] / "infra"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0  # as in compose.yaml


@dataclass(frozen=True)
class StackOptions:
    """Options of a stack. Ports of 0 are free ones. server_settings: further variables of the server."""

    port: int = 0
    n_workers: int = 2
    prometheus_port: int = 0
    scrape_interval_s: int = 15
    server_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Stack:
    """Services that run. url: of the server. prometheus_url: None if it is not installed."""

    url: str
    prometheus_url: str | None
    environment: Mapping[str, str]
    folder: Path
    server: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        self.workers.append(start("viseme", ["worker"], self.environment, self.folder, f"worker-{len(self.workers)}"))
        return self.workers[-1]


class StartFailed(Exception):
    """A service did not start. The message has the end of its log."""


@contextlib.contextmanager
def running_stack(options: StackOptions) -> Iterator[Stack]:
    """Yield services that have started, and end them after the block. Raises: ServerMissing, StartFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="viseme-stack-", ignore_cleanup_errors=True) as name,
        postgresql_server() as postgresql,
        redis_server() as redis,
        contextlib.ExitStack() as services,
    ):
        folder, port = Path(name), options.port or free_port()
        environment = stack_environment(postgresql.url, redis.url, folder)
        own = environment | {"SAGEMAKER_BIND_TO_PORT": str(port), "VISEME_ON_SAGEMAKER": "false"}
        own |= options.server_settings
        server = start("viseme", ["serve"], own, folder, "server")
        services.callback(end, [server])
        stack = Stack(f"http://127.0.0.1:{port}", None, environment, folder, server, [])
        services.callback(lambda: end(stack.workers))
        for _ in range(options.n_workers):
            stack.start_worker()
        if (program := shutil.which("prometheus")) is not None:
            prometheus = start_prometheus(program, port, options, folder)
            services.callback(end, [prometheus.process])
            stack.prometheus_url = prometheus.url
        wait_until_ready(f"{stack.url}/ping", server, folder / "server.log")
        yield stack


def stack_environment(database_url: str, broker_url: str, folder: Path) -> dict[str, str]:
    """Return the variables of server and workers: those of compose.yaml, with other values."""
    values = {
        "VISEME_DATABASE_URL": database_url,
        "VISEME_BROKER_URL": broker_url,
        "VISEME_JOB_STORAGE": str(folder / "jobs"),
    }
    without_password = {"PGPASSWORD"}  # the database of this machine trusts its own programs
    assert set(values) | without_password == set(load_yaml(INFRA / "compose.yaml")["x-viseme"]["environment"])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VISEME_") or name in SHARED}
    return kept | values


SHARED = ("VISEME_DATA_DIR", "VISEME_WEIGHTS", "VISEME_CHECKPOINTS", "VISEME_THREADS", "VISEME_AVATARS")


@dataclass(frozen=True)
class PrometheusProcess:
    """A Prometheus that has been started. url: of it."""

    url: str
    process: subprocess.Popen[bytes]


def start_prometheus(program: str, port: int, options: StackOptions, folder: Path) -> PrometheusProcess:
    """Start Prometheus by the configuration of infra, but for the address of the server and files of the image."""
    config = load_yaml(INFRA / "prometheus" / "prometheus.yml")
    config["rule_files"] = [str(INFRA / "prometheus" / name) for name in config["rule_files"]]
    config["global"] = dict.fromkeys(config["global"], f"{options.scrape_interval_s}s")
    [viseme] = [one for one in config["scrape_configs"] if one["job_name"] == "viseme"]
    config["scrape_configs"] = [{"job_name": "viseme", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]
    assert viseme["static_configs"] == [{"targets": ["server:8080"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    own_port = options.prometheus_port or free_port()
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
    arguments.append(f"--web.listen-address=127.0.0.1:{own_port}")
    process = start(program, arguments, os.environ, folder, "prometheus")
    return PrometheusProcess(f"http://127.0.0.1:{own_port}", process)


def start(
    program: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, name: str
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with a log in the folder. viseme: that of this Python."""
    command = [sys.executable, "-m", "container.cli"] if program == "viseme" else [program]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *arguments], env=dict(environment), stdout=log, stderr=log, start_new_session=True
        )


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a URL answers 200. Raises: StartFailed."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise StartFailed(f"the server did not start; its log ends with:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes as Docker does: by SIGTERM, and after the grace period by SIGKILL."""
    for process in processes:
        process.terminate()
    give_up = time.monotonic() + STOP_TIMEOUT_S
    for process in processes:
        try:
            process.wait(max(give_up - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load_yaml(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load(path.read_text("utf-8")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stack until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m bench.stack", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="of the server (8080)")
    parser.add_argument("--prometheus-port", type=int, default=9090, help="of Prometheus (9090)")
    parser.add_argument("--workers", type=int, default=2, help="processes that run jobs (2)")
    args = parser.parse_args(arguments)
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: ended.set())
    with running_stack(StackOptions(args.port, args.workers, args.prometheus_port)) as stack:
        print(f"page and API  {stack.url}")
        print(f"Prometheus    {stack.prometheus_url or 'not installed (Debian package prometheus)'}")
        print(f"logs          {stack.folder}", flush=True)
        ended.wait()
        print("ending", flush=True)


if __name__ == "__main__":
    main()
