"""A gRPC server in a thread of the test, and clients for it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from support.grpc_stubs import make_if_missing
from support.waiting import PATIENCE_S

make_if_missing()

from container.live.avatar_cache import AvatarCache  # noqa: E402 - after the stubs
from container.live.jpeg import PATCH_QUALITY  # noqa: E402
from container.live.legacy.single_frames import LatencyByAvatar  # noqa: E402
from container.protos import optimized_lipsyncsrv_pb2 as pb2  # noqa: E402
from container.rpc import RpcServer  # noqa: E402
from inference.avatar import AvatarPackage  # noqa: E402
from inference.settings import Settings  # noqa: E402

SERVICE = "optimized_lipsyncsrv.OptimizedLipSyncService"


@dataclass
class Rpc:
    """A running server. call: runs a coroutine function in its event loop."""

    server: RpcServer
    avatars: AvatarCache
    call: Callable[..., Any]
    port: int = 0
    is_ready: bool = True
    counted: list[tuple[str, str, float]] = field(default_factory=list)  # route, status, seconds

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def package(self, name: str) -> AvatarPackage:
        """Return the package in the server's memory."""

        async def find() -> AvatarPackage:
            async with self.avatars.acquire(name) as package:
                return package

        found: AvatarPackage = self.call(find)
        return found


@contextmanager
def rpc_server(settings: Settings) -> Iterator[Rpc]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work: Callable[..., Any], *given: object) -> Any:
        return asyncio.run_coroutine_threadsafe(work(*given), loop).result(PATIENCE_S)

    avatars = AvatarCache(settings)

    def record_call(*call: Any) -> None:
        running.counted.append(call)

    server = RpcServer(avatars, LatencyByAvatar(), settings, 0, lambda: running.is_ready, record_call)
    running = Rpc(server, avatars, call)
    try:
        running.port = call(running.server.start)
        yield running
        call(running.server.stop)
    finally:
        call(avatars.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def golden_table() -> dict[str, Any] | None:
    """Return the schema of an independent client, or None without the reference material."""
    path = Path(__file__).parents[3] / "shared" / "golden" / "protocol.json"
    return json.loads(path.read_text())["proto"] if path.is_file() else None


KINDS = {1: "double", 2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}


def our_table() -> dict[str, Any]:
    """Return the schema of the generated stubs in the same form."""
    messages = {
        name: [
            {
                "name": field.name,
                "number": field.number,
                "type": field.message_type.name if field.message_type else KINDS[field.type],
                "repeated": field.is_repeated,
                "optional": field.containing_oneof is not None,
            }
            for field in message.fields
        ]
        for name, message in pb2.DESCRIPTOR.message_types_by_name.items()
    }
    [service] = pb2.DESCRIPTOR.services_by_name.values()
    calls = [
        {
            "rpc": call.name,
            "request": call.input_type.name,
            "response": call.output_type.name,
            "client_streaming": call.client_streaming,
        }
        for call in service.methods
    ]
    return {"package": pb2.DESCRIPTOR.package, "messages": messages, "services": {service.name: calls}}


class Proto:
    """Messages and a client built from a table of fields alone, without any code of the server."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._table = table
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.Add(describe(table))

    def message(self, name: str) -> Any:
        found = self._pool.FindMessageTypeByName(f"{self._table['package']}.{name}")
        return message_factory.GetMessageClass(found)

    def client(self, channel: grpc.Channel) -> Client:
        return Client(self, self._table, channel)


class Client:
    """`client.GetStats(model_name="a")`; a call that streams takes an iterator of requests."""

    def __init__(self, proto: Proto, table: dict[str, Any], channel: grpc.Channel) -> None:
        for call in table["services"]["OptimizedLipSyncService"]:
            setattr(self, call["rpc"], make_call(proto, call, channel))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)


def make_call(proto: Proto, call: dict[str, Any], channel: grpc.Channel) -> Callable[..., Any]:
    request, response = proto.message(call["request"]), proto.message(call["response"])
    streams = call["client_streaming"]
    kind = channel.stream_stream if streams else channel.unary_unary
    send = kind(
        f"/{SERVICE}/{call['rpc']}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    how = {"timeout": PATIENCE_S, "wait_for_ready": True}

    def stream(requests: Iterator[dict[str, Any]], **options: Any) -> Any:
        return send((request(**one) for one in requests), **how | options)

    def unary(options: dict[str, Any] | None = None, /, **fields: Any) -> Any:
        return send(request(**fields), **how | (options or {}))

    return stream if streams else unary


def describe(table: dict[str, Any]) -> descriptor_pb2.FileDescriptorProto:
    """Return the table as the descriptor that protoc would create."""
    file = descriptor_pb2.FileDescriptorProto(name="of_the_table.proto", package=table["package"], syntax="proto3")
    for name, fields in table["messages"].items():
        message = file.message_type.add(name=name)
        for one in fields:
            added = message.field.add(name=one["name"], number=one["number"])
            added.label = added.LABEL_REPEATED if one["repeated"] else added.LABEL_OPTIONAL
            if one["type"] in table["messages"]:
                added.type, added.type_name = added.TYPE_MESSAGE, f".{table['package']}.{one['type']}"
            else:
                added.type = added.Type.Value(f"TYPE_{one['type'].upper()}")
            if one["optional"]:
                added.proto3_optional = True
                added.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{one['name']}")
    return file


def decode_jpeg(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def through_jpeg(image: np.ndarray, quality: int = PATCH_QUALITY) -> np.ndarray:
    """Encode and decode an image."""
    return decode_jpeg(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def noise(n_samples: int, seed: int = 0, loudness: float = 6000) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n_samples) * loudness).clip(-32768, 32767).astype(np.int16)


def split_chunks(pcm: np.ndarray, samples: int = 640) -> list[bytes]:
    return [pcm[i : i + samples].astype("<i2").tobytes() for i in range(0, len(pcm), samples)]


def error_of(call: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    trailing = dict(call.trailing_metadata())
    return call.code(), call.details(), trailing.get("viseme-code", "")
