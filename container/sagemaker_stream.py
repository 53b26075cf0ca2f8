"""A live session through a SageMaker endpoint: the operation InvokeEndpointWithBidirectionalStream.

It needs HTTP/2, which boto3 does not speak: AWS's SDK for it is asynchronous and needs Python 3.12. Its event loop runs
in a thread of its own, so that `LiveClient` is the same over all connections.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.session
from botocore.exceptions import BotoCoreError, ProfileNotFound

from container.rejections import RequestRejected, rejection_of

PORT = 8443  # of the HTTP/2 API, on the runtime's usual host
CLOSE_TIMEOUT_S = 5.0  # for the last event, and for the thread to end
EXTRA = (
    "live sessions over SageMaker need AWS's HTTP/2 SDK, which is the extra 'sagemaker-live' "
    "(pip install '.[sagemaker-live]') and needs Python 3.12 or newer"
)
Result = TypeVar("Result")
logger = logging.getLogger("viseme.client")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")  # as the deployment's commands; boto3 reads the second only


@dataclass(frozen=True)
class EndpointAddress:
    """An endpoint and its region."""

    name: str
    region: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse sagemaker://NAME or sagemaker://NAME?region=REGION.

        Without one, the region is that of the environment or of the AWS profile.
        Raises: ValueError if the name or the region is missing, or there is no such profile.
        """
        parts = urlsplit(url)
        if not parts.netloc or parts.path.strip("/"):
            raise ValueError(f"{url}: expected sagemaker://ENDPOINT or sagemaker://ENDPOINT?region=REGION")
        given = parse_qs(parts.query).get("region", [])
        region = given[0] if given else find_region()
        if not region:
            raise ValueError(f"{url}: no region; add ?region=REGION, or set AWS_REGION")
        return cls(parts.netloc, region)


def find_region() -> str | None:
    """Return the region of the environment or of the AWS profile. Raises: ValueError if there is no such profile."""
    session = botocore.session.Session(session_vars={"region": ("region", list(REGION_VARIABLES), None, None)})
    try:
        region: str | None = session.get_config_variable("region")
    except ProfileNotFound as err:
        raise ValueError(str(err)) from err
    return region


class SageMakerStream:
    """Passes the messages of one session, as a WebSocket does. `send` and `recv` may be called from two threads."""

    def __init__(self, address: EndpointAddress, query: str, timeout_s: float) -> None:
        """Open the stream. query: of the container's route.

        Raises: ModuleNotFoundError without AWS's SDK, RequestRejected, ConnectionError, TimeoutError.
        """
        self._sdk = Http2Sdk()
        self._address, self._timeout_s = address, timeout_s
        self._pending: asyncio.Task[bytes | str] | None = None
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._loop.set_exception_handler(log_background_error)
        self._thread = threading.Thread(target=self._run_loop, daemon=True, name="sagemaker-stream")
        self._thread.start()
        try:
            self._client, self._stream = self._run(self._connect(query), timeout_s)
        except BaseException:
            self._stop_loop()
            raise

    def send(self, message: bytes | str) -> None:
        """Send a binary or a text message. Raises: RequestRejected if the stream is closed, TimeoutError."""
        self._run(self._send(message), self._timeout_s)

    def recv(self, timeout: float) -> bytes | str:
        """Return the next message; bytes if it is binary. It is still received after a TimeoutError.

        Raises: RequestRejected if the stream is closed, or with the model's error; TimeoutError.
        """
        try:
            message = self._run(self._receive(), timeout)
        except TimeoutError:
            raise
        except BaseException:
            self._pending = None
            raise
        self._pending = None
        return message

    def close(self) -> None:
        """Close the stream. Closing it again has no effect."""
        if self._thread.is_alive():
            with suppress(TimeoutError):  # the connection is dead, and ends with its thread
                self._run(self._close(), CLOSE_TIMEOUT_S)
            self._stop_loop()

    def _run_loop(self) -> None:
        with self._runner:  # at its end, what is left of the stream is canceled
            self._loop.run_forever()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self, work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        """Run a coroutine in the thread. Raises: TimeoutError; the SDK's errors as this module's."""
        if not self._thread.is_alive():
            work.close()
            raise RequestRejected("closed", "the session is closed")
        future = asyncio.run_coroutine_threadsafe(self._translated(work), self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"{self._address.name}: nothing for {timeout_s:g} s") from None

    async def _translated(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await work
        except (self._sdk.service_error, *self._sdk.connection_errors) as err:
            if isinstance(err.__cause__ or err, self._sdk.connection_errors):
                raise ConnectionError(f"{self._address.name} in {self._address.region}: {err}") from err
            raise as_rejection(err) from err

    async def _connect(self, query: str) -> tuple[Any, Any]:
        client = await self._sdk.make_client(self._address.region)
        try:
            stream = await self._sdk.open_stream(client, self._address.name, query)
            await stream.await_output()
        except BaseException:
            await client.close()
            raise
        return client, stream

    async def _send(self, message: bytes | str) -> None:
        await self._stream.input_stream.send(self._sdk.payload_part(message))

    async def _receive(self) -> bytes | str:
        # A message that was read in part is not lost if the caller waits no longer: `recv` forgets the task.
        self._pending = self._pending or asyncio.create_task(self._next_message())
        await asyncio.wait({self._pending})
        return self._pending.result()

    async def _next_message(self) -> bytes | str:
        """Return the next message, joined from its parts."""
        parts: list[bytes] = []
        while (event := await self._stream.output_stream.receive()) is not None:
            part = event.value
            parts.append(part.bytes_ or b"")
            if part.completion_state == "PARTIAL":
                continue
            content = b"".join(parts)
            return check_message(content.decode()) if part.data_type == "UTF8" else content
        raise RequestRejected("closed", "the session is closed")

    async def _close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
        with suppress(OSError):  # the other side has closed it
            await self._stream.close()
        await self._client.close()


def log_background_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the SDK's own tasks: they write into a stream that has ended, which `recv` and `send` report."""
    logger.debug("an error in the background of a stream", extra={"context": str(context)})


def check_message(text: str) -> str:
    """Return a text message, unless it is the container's error: these may arrive as a message or as an event.

    Raises: RequestRejected.
    """
    error = json.loads(text).get("ModelStreamError")
    if error is not None:
        raise RequestRejected(str(error.get("ErrorCode")), str(error.get("Message")))
    return text


def as_rejection(err: Exception) -> RequestRejected:
    """Convert an error of the service. A container that refuses the session answers as to any request."""
    status, original = getattr(err, "original_status_code", None), getattr(err, "original_message", None)
    if status and original:
        return rejection_of(status, original.encode())
    code = getattr(err, "error_code", None) or type(err).__name__
    return RequestRejected(code, str(getattr(err, "message", "") or err))


class Http2Sdk:
    """AWS's SDK, imported only if a stream is opened."""

    def __init__(self) -> None:
        """Import the SDK. Raises: ModuleNotFoundError that names the extra."""
        try:
            from aws_sdk_sagemaker_runtime_http2 import client, config, models
            from awscrt.exceptions import AwsCrtError
            from smithy_core.exceptions import SmithyError
            from smithy_http.aio.crt import AWSCRTHTTPClient
        except ModuleNotFoundError as err:
            raise ModuleNotFoundError(f"{EXTRA}; {err.name} is not installed", name=err.name) from err
        self._client, self._config, self._models = client, config, models
        self._transport = AWSCRTHTTPClient  # the SDK's own speaks HTTP/1.1
        self.connection_errors = (AwsCrtError,)
        self.service_error = SmithyError

    async def make_client(self, region: str) -> Any:
        """Return a client with boto3's credentials, and with the endpoint of the environment or the profile."""
        credentials = BotoCredentials()
        config = await self._config.AsyncSageMakerRuntimeHTTP2Config.resolve(
            region=region, transport=self._transport(), aws_credentials_identity_resolver=credentials
        )
        if config.endpoint_uri is None:
            runtime = boto3.client("sagemaker-runtime", region_name=region)
            config.endpoint_uri = f"{runtime.meta.endpoint_url}:{PORT}"
        return self._client.AsyncSageMakerRuntimeHTTP2Client(config=config)

    async def open_stream(self, client: Any, endpoint: str, query: str) -> Any:
        request = self._models.InvokeEndpointWithBidirectionalStreamInput(
            endpoint_name=endpoint, model_query_string=query
        )
        return await client.invoke_endpoint_with_bidirectional_stream(request)

    def payload_part(self, message: bytes | str) -> Any:
        """Return the event of a whole message."""
        content, data_type = (message.encode(), "UTF8") if isinstance(message, str) else (message, "BINARY")
        part = self._models.RequestPayloadPart(bytes_=content, data_type=data_type, completion_state="COMPLETE")
        return self._models.RequestStreamEventPayloadPart(value=part)


class BotoCredentials:
    """boto3's credentials for AWS's new SDK, whose own sources are fewer. Each event is signed with current ones."""

    def __init__(self) -> None:
        """Find the credentials. Raises: RequestRejected: the SDK would wait for ever if signing a request failed."""
        try:
            self._credentials = boto3.Session().get_credentials()
            if self._credentials is not None:
                self._credentials.get_frozen_credentials()
        except BotoCoreError as err:
            raise RequestRejected("credentials", str(err)) from err
        if self._credentials is None:
            raise RequestRejected("credentials", "no AWS credentials; sign in, or set AWS_PROFILE")

    async def get_identity(self, *, properties: Any) -> Any:  # noqa: ARG002 - the SDK's signature
        """Return the credentials, refreshed if need be."""
        from smithy_aws_core.identity import AWSCredentialsIdentity

        frozen = await asyncio.to_thread(self._credentials.get_frozen_credentials)
        return AWSCredentialsIdentity(
            access_key_id=frozen.access_key, secret_access_key=frozen.secret_key, session_token=frozen.token
        )

    async def invalidate(self) -> None:
        """Do nothing: boto3 refreshes its credentials itself."""
