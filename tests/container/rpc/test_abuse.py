"""gRPC errors, limits, and hostile clients."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from support.rpc_server import (
    PATIENCE_S,
    SERVICE,
    Client,
    Proto,
    Rpc,
    error_of,
    our_table,
    rpc_server,
)
from support.waiting import wait_until

from container.http.pacing import MAX_WAIT_S, Pacer
from container.live.avatar_cache import N_SINGLE_FRAME_THREADS
from container.rpc import MAX_BATCH, MAX_RECEIVED_BYTES, MAX_STREAMS, MAX_WAITING, share_of
from inference.avatar import AvatarPackage
from inference.settings import Settings

# Errors and limits


@pytest.mark.parametrize("n_frames", [0, -1, MAX_BATCH + 1, 2**31 - 1])
def test_the_size_of_a_batch_is_bounded(ours: Client, n_frames: int):
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchWithAudio(model_name="drawn", frame_count=n_frames, audio_chunks=[b"\0\0"])
    assert error_of(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert f"a batch of {n_frames} frames; expected 1 to {MAX_BATCH}" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchInference(model_name="drawn", frame_ids=[0] * (n_frames % 1000 + 1000 if n_frames else 0))
    assert error_of(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_long_name_is_not_repeated_in_full(ours: Client):
    batch = ours.GenerateBatchInference(model_name="n" * (1 << 20), frame_ids=range(MAX_BATCH))
    assert len(batch.responses) == MAX_BATCH
    assert batch.ByteSize() < 200_000


def test_a_huge_message_is_rejected(ours: Client):
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchWithAudio(frame_count=1, audio_chunks=[b"\0" * (MAX_RECEIVED_BYTES + 1)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unexpected_errors_reveal_nothing(ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(rehearsed, "generate", fail)
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateInference(model_name="rehearsed", frame_id=1)
    code, details, stable = error_of(caught.value)
    assert (code, stable) == (grpc.StatusCode.INTERNAL, "internal_error")
    assert "secret" not in details


def test_calls_over_the_limit_are_rejected(
    rpc: Rpc, channel: grpc.Channel, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    resume, generate = threading.Event(), rehearsed.generate

    def wait(*given: Any) -> Any:
        assert resume.wait(PATIENCE_S)
        return generate(*given)

    monkeypatch.setattr(rehearsed, "generate", wait)
    call = channel.unary_unary(f"/{SERVICE}/GenerateInference")
    request = Proto(our_table()).message("OptimizedInferenceRequest")(model_name="rehearsed").SerializeToString()
    waiting = [call.future(request, timeout=PATIENCE_S) for _ in range(MAX_WAITING)]
    wait_until(lambda: rpc.server.service.n_waiting == MAX_WAITING)
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateInference(model_name="rehearsed")
    assert error_of(caught.value)[::2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
    assert ours.HealthCheck().healthy  # not delayed by them
    resume.set()
    assert len([one.result() for one in waiting]) == MAX_WAITING
    assert ours.GenerateInference(model_name="rehearsed").success


def test_single_frames_leave_threads_to_sessions(
    rpc: Rpc, channel: grpc.Channel, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    resume, busy, generate = threading.Event(), [], rehearsed.generate

    def wait(*given: Any) -> Any:
        busy.append(given[0])
        assert resume.wait(PATIENCE_S)
        return generate(*given)

    monkeypatch.setattr(rehearsed, "generate", wait)
    call = channel.unary_unary(f"/{SERVICE}/GenerateInference")
    request = Proto(our_table()).message("OptimizedInferenceRequest")(model_name="rehearsed").SerializeToString()
    waiting = [call.future(request, timeout=PATIENCE_S) for _ in range(20)]
    wait_until(lambda: rpc.server.service.n_waiting == 20 and len(busy) == N_SINGLE_FRAME_THREADS)
    assert rpc.call(rpc.avatars.run_in_thread, lambda: "a session's frame") == "a session's frame"
    assert len(busy) == N_SINGLE_FRAME_THREADS
    resume.set()
    assert len([one.result() for one in waiting]) == len(busy) == 20


# Deadlines, back-pressure and hostile clients


def test_work_stops_when_the_callers_deadline_passes(
    rpc: Rpc, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    rendered, generate = [], rehearsed.generate
    monkeypatch.setattr(
        rehearsed, "generate", lambda *given: (rendered.append(given[0]), time.sleep(0.05), generate(*given))[2]
    )
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchInference({"timeout": 0.5}, model_name="rehearsed", frame_ids=range(75))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: rpc.server.service.n_waiting == 0)
    n_rendered = len(rendered)
    assert n_rendered < 75
    assert ours.GenerateInference(model_name="rehearsed", frame_id=1).success
    assert len(rendered) == n_rendered + 1


def test_work_stops_when_the_caller_cancels(
    rpc: Rpc, channel: grpc.Channel, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    rendered, generate = [], rehearsed.generate
    monkeypatch.setattr(
        rehearsed, "generate", lambda *given: (rendered.append(given[0]), time.sleep(0.05), generate(*given))[2]
    )
    message = Proto(our_table()).message("BatchInferenceRequest")(model_name="rehearsed", frame_ids=range(75))
    call = channel.unary_unary(f"/{SERVICE}/GenerateBatchInference").future(message.SerializeToString())
    wait_until(lambda: rendered)
    call.cancel()
    wait_until(lambda: rpc.server.service.n_waiting == 0)
    assert len(rendered) < 75


def test_a_stalled_client_delays_only_its_own_stream(
    rpc: Rpc, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    """It requests ten thousand frames and reads none: the server renders only what fits the connection's buffers."""
    monkeypatch.setattr("container.live.legacy.single_frames.encode_jpeg", lambda *_: b"\xff" * 60_000)
    rendered, service = [], rpc.server.service
    before = service.n_streams
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(rpc.address, options) as own:
        generate = rehearsed.generate
        monkeypatch.setattr(rehearsed, "generate", lambda *given: rendered.append(given[0]) or generate(*given))
        stalled = (
            Proto(our_table())
            .client(own)
            .StreamInference({"model_name": "rehearsed", "frame_id": i % 75} for i in range(10_000))
        )
        first = next(stalled)
        assert first.success
        settle(lambda: len(rendered))
        n_rendered = len(rendered)
        assert n_rendered < 500
        assert ours.GenerateInference(model_name="rehearsed", frame_id=3).success
        assert len(list(ours.StreamInference({"model_name": "rehearsed", "frame_id": i} for i in range(9)))) == 9
        assert len(rendered) == n_rendered + 10
        stalled.cancel()
    wait_until(lambda: service.n_streams == before)


def settle(count: Any) -> None:
    """Wait until a count has not changed for a second."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        if count() != last:
            last, since = count(), time.monotonic()


def test_a_stalled_stream_is_ended(rpc: Rpc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.STALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr("container.live.legacy.single_frames.encode_jpeg", lambda *_: b"\xff" * 1_000_000)
    service = rpc.server.service
    before = service.n_streams
    with grpc.insecure_channel(rpc.address, [("grpc.use_local_subchannel_pool", 1)]) as own:
        stalled = (
            Proto(our_table())
            .client(own)
            .StreamInference({"model_name": "rehearsed", "frame_id": i % 75} for i in range(1000))
        )
        next(stalled)
        wait_until(lambda: service.n_streams == before)
        with pytest.raises(grpc.RpcError) as caught:
            list(stalled)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_number_of_streams_is_bounded(rpc: Rpc, ours: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.MAX_STREAMS", 2)
    assert MAX_STREAMS > 2
    done = threading.Event()

    def requests() -> Iterator[dict[str, Any]]:
        yield {"model_name": "rehearsed", "frame_id": 0}
        assert done.wait(PATIENCE_S)

    two = [ours.StreamInference(requests()) for _ in range(2)]
    assert all(next(one).success for one in two)
    with pytest.raises(grpc.RpcError) as caught:
        next(ours.StreamInference(requests()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    done.set()
    assert [list(one) for one in two] == [[], []]
    assert next(ours.StreamInference(requests())).success


def garbage(rng: random.Random) -> bytes:
    """Return bytes that are not a message: noise, a truncated message, or a length that nothing follows."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        return bytes([rng.randrange(1, 6) << 3 | 2]) + b"\xff\xff\xff\xff\x07" + rng.randbytes(20)  # declares 2 GB
    if kind == 2:
        return bytes([rng.randrange(1, 6) << 3 | rng.choice([3, 4, 6, 7])]) + rng.randbytes(9)
    return bytes.fromhex("0a0773616e646572731008180422020001220102")[: rng.randrange(1, 19)]


def end_of(stream: Any) -> grpc.StatusCode:
    with suppress(grpc.RpcError):
        list(stream)
    return stream.code()


def test_the_server_survives_fuzzed_messages(ours: Client, channel: grpc.Channel, caplog: pytest.LogCaptureFixture):
    rng = random.Random(20)
    names = ["GenerateInference", "GenerateBatchWithAudio", "LoadPackage", "GetVideoFrame", "GetStats", "HealthCheck"]
    codes: Counter[grpc.StatusCode] = Counter()
    for _ in range(40):
        calls = [channel.unary_unary(f"/{SERVICE}/{rng.choice(names)}") for _ in range(50)]
        codes.update(one.code() for one in [call.future(garbage(rng), timeout=PATIENCE_S) for call in calls])
    assert codes.total() == 2000
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 1000
    for _ in range(30):
        stream = channel.stream_stream(f"/{SERVICE}/StreamInference")(iter([garbage(rng)]), timeout=PATIENCE_S)
        assert end_of(stream) in codes
    assert ours.GenerateInference(model_name="rehearsed", frame_id=2).success
    assert not caplog.records  # invalid requests must not fill the log


def test_the_server_survives_bytes_that_are_not_http2(rpc: Rpc, ours: Client):
    rng = random.Random(21)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    headers = b"\xff\xff\xff\x01\x05\xff\xff\xff\xff"  # a HEADERS frame of 16 MB
    for body in [b"GET / HTTP/1.1\r\n\r\n", preface + headers, *(preface + rng.randbytes(300) for _ in range(50))]:
        with socket.create_connection(("127.0.0.1", rpc.port)) as hostile:
            hostile.sendall(body)
    assert ours.GenerateInference(model_name="rehearsed", frame_id=2).success


def test_a_running_batch_is_finished_when_the_server_stops(rpc_settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.GRACE_S", PATIENCE_S)
    with rpc_server(rpc_settings) as own, grpc.insecure_channel(own.address) as opened:
        message = Proto(our_table()).message("BatchInferenceRequest")(model_name="rehearsed", frame_ids=range(20))
        own.package("rehearsed")
        call = opened.unary_unary(f"/{SERVICE}/GenerateBatchInference").future(message.SerializeToString())
        wait_until(lambda: own.server.service.n_waiting)
        own.is_ready = False
        own.call(own.server.stop)
        response = Proto(our_table()).message("BatchInferenceResponse").FromString(call.result(PATIENCE_S))
    assert [one.success for one in response.responses] == [True] * 20


@pytest.mark.parametrize("name", ["ListModels", "HealthCheck"])
def test_cheap_calls_are_paced_by_client(rpc: Rpc, ours: Client, monkeypatch: pytest.MonkeyPatch, name: str):
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    monkeypatch.setattr(rpc.server.service, "pacer", Pacer(lambda: 0.0, sleep, rate=1, burst=2))
    for _ in range(2 + round(MAX_WAIT_S)):
        getattr(ours, name)()
    assert waits == [1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(grpc.RpcError) as caught:
        getattr(ours, name)()
    assert error_of(caught.value)[::2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")


def test_connections_are_bounded(rpc_settings: Settings):
    with rpc_server(rpc_settings.model_copy(update={"max_connections": 16})) as own, ExitStack() as stack:
        for _ in range(16):
            options = [("grpc.use_local_subchannel_pool", 1)]
            opened = stack.enter_context(grpc.insecure_channel(own.address, options))
            Proto(our_table()).client(opened).ListModels()
        with socket.create_connection(("127.0.0.1", own.port), PATIENCE_S) as refused:
            assert refused.recv(1) == b""


def test_a_client_elsewhere_has_a_share_of_the_places():
    assert share_of("192.0.2.1", MAX_STREAMS) == MAX_STREAMS // 2
    assert share_of("127.0.0.1", MAX_STREAMS) is None  # a reverse proxy may run there
