"""`viseme dev`: the account, its stack, its endpoint and its container, from start to end."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from werkzeug.serving import BaseWSGIServer

from deploy import endpoint, rollout
from deploy.arguments import make_spec
from deploy.aws import BotoAws
from deploy.dev.async_invocations import AsyncInvoker
from deploy.dev.container_process import ServerProcess
from deploy.dev.events import EventPump, Scheduler, Wakeup
from deploy.dev.functions import FOREIGN_PREFIX, LocalFunction, local_environment
from deploy.dev.gateway import AccessCheck, Gateway, open_port
from deploy.dev.http_proxy import ContainerConnection
from deploy.dev.log_publisher import LogPublisher, ServerLog
from deploy.dev.moto_account import make_moto_app
from deploy.dev.runtime import SageMakerRuntime
from deploy.dev.saved_account import SavedAccount
from deploy.dev.stack import REGION, LocalStack, StackNames
from deploy.waiting import WaitPolicy

logger = logging.getLogger("viseme.dev")
DRAIN_TIMEOUT_S = 26.0  # the container's own is 25 s; all has ended after 30 s
THREAD_TIMEOUT_S = 2.0
POLL_S = 0.5


@dataclass(frozen=True)
class AccountOptions:
    """What a caller chooses. data: the folder that survives a restart; None: all is forgotten."""

    host: str
    port: int
    bucket: str
    endpoint: str
    data: Path | None


class StopSignal:
    """Whether a signal arrived, and how many."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def run_account(options: AccountOptions, access: AccessCheck, report: Callable[[str], None]) -> bool:
    """Run the account until SIGTERM or SIGINT.

    access: decides which requests are answered. report: gets the commands to copy, a line each, once all is ready.
    Returns: False if the container ended by itself. Raises: DeployError if the account cannot be made; OSError.
    """
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.handle)
    wakeup = Wakeup()
    gateway = Gateway(make_moto_app(), access, wakeup)
    with ExitStack() as stack:
        server = stack.enter_context(serving(open_port(options.host, options.port, gateway)))
        url = url_of(options.host, server.server_port)
        return LocalAccount(options, url, gateway, wakeup, stop).run(report)


class LocalAccount:
    """The parts behind the port."""

    def __init__(self, options: AccountOptions, url: str, gateway: Gateway, wakeup: Wakeup, stop: StopSignal) -> None:
        """Make the stack, with what was saved. Raises: DeployError, OSError."""
        self._options, self._url, self._gateway, self._wakeup, self._stop = options, url, gateway, wakeup, stop
        names = StackNames(url, options.bucket)
        self._stack = LocalStack(names, options.endpoint)
        async_queue = f"{names.stack}-async-invocations"
        queue_names = [*self._stack.queues, async_queue]
        self._saved = SavedAccount(options.data, self._stack.tables, queue_names) if options.data else None
        self._environment = local_environment(url)
        use_environment(self._environment)
        self._aws = BotoAws(REGION)
        self._stack.create(self._aws)
        self._aws.call("sqs", "CreateQueue", QueueName=async_queue)
        if self._saved:
            self._saved.restore(self._aws)
            gateway.saved = self._saved
            self._saved.save_buckets()
            self._saved.save_queues()
        self._async_url = names.queue_url(async_queue)
        self._container = ContainerConnection()
        self._functions = [LocalFunction(spec, self._environment) for spec in self._stack.functions]

    def run(self, report: Callable[[str], None]) -> bool:
        """Start the container, create the endpoint, and wait for a signal; see `run_account`."""
        log = ServerLog()
        process = ServerProcess(self._environment, self._url, log)
        threads: list[threading.Thread] = []
        try:
            self._gateway.functions = {one.spec.name: one for one in self._functions}
            self._gateway.runtime = SageMakerRuntime(self._aws, self._container, self._async_url)
            self._create_endpoint()
            if not self._wait_for(process):
                return self._stop.count > 0
            self._container.port = process.port
            threads = self._start_threads(log)
            for line in commands_to_copy(self._url, self._options):
                report(line)
            while process.is_running and not self._stop.count:
                time.sleep(POLL_S)
            return self._stop.count > 0
        finally:
            self._close(process, threads)

    def _wait_for(self, process: ServerProcess) -> bool:
        """Wait until the container is ready; return False if it ended, or a signal arrived."""
        while process.is_running and not self._stop.count:
            if process.wait_until_ready(POLL_S):
                return True
        if not self._stop.count:
            logger.error("the container ended; the reason is above")
        return False

    def _create_endpoint(self) -> None:
        """Create the endpoint by the template's own command. Raises: DeployError."""
        words = shlex.split(self._stack.deploy_command)
        image = f"{REGION}.viseme.dev"  # of no registry: the container is a process of this machine
        args = endpoint.make_parser().parse_args([*words[3:], "--image-uri", image])
        policy = WaitPolicy(report=lambda _: None)
        rollout.create(self._aws, make_spec(args, datetime.now(UTC)), policy)

    def _start_threads(self, log: ServerLog) -> list[threading.Thread]:
        threads: list[threading.Thread] = [EventPump(self._aws, one, self._wakeup) for one in self._functions]
        threads += [Scheduler(self._aws, one, self._wakeup) for one in self._stack.schedules]
        threads.append(AsyncInvoker(self._aws, self._container, self._async_url, self._wakeup))
        threads.append(LogPublisher(self._aws, log, self._wakeup))
        for thread in threads:
            thread.start()
        self._wakeup.notify()  # for what was saved
        return threads

    def _close(self, process: ServerProcess, threads: list[threading.Thread]) -> None:
        """Finish what runs, and end every process."""
        logger.info("stopping; a second signal stops at once")
        self._wakeup.stop()
        process.terminate()
        give_up, n_signals = time.monotonic() + DRAIN_TIMEOUT_S, self._stop.count
        while process.is_running and time.monotonic() < give_up and self._stop.count <= max(1, n_signals):
            time.sleep(0.05)
        process.end(0.0)
        for function in self._functions:
            function.close()
        give_up = time.monotonic() + THREAD_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))


@contextmanager
def serving(server: BaseWSGIServer) -> Iterator[BaseWSGIServer]:
    """Answer requests in threads inside of the block."""
    thread = threading.Thread(target=server.serve_forever, name="port", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_environment(environment: dict[str, str]) -> None:
    """Let this process call the local account, and no other."""
    for name in [name for name in os.environ if name.startswith(FOREIGN_PREFIX)]:
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name.startswith(FOREIGN_PREFIX)})


def url_of(host: str, port: int) -> str:
    """Return where this machine reaches the port. By address: S3's clients then put the bucket into the path."""
    if host in ("", "0.0.0.0", "localhost"):  # noqa: S104 - compared, not bound to
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def commands_to_copy(url: str, options: AccountOptions) -> Iterator[str]:
    """Yield the lines that are printed once the account is ready."""
    at = f"--endpoint-url {url} --region {REGION}"
    bucket, name = options.bucket, options.endpoint
    yield "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    yield f"aws s3 cp clip.mp4 s3://{bucket}/uploads/ {at}"
    yield f"aws s3 cp s3://{bucket}/results/clip.mp4.json - {at}"
    yield f"aws s3 ls --recursive s3://{bucket}/ {at}"
    yield (
        f"aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type video/mp4 "
        f"--body fileb://clip.mp4 answer.json {at}"
    )
    yield (
        f"aws sagemaker-runtime invoke-endpoint-async --endpoint-name {name} --content-type video/mp4 "
        f"--input-location s3://{bucket}/uploads/clip.mp4 {at}"
    )
    yield f"export AWS_ENDPOINT_URL={url} AWS_DEFAULT_REGION={REGION}  # for deploy.endpoint, boto3, AWS CLI 2.13 on"
