"""gRPC: the service that old clients know, over the avatars that every door shares.

An answer that has a field for success says there whether a frame could be drawn, with the status OK: one bad frame
ends no batch and no stream. All else that fails has a status, and its stable code in the trailing metadata.
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
from container.live.avatar_cache import Avatars, find_package
from container.live.legacy.audio_chunks import Speech
from container.live.legacy.single_frames import (
    LEGACY_RATE,
    VIDEO_TYPES,
    Still,
    Tallies,
    draw_still,
    hear,
    make_video_frame,
)
from container.statuses import failure_of
from container.tls import read_certificate
from inference.errors import AccessDenied, CallerError, InvalidRequest, NotReady, Overloaded

if TYPE_CHECKING:
    from inference.audio.features import Features
    from inference.avatar import AvatarPackage
    from inference.settings import Settings

LOG = logging.getLogger("viseme.rpc")
DESCRIPTOR = pb2.DESCRIPTOR.services_by_name["OptimizedLipSyncService"]
SERVICE = DESCRIPTOR.full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_BATCH = 250  # frames: 10 s; 13 MB of them at 1280x720
MAX_STREAMS = 64
MAX_WAITING = 64  # callers for frames: some seconds of work on two cores
MAX_RECEIVED = 6 << 20  # bytes of a message: a batch's sound at 192 kHz is 4 MB
MAX_SENT = 64 << 20
MAX_PICTURES = 60 << 20  # of a batch; the rest is for what stands beside them
STALLED_S = 30.0  # for a client to take the answer that lies before it
GRACE_S = 2.0  # at the end, for batches that are being drawn
CODE_KEY = "viseme-code"  # in the trailing metadata
FRAMES_KEY = "viseme-frames"  # in the metadata: whole, or patch for who puts the face into the frame himself
# True of every frame that is drawn here.
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
    ("grpc.so_reuseport", 0),  # else a second server would share the port, and take half of the callers
    ("grpc.max_receive_message_length", MAX_RECEIVED),
    ("grpc.max_send_message_length", MAX_SENT),
    ("grpc.max_concurrent_streams", 128),  # of one connection
    ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is found out
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

Count = Callable[[str, str, float], None]
Context = Any  # grpc.aio.ServicerContext: gRPC brings no types


def status_of(err: BaseException) -> tuple[grpc.StatusCode, str, str]:
    """The status, the message and the stable code of an error."""
    failure = failure_of(err)
    if isinstance(err, Overloaded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, failure.message, failure.code
    return STATUS_CODES.get(failure.status, grpc.StatusCode.INTERNAL), failure.message, failure.code


@asynccontextmanager
async def answering(context: Context) -> AsyncIterator[None]:
    """Every error becomes its status here."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as err:
        status, said, code = status_of(err)
        if status == grpc.StatusCode.INTERNAL:
            LOG.exception("unforeseen")
        await context.abort(status, said, ((CODE_KEY, code),))


@asynccontextmanager
async def counted(name: str, context: Context, count: Count) -> AsyncIterator[None]:
    """Count a call by the name of the status that it ends with."""
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
        count(f"grpc {name}", status.name, time.monotonic() - started)


def count_nothing(_route: str, _status: str, _took_s: float) -> None:
    """Where nobody asks how many calls there were."""


class LipSync:
    """The ten calls."""

    def __init__(
        self, avatars: Avatars, tallies: Tallies, settings: Settings, is_ready: Callable[[], bool], count: Count
    ) -> None:
        self._avatars, self._tallies, self._settings, self._is_ready = avatars, tallies, settings, is_ready
        self._count = count
        self.n_waiting = 0  # callers, for frames
        self.n_streams = 0
        self._started = time.monotonic()

    def handlers(self) -> Any:
        """For a server. Requests are parsed in here: gRPC would take bytes that are none for a fault of ours."""
        methods = {call.name: self._handler(call) for call in DESCRIPTOR.methods}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _handler(self, call: Any) -> Any:
        work, kind = getattr(self, call.name), message_factory.GetMessageClass(call.input_type)

        async def answer(raw: bytes, context: Context) -> Any:
            async with counted(call.name, context, self._count), answering(context):
                return await work(parse(kind, raw), context)

        async def answer_each(raw: AsyncIterator[bytes], context: Context) -> None:
            async with counted(call.name, context, self._count), answering(context):
                await work(parse_each(kind, raw), context)

        serialise = message_factory.GetMessageClass(call.output_type).SerializeToString
        if call.client_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_each, response_serializer=serialise)
        return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serialise)

    async def GenerateInference(self, request: Any, context: Context) -> Any:  # noqa: N802 - the service's names
        """One frame, moved by the features that are packaged with it."""
        with self._place():
            return await self._draw(request.model_name, request.frame_id, is_whole=wants_whole(context))

    async def GenerateBatchInference(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The same for several frames, in the order that they were asked for."""
        check_batch(len(request.frame_ids))
        name, draw = request.model_name, partial(self._draw, request.model_name, is_whole=wants_whole(context))
        with self._place():
            try:
                async with self._avatars.lease(name):
                    pass
            except CallerError as err:  # found once, not for each frame
                return refuse_all(name, request.frame_ids, err)
            return await batch_of(draw(index) for index in request.frame_ids)

    async def GenerateBatchWithAudio(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Frames in a row, moved by the sound that comes along."""
        check_batch(request.frame_count)
        name, draw = request.model_name, partial(self._draw, request.model_name, is_whole=wants_whole(context))
        indices = range(request.start_frame_id, request.start_frame_id + request.frame_count)
        with self._place():
            try:
                async with self._avatars.lease(name) as package:
                    chunks = list(request.audio_chunks)
                    speech = await self._avatars.run_numbered(Speech, package, chunks, len(indices))
            except CallerError as err:
                return refuse_all(name, indices, err)
            return await batch_of(draw(index, listen=partial(speech.listen, k)) for k, index in enumerate(indices))

    async def StreamInference(self, requests: AsyncIterator[Any], context: Context) -> None:  # noqa: N802
        """An answer for each request, in order. The next request is read when its answer was taken."""
        with self._stream():
            is_whole = wants_whole(context)
            async for request in requests:
                self._check_ready()
                answer = await self._draw(request.model_name, request.frame_id, is_whole=is_whole)
                try:
                    async with asyncio.timeout(STALLED_S):
                        await context.write(answer)
                except TimeoutError as err:
                    raise Overloaded(f"an answer was not taken in {STALLED_S:g} s") from err

    async def LoadPackage(self, request: Any, _context: Context) -> Any:  # noqa: N802
        """A package of the server's own folder, into memory."""
        started, name = time.perf_counter(), request.package_name
        try:
            await self._avatars.run(check_folder, name, request.package_dir, self._settings)
            async with self._avatars.lease(name) as package:
                return loaded(name, package, elapsed_ms(started))
        except CallerError as err:
            return pb2.LoadPackageResponse(package_name=name[:64], message="the package was not loaded", error=str(err))

    async def GetStats(self, request: Any, _context: Context) -> Any:  # noqa: N802
        """What the network took for one package's frames."""
        async with self._avatars.lease(request.model_name) as package:
            tally = self._tallies.read(request.model_name)
            return pb2.StatsResponse(
                model_name=request.model_name,
                total_requests=clip_count(tally.n_requests),
                avg_inference_time_ms=tally.mean_ms,
                min_inference_time_ms=tally.min_ms,
                max_inference_time_ms=tally.max_ms,
                frame_count=package.n_frames,
                device=package.device,
                optimizations_active=OPTIMIZATIONS,
            )

    async def ListModels(self, _request: Any, _context: Context) -> Any:  # noqa: N802
        """The packages in memory."""
        names = self._avatars.loaded
        return pb2.ListModelsResponse(loaded_models=names, count=len(names))

    async def HealthCheck(self, _request: Any, _context: Context) -> Any:  # noqa: N802
        """Whether frames can be asked for."""
        ready = self._is_ready()
        return pb2.HealthResponse(
            healthy=ready,
            status="SERVING" if ready else "NOT_SERVING",
            loaded_models=len(self._avatars.loaded),
            uptime_seconds=int(time.monotonic() - self._started),
        )

    async def GetVideoFrame(self, request: Any, _context: Context) -> Any:  # noqa: N802
        """A frame as it was filmed."""
        index, video = request.frame_id, request.video_type
        with self._place():
            async with self._avatars.lease(request.model_name) as package:
                jpeg = await self._avatars.run_numbered(make_video_frame, package, index, video)
        return pb2.GetVideoFrameResponse(success=True, frame_data=jpeg, frame_id=index, video_type=video)

    async def GetModelMetadata(self, request: Any, _context: Context) -> Any:  # noqa: N802
        """What a package holds. No sound lies in one: `audio_path` stays empty."""
        async with self._avatars.lease(request.model_name) as package:
            box = package.box(0)
            return pb2.GetModelMetadataResponse(
                success=True,
                model_name=request.model_name,
                frame_count=package.n_frames,
                available_videos=VIDEO_TYPES,
                bounds=[box.left, box.top, box.right, box.bottom],
            )

    async def _draw(
        self, name: str, index: int, *, is_whole: bool, listen: Callable[[], tuple[Features, str]] | None = None
    ) -> Any:
        """The answer for one frame; it says so itself where the caller's mistake left none."""
        started = time.perf_counter()
        try:
            async with self._avatars.lease(name) as package:
                listen = listen or partial(hear, package, index, None, LEGACY_RATE)
                still = await self._avatars.run_numbered(draw_still, package, index, listen, is_whole=is_whole)
        except CallerError as err:
            return refusal(name, index, err)
        self._tallies.add(name, still.infer_ms)
        return answer_of(still, name, index, elapsed_ms(started))

    def _check_ready(self) -> None:
        if not self._is_ready():
            raise NotReady("the server is going down, or its models are not loaded; try another one")

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Among those who wait for frames. Raises: Overloaded where all are taken, NotReady."""
        self._check_ready()
        if self.n_waiting >= MAX_WAITING:
            raise Overloaded(f"{self.n_waiting} callers wait for frames already; try again in a second")
        self.n_waiting += 1
        try:
            yield
        finally:
            self.n_waiting -= 1

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if self.n_streams >= MAX_STREAMS:
            raise Overloaded(f"{self.n_streams} streams are open already; try again in a few seconds")
        self.n_streams += 1
        try:
            yield
        finally:
            self.n_streams -= 1


def wants_whole(context: Context) -> bool:
    """Whether the caller wants whole frames. Raises: InvalidRequest."""
    asked = dict(context.invocation_metadata() or ()).get(FRAMES_KEY, "whole")
    if asked not in ("whole", "patch"):
        raise InvalidRequest(f"{FRAMES_KEY} {asked[:40]!r}: expected whole or patch")
    return bool(asked == "whole")


def parse(kind: Any, raw: bytes) -> Any:
    """Raises: InvalidRequest."""
    try:
        return kind.FromString(raw)
    except message.DecodeError as err:
        raise InvalidRequest(f"{len(raw)} bytes that hold no {kind.DESCRIPTOR.name}") from err


async def parse_each(kind: Any, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for one in raw:
        yield parse(kind, one)


def answer_of(still: Still, name: str, index: int, took_ms: int) -> Any:
    return pb2.OptimizedInferenceResponse(
        success=True,
        prediction_data=still.jpeg,
        bounds=still.bounds,
        processing_time_ms=took_ms,
        model_name=name,
        frame_id=index,
        prediction_shape="x".join(map(str, still.shape)),
        prepare_time_ms=still.prepare_ms,
        inference_time_ms=still.infer_ms,
        composite_time_ms=still.compose_ms,
        optimizations=OPTIMIZATIONS,
    )


async def batch_of(drawings: Iterable[Awaitable[Any]]) -> Any:
    """One after the other: where the caller leaves, or the deadline passes, the rest is never begun."""
    started, n_bytes = time.perf_counter(), 0
    answers: list[Any] = []
    for drawing in drawings:
        answers.append(await drawing)
        n_bytes += len(answers[-1].prediction_data)
        if n_bytes > MAX_PICTURES:
            raise InvalidRequest(
                f"{len(answers)} frames of the batch take {n_bytes} bytes; at most {MAX_PICTURES} may: ask for fewer"
            )
    took_ms = (time.perf_counter() - started) * 1000
    return pb2.BatchInferenceResponse(
        responses=answers, total_processing_time_ms=clip_count(took_ms), avg_frame_time_ms=took_ms / len(answers)
    )


def loaded(name: str, package: AvatarPackage, took_ms: int) -> Any:
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


def refusal(name: str, index: int, err: CallerError) -> Any:
    """An answer without a picture; the name is cut, so that a batch of them stays small."""
    return pb2.OptimizedInferenceResponse(
        model_name=name[:64], frame_id=max(min(index, 2**31 - 1), -(2**31)), error=str(err)
    )


def refuse_all(name: str, indices: Iterable[int], err: CallerError) -> Any:
    return pb2.BatchInferenceResponse(responses=[refusal(name, index, err) for index in indices])


def check_folder(name: str, given: str, settings: Settings) -> None:
    """Whether a caller's folder is that of the package it names; nothing is read by what callers say.

    given: empty, or from the folder of packages or the one around it on, or the whole path.
    Raises: AvatarNotFound, AccessDenied.
    """
    folder = find_package(name, settings)
    if given and all(os.path.normpath(start / given) != os.path.normpath(folder) for start in folder.parents[:2]):
        raise AccessDenied(f"package_dir {given[:80]!r}: expected nothing, or {name!r}, in the server's own folder")


def check_batch(n_frames: int) -> None:
    if not 0 < n_frames <= MAX_BATCH:
        raise InvalidRequest(f"a batch of {n_frames} frames; expected 1 to {MAX_BATCH}")


def clip_count(n: float) -> int:
    """As an int32 has room for."""
    return min(int(n), 2**31 - 1)


def elapsed_ms(started: float) -> int:
    return clip_count((time.perf_counter() - started) * 1000)


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets only those in who bring the server's token, as over HTTP; whether it is healthy anybody may ask."""

    def __init__(self, token: str, count: Count) -> None:
        self._expected = f"Bearer {token}".encode()
        self._refusals = {f"/{SERVICE}/{call.name}": refusing(call.name, count) for call in DESCRIPTOR.methods}
        self._other = refusing("other", count)  # names that a caller makes up are not counted one by one

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        shown = given if isinstance(given, bytes) else given.encode()
        if details.method.startswith(f"/{HEALTH}/") or hmac.compare_digest(shown, self._expected):
            return await continuation(details)
        return self._refusals.get(details.method, self._other)


def refusing(name: str, count: Count) -> Any:
    """A handler that fits every kind of call, as it reads nothing."""

    async def refuse(_requests: AsyncIterator[Any], context: Context) -> None:
        said = "expected the metadata authorization: Bearer with the server's token"
        async with counted(name, context, count):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, said, ((CODE_KEY, "access_denied"),))

    return grpc.stream_stream_rpc_method_handler(refuse)


class RpcServer:
    """The gRPC port: the service, its reflection, and gRPC's own health service."""

    name = "grpc_port"

    def __init__(
        self,
        avatars: Avatars,
        tallies: Tallies,
        settings: Settings,
        port: int,
        is_ready: Callable[[], bool],
        count: Count = count_nothing,
    ) -> None:
        """port: 0 lets the system choose. count: is told each call's route, status and seconds."""
        self._settings, self._port, self._count = settings, port, count
        self._server: Any = None
        self.calls = LipSync(avatars, tallies, settings, is_ready, count)

    async def start(self) -> int:
        """Open the port and return it. Raises: OSError where it cannot be had, InvalidRequest for a bad certificate."""
        token = self._settings.token
        checks = [TokenCheck(token, self._count)] if token is not None else []
        self._server = grpc.aio.server(interceptors=checks, options=OPTIONS)
        self._server.add_generic_rpc_handlers((self.calls.handlers(),))
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
        """Say so to who asks for health, and close; what takes longer than two seconds is given up."""
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
            raise OSError(f"{address}: cannot be had for gRPC ({err})") from err
