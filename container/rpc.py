"""gRPC: the service that older clients use, over the same avatars as every other protocol.

A response with a `success` field reports in it whether the frame could be rendered, with status OK, so that one invalid
frame ends neither a batch nor a stream. Every other failure has a status, and its stable code in the trailing metadata.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import container.protos.optimized_lipsyncsrv_pb2 as pb2
from container.http.auth import encode_token
from container.http.clients import ClientCounter, client_of_peer, is_loopback
from container.http.pacing import Pacer
from container.http.tls import read_certificate
from container.live.avatar_cache import AvatarCache, find_package
from container.live.legacy.audio_chunks import AudioChunkEncoder
from container.live.legacy.single_frames import (
    LEGACY_SAMPLE_RATE,
    VIDEO_TYPES,
    LatencyByAvatar,
    NumberedFrame,
    encode_video_frame,
    features_for,
    render_frame,
)
from container.live.speech_visemes import SpeechVisemes
from inference.error_responses import failure_of
from inference.errors import AccessDenied, CallerError, InvalidRequest, NotReady, Overloaded

if TYPE_CHECKING:
    from inference.audio.avatar_features import Features
    from inference.avatar import AvatarPackage
    from inference.settings import Settings
    from inference.visemes import VisemeUpdate

logger = logging.getLogger("viseme.rpc")
DESCRIPTOR = pb2.DESCRIPTOR.services_by_name["OptimizedLipSyncService"]
SERVICE = DESCRIPTOR.full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_BATCH = 250  # frames in a batch: 10 s of video; 13 MB of JPEGs at 1280x720
MAX_STREAMS = 64  # open at a time
MAX_WAITING = 64  # unfinished calls for frames: some seconds of work on two cores
MAX_SHARE = 0.5  # of both that one client may have, unless it is on this machine
MAX_RECEIVED_BYTES = 6 << 20  # of a request; the audio of a batch at 192 kHz is 4 MB
MAX_SENT_BYTES = 64 << 20  # of a response
MAX_BATCH_JPEG_BYTES = 60 << 20  # of all JPEGs in a response; the rest of MAX_SENT_BYTES is for the other fields
FRAME_CALLS = ("GenerateInference", "GenerateBatchInference", "GenerateBatchWithAudio", "GetVideoFrame")
# Calls for frames a second of one client, which may be a proxy with dozens of avatars, as older clients of WebSockets.
# The others have the pace of HTTP requests.
FRAME_CALL_RATE = 2000.0
# gRPC counts connections by port and not by address. Clients share one among all their calls.
MAX_CONNECTIONS = 1024
HANDSHAKE_TIMEOUT_MS = 20_000
MAX_IDLE_MS = 600_000  # without a call; clients connect again at the next one
STALL_TIMEOUT_S = 30.0  # for a client to read the next response of a stream
GRACE_S = 2.0  # for batches that are being rendered when the server stops
DEFAULT_RATE = 16_000  # of the audio whose visemes are estimated
CODE_KEY = "viseme-code"  # trailing metadata: the stable code of an error
FRAMES_KEY = "viseme-frames"  # request metadata: whole, or patch for clients that paste the face themselves
# Reported with every frame; all of them always apply.
OPTIMIZATIONS = ("memory_mapped_crops", "compiled_network", "network_shared_by_sessions")

STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server could share the port, and would get half of the calls
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    ("grpc.max_send_message_length", MAX_SENT_BYTES),
    ("grpc.max_concurrent_streams", 128),  # per connection
    ("grpc.keepalive_time_ms", 60_000),  # detects clients that vanished without closing the connection
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
)

RecordCall = Callable[[str, str, float], None]  # takes a call's route, status and duration in seconds
RpcContext = Any  # grpc.aio.ServicerContext: gRPC ships no types


def status_of(err: BaseException) -> tuple[grpc.StatusCode, str, str]:
    """Return the status, the message and the stable code of an error."""
    failure = failure_of(err)
    if isinstance(err, Overloaded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, failure.message, failure.code
    return STATUS_CODES.get(failure.status, grpc.StatusCode.INTERNAL), failure.message, failure.code


@asynccontextmanager
async def map_errors(context: RpcContext) -> AsyncIterator[None]:
    """Abort the call with the status of any error inside of the block. Unexpected errors are logged."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as err:
        status, details, code = status_of(err)
        if status == grpc.StatusCode.INTERNAL:
            logger.exception("unexpected error")
        await context.abort(status, details, ((CODE_KEY, code),))


@asynccontextmanager
async def record_metrics(name: str, context: RpcContext, record_call: RecordCall) -> AsyncIterator[None]:
    """Record a call under the name of its final status."""
    started, status = time.monotonic(), grpc.StatusCode.UNKNOWN
    try:
        yield
        status = grpc.StatusCode.OK
    except asyncio.CancelledError:
        status = grpc.StatusCode.CANCELLED
        raise
    except grpc.aio.AbortError:
        status = context.code()
        raise
    finally:
        record_call(f"grpc {name}", status.name, time.monotonic() - started)


def ignore_call(_route: str, _status: str, _took_s: float) -> None:
    """Record nothing, if there are no metrics."""


class AvatarFrameService:
    """The calls of `OptimizedLipSyncService`: the ten of older clients, and visemes."""

    def __init__(
        self,
        avatars: AvatarCache,
        latencies: LatencyByAvatar,
        settings: Settings,
        is_ready: Callable[[], bool],
        record_call: RecordCall,
    ) -> None:
        self._avatars, self._latencies, self._settings, self._is_ready = avatars, latencies, settings, is_ready
        self._record_call = record_call
        self.pacer, self.frame_pacer = Pacer(), Pacer(rate=FRAME_CALL_RATE, burst=FRAME_CALL_RATE)
        self._waiting, self._streams = ClientCounter(), ClientCounter()
        self._started = time.monotonic()

    @property
    def n_waiting(self) -> int:
        """Number of unfinished calls for frames."""
        return self._waiting.total

    @property
    def n_streams(self) -> int:
        return self._streams.total

    def handlers(self) -> Any:
        """Return the handlers for a gRPC server.

        They parse requests themselves, because gRPC reports malformed bytes as INTERNAL.
        """
        methods = {call.name: self._handler(call) for call in DESCRIPTOR.methods}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _handler(self, call: Any) -> Any:
        method, request_class = getattr(self, call.name), message_factory.GetMessageClass(call.input_type)

        async def unary(raw: bytes, context: RpcContext) -> Any:
            pacer = self.frame_pacer if call.name in FRAME_CALLS else self.pacer
            async with record_metrics(call.name, context, self._record_call), map_errors(context):
                await pacer.wait(client_of_peer(context.peer()))
                return await method(parse(request_class, raw), context)

        async def stream(raw: AsyncIterator[bytes], context: RpcContext) -> None:
            async with record_metrics(call.name, context, self._record_call), map_errors(context):
                await method(parse_each(request_class, raw), context)

        serialise = message_factory.GetMessageClass(call.output_type).SerializeToString
        if call.client_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serialise)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialise)

    async def GenerateInference(self, request: Any, context: RpcContext) -> Any:  # noqa: N802 - named by the service
        """Render one frame from the audio features in the package."""
        client = client_of_peer(context.peer())
        with self._reserve_slot(client):
            return await self._render(request.model_name, request.frame_id, client, is_whole=wants_whole(context))

    async def GenerateBatchInference(self, request: Any, context: RpcContext) -> Any:  # noqa: N802
        """Render several frames from the audio features in the package, in the requested order."""
        check_batch(len(request.frame_ids))
        name, client = request.model_name, client_of_peer(context.peer())
        render = partial(self._render, name, client=client, is_whole=wants_whole(context))
        with self._reserve_slot(client):
            try:
                async with self._avatars.acquire(name):
                    pass
            except CallerError as err:  # the same for each frame, so load the package only once
                return failed_batch(name, request.frame_ids, err)
            return await batch_response(render(index) for index in request.frame_ids)

    async def GenerateBatchWithAudio(self, request: Any, context: RpcContext) -> Any:  # noqa: N802
        """Render consecutive frames from the audio in the request."""
        check_batch(request.frame_count)
        name, client = request.model_name, client_of_peer(context.peer())
        render = partial(self._render, name, client=client, is_whole=wants_whole(context))
        indices = range(request.start_frame_id, request.start_frame_id + request.frame_count)
        with self._reserve_slot(client):
            try:
                async with self._avatars.acquire(name) as package:
                    chunks = list(request.audio_chunks)
                    encoder = await self._avatars.run_single_frame(
                        client, AudioChunkEncoder, package, chunks, len(indices)
                    )
            except CallerError as err:
                return failed_batch(name, indices, err)
            return await batch_response(
                render(index, get_features=partial(encoder.encode, k)) for k, index in enumerate(indices)
            )

    async def StreamInference(self, requests: AsyncIterator[Any], context: RpcContext) -> None:  # noqa: N802
        """Send a frame for each request, in order. The next request is read once the client has read the response."""
        client = client_of_peer(context.peer())
        with self._reserve_stream(client):
            is_whole = wants_whole(context)
            async for request in requests:
                self._check_ready()
                response = await self._render(request.model_name, request.frame_id, client, is_whole=is_whole)
                await send_response(context, response)

    async def StreamVisemes(self, requests: AsyncIterator[Any], context: RpcContext) -> None:  # noqa: N802
        """Send the visemes of speech while it arrives."""
        client, speech = client_of_peer(context.peer()), None
        with self._reserve_stream(client):
            async for request in requests:
                self._check_ready()
                if speech is None:
                    rate = request.sample_rate or DEFAULT_RATE
                    speech = await self._avatars.run_single_frame(client, SpeechVisemes, rate)
                elif request.sample_rate not in (0, speech.rate):
                    raise InvalidRequest(f"sample_rate {request.sample_rate} after {speech.rate}; expected one rate")
                update = await self._avatars.run_single_frame(client, speech.push, request.audio)
                await send_visemes(context, update)
            if speech is not None:
                await send_visemes(context, await self._avatars.run_single_frame(client, speech.finish))

    async def LoadPackage(self, request: Any, _context: RpcContext) -> Any:  # noqa: N802
        """Load a package from the server's own folder."""
        started, name = time.perf_counter(), request.package_name
        try:
            await self._avatars.run_in_background(check_folder, name, request.package_dir, self._settings)
            async with self._avatars.acquire(name) as package:
                return load_response(name, package, elapsed_ms(started))
        except CallerError as err:
            return pb2.LoadPackageResponse(package_name=name[:64], message="the package was not loaded", error=str(err))

    async def GetStats(self, request: Any, _context: RpcContext) -> Any:  # noqa: N802
        """Return how long the network took for the frames of one package."""
        async with self._avatars.acquire(request.model_name) as package:
            latency = self._latencies.get(request.model_name)
            return pb2.StatsResponse(
                model_name=request.model_name,
                total_requests=clip_int32(latency.n_requests),
                avg_inference_time_ms=latency.mean_ms,
                min_inference_time_ms=latency.min_ms,
                max_inference_time_ms=latency.max_ms,
                frame_count=package.n_frames,
                device=package.device,
                optimizations_active=OPTIMIZATIONS,
            )

    async def ListModels(self, _request: Any, _context: RpcContext) -> Any:  # noqa: N802
        """List the packages in memory."""
        names = self._avatars.loaded_names
        return pb2.ListModelsResponse(loaded_models=names, count=len(names))

    async def HealthCheck(self, _request: Any, _context: RpcContext) -> Any:  # noqa: N802
        """Return whether the server renders frames."""
        ready = self._is_ready()
        return pb2.HealthResponse(
            healthy=ready,
            status="SERVING" if ready else "NOT_SERVING",
            loaded_models=len(self._avatars.loaded_names),
            uptime_seconds=int(time.monotonic() - self._started),
        )

    async def GetVideoFrame(self, request: Any, context: RpcContext) -> Any:  # noqa: N802
        """Return a frame of the source video."""
        index, video, client = request.frame_id, request.video_type, client_of_peer(context.peer())
        with self._reserve_slot(client):
            async with self._avatars.acquire(request.model_name) as package:
                jpeg = await self._avatars.run_single_frame(client, encode_video_frame, package, index, video)
        return pb2.GetVideoFrameResponse(success=True, frame_data=jpeg, frame_id=index, video_type=video)

    async def GetModelMetadata(self, request: Any, _context: RpcContext) -> Any:  # noqa: N802
        """Describe a package. `audio_path` stays empty, because packages contain no audio."""
        async with self._avatars.acquire(request.model_name) as package:
            box = package.box(0)
            return pb2.GetModelMetadataResponse(
                success=True,
                model_name=request.model_name,
                frame_count=package.n_frames,
                available_videos=VIDEO_TYPES,
                bounds=[box.left, box.top, box.right, box.bottom],
            )

    async def _render(
        self,
        name: str,
        index: int,
        client: str,
        *,
        is_whole: bool,
        get_features: Callable[[], tuple[Features, str]] | None = None,
    ) -> Any:
        """Return the response for one frame. If the caller made a mistake, it contains the error instead."""
        started = time.perf_counter()
        try:
            async with self._avatars.acquire(name) as package:
                get_features = get_features or partial(features_for, package, index, None, LEGACY_SAMPLE_RATE)
                frame = await self._avatars.run_single_frame(
                    client, render_frame, package, index, get_features, is_whole=is_whole
                )
        except CallerError as err:
            return failed_frame(name, index, err)
        self._latencies.add(name, frame.infer_ms)
        return frame_response(frame, name, index, elapsed_ms(started))

    def _check_ready(self) -> None:
        if not self._is_ready():
            raise NotReady("the server is going down, or its models are not loaded; try another one")

    @contextmanager
    def _reserve_slot(self, client: str) -> Iterator[None]:
        """Count a call for frames inside of the block. Raises: Overloaded if there are too many, NotReady."""
        self._check_ready()
        if self.n_waiting >= MAX_WAITING:
            raise Overloaded(f"{self.n_waiting} calls for frames are waiting, which is the limit; retry in a second")
        with self._waiting.opened(client, share_of(client, MAX_WAITING), "calls"):
            yield

    @contextmanager
    def _reserve_stream(self, client: str) -> Iterator[None]:
        if self.n_streams >= MAX_STREAMS:
            raise Overloaded(f"{self.n_streams} streams are open, which is the limit; retry in a few seconds")
        with self._streams.opened(client, share_of(client, MAX_STREAMS), "streams"):
            yield


async def send_response(context: RpcContext, response: Any) -> None:
    """Send the next response of a stream. Raises: Overloaded if the client reads too slowly."""
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            await context.write(response)
    except TimeoutError as err:
        raise Overloaded(f"the client did not read a response within {STALL_TIMEOUT_S:g} s") from err


async def send_visemes(context: RpcContext, update: VisemeUpdate) -> None:
    """Send new visemes, if there are any. Raises: as `send_response`."""
    if not update.frames and not update.segments:
        return
    frames = [
        pb2.VisemeFrame(
            frame=one.index, phoneme=one.phoneme, viseme=one.viseme, weights=one.weights, blendshapes=one.blendshapes
        )
        for one in update.frames
    ]
    segments = [pb2.VisemeSegment(**vars(one)) for one in update.segments]
    await send_response(context, pb2.VisemeResponse(frames=frames, segments=segments))


def share_of(client: str, limit: int) -> int | None:
    """Return how many of a limited number one client may have; None for all of them."""
    return None if is_loopback(client) else max(int(limit * MAX_SHARE), 1)


def wants_whole(context: RpcContext) -> bool:
    """Return whether the caller requests whole frames. Raises: InvalidRequest if the metadata is invalid."""
    value = dict(context.invocation_metadata() or ()).get(FRAMES_KEY, "whole")
    if value not in ("whole", "patch"):
        raise InvalidRequest(f"{FRAMES_KEY} {value[:40]!r}: expected whole or patch")
    return bool(value == "whole")


def parse(message_class: Any, raw: bytes) -> Any:
    """Decode a message. Raises: InvalidRequest if the bytes are not one of this class."""
    try:
        return message_class.FromString(raw)
    except message.DecodeError as err:
        raise InvalidRequest(f"{len(raw)} bytes that are not a valid {message_class.DESCRIPTOR.name}") from err


async def parse_each(message_class: Any, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for one in raw:
        yield parse(message_class, one)


def frame_response(frame: NumberedFrame, name: str, index: int, took_ms: int) -> Any:
    return pb2.OptimizedInferenceResponse(
        success=True,
        prediction_data=frame.jpeg,
        bounds=frame.bounds,
        processing_time_ms=took_ms,
        model_name=name,
        frame_id=index,
        prediction_shape="x".join(map(str, frame.shape)),
        prepare_time_ms=frame.prepare_ms,
        inference_time_ms=frame.infer_ms,
        composite_time_ms=frame.compose_ms,
        optimizations=OPTIMIZATIONS,
    )


async def batch_response(frames: Iterable[Awaitable[Any]]) -> Any:
    """Render the frames one after another, so that a canceled or expired call never starts the remaining ones.

    Raises: InvalidRequest if their JPEGs are too large for one response.
    """
    started, n_bytes = time.perf_counter(), 0
    responses: list[Any] = []
    for frame in frames:
        responses.append(await frame)
        n_bytes += len(responses[-1].prediction_data)
        if n_bytes > MAX_BATCH_JPEG_BYTES:
            raise InvalidRequest(
                f"{len(responses)} frames of the batch take {n_bytes} bytes; expected at most {MAX_BATCH_JPEG_BYTES}: "
                "request fewer frames"
            )
    took_ms = (time.perf_counter() - started) * 1000
    return pb2.BatchInferenceResponse(
        responses=responses, total_processing_time_ms=clip_int32(took_ms), avg_frame_time_ms=took_ms / len(responses)
    )


def load_response(name: str, package: AvatarPackage, took_ms: int) -> Any:
    features = package.packaged_features
    return pb2.LoadPackageResponse(
        success=True,
        package_name=name,
        message="the package is loaded",
        initialization_time_ms=took_ms,
        frame_count=package.n_frames,
        device=package.device,
        videos_loaded=VIDEO_TYPES,
        audio_features_shape=() if features is None else features.shape,
        memory_mapped_audio=features is not None,
    )


def failed_frame(name: str, index: int, err: CallerError) -> Any:
    """Return a response without a frame. The name is cut, so that a batch of such responses stays small."""
    return pb2.OptimizedInferenceResponse(
        model_name=name[:64], frame_id=max(min(index, 2**31 - 1), -(2**31)), error=str(err)
    )


def failed_batch(name: str, indices: Iterable[int], err: CallerError) -> Any:
    return pb2.BatchInferenceResponse(responses=[failed_frame(name, index, err) for index in indices])


def check_folder(name: str, folder: str, settings: Settings) -> None:
    """Check that a caller's folder is that of the package it names. Callers' paths are compared, and never opened.

    folder: empty, absolute, or relative to the folder of packages or to its parent.
    Raises: AvatarNotFound, AccessDenied.
    """
    own = find_package(name, settings)
    if folder and all(os.path.normpath(start / folder) != os.path.normpath(own) for start in own.parents[:2]):
        raise AccessDenied(
            f"package_dir {folder[:80]!r}: expected nothing, or {name!r}, in the server's own folder of packages"
        )


def check_batch(n_frames: int) -> None:
    """Check the size of a batch. Raises: InvalidRequest."""
    if not 0 < n_frames <= MAX_BATCH:
        raise InvalidRequest(f"a batch of {n_frames} frames; expected 1 to {MAX_BATCH}")


def clip_int32(n: float) -> int:
    """Round a count or time down, to at most the largest int32."""
    return min(int(n), 2**31 - 1)


def elapsed_ms(started: float) -> int:
    return clip_int32((time.perf_counter() - started) * 1000)


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Rejects calls without the server's token, except for those to gRPC's health service, as over HTTP."""

    def __init__(self, token: str, record_call: RecordCall, pacer: Pacer) -> None:
        """pacer: of the rejections."""
        self._expected = b"Bearer " + encode_token(token)
        self._rejections = {
            f"/{SERVICE}/{call.name}": reject_call(call.name, record_call, pacer) for call in DESCRIPTOR.methods
        }
        # One name for all unknown routes, so that metrics stay bounded.
        self._other = reject_call("other", record_call, pacer)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        value = dict(details.invocation_metadata).get("authorization", "")
        given = value if isinstance(value, bytes) else value.encode()
        if details.method.startswith(f"/{HEALTH}/") or hmac.compare_digest(given, self._expected):
            return await continuation(details)
        return self._rejections.get(details.method, self._other)


def reject_call(name: str, record_call: RecordCall, pacer: Pacer) -> Any:
    """Return a handler that rejects a call as unauthenticated. It fits every kind of call, as it reads nothing."""

    async def reject(_requests: AsyncIterator[Any], context: RpcContext) -> None:
        details = "expected the metadata authorization: Bearer with the server's token"
        async with record_metrics(name, context, record_call):
            await pacer.delay(client_of_peer(context.peer()))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, details, ((CODE_KEY, "access_denied"),))

    return grpc.stream_stream_rpc_method_handler(reject)


class RpcServer:
    """The gRPC port: the service, its reflection, and gRPC's own health service."""

    name = "grpc_port"

    def __init__(
        self,
        avatars: AvatarCache,
        latencies: LatencyByAvatar,
        settings: Settings,
        port: int,
        is_ready: Callable[[], bool],
        record_call: RecordCall = ignore_call,
    ) -> None:
        """Create a server that is not started yet.

        port: 0 lets the system choose one. record_call: called at the end of each call.
        """
        self._settings, self._port, self._record_call = settings, port, record_call
        self._server: Any = None
        self.service = AvatarFrameService(avatars, latencies, settings, is_ready, record_call)

    async def start(self) -> int:
        """Open the port and return it.

        Raises: OSError if the port is not available, InvalidRequest if the certificate is invalid.
        """
        token = self._settings.token
        interceptors = []
        if token is not None:
            interceptors.append(TokenInterceptor(token, self._record_call, self.service.pacer))
        limit = ("grpc.max_allowed_incoming_connections", min(MAX_CONNECTIONS, self._settings.max_connections))
        self._server = grpc.aio.server(interceptors=interceptors, options=(*OPTIONS, limit))
        self._server.add_generic_rpc_handlers((self.service.handlers(),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        port = self._bind()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Report NOT_SERVING to health checks, and close. Calls that take longer than two seconds are canceled."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(GRACE_S)

    def _bind(self) -> int:
        host = self._settings.host
        address = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"
        certificate = read_certificate(self._settings)
        try:
            if certificate is not None:
                credentials = grpc.ssl_server_credentials([(certificate.key, certificate.chain)])
                return int(self._server.add_secure_port(address, credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError as err:
            raise OSError(f"{address}: gRPC cannot use this address ({err})") from err
