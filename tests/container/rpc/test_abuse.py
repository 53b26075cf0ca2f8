"""gRPC's refusals, and what becomes of callers who misbehave."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from rpc_server import (
    PATIENCE_S,
    SERVICE,
    Client,
    Proto,
    Rpc,
    our_table,
    refused,
    rpc_server,
    wait_until,
)

from container.live.avatar_cache import N_SINGLE_FRAME_THREADS
from container.rpc import MAX_BATCH, MAX_RECEIVED_BYTES, MAX_STREAMS, MAX_WAITING
from inference.avatar import AvatarPackage
from inference.settings import Settings

# Refusals


@pytest.mark.parametrize("n_frames", [0, -1, MAX_BATCH + 1, 2**31 - 1])
def test_a_batch_has_its_bounds(ours: Client, n_frames: int):
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchWithAudio(model_name="drawn", frame_count=n_frames, audio_chunks=[b"\0\0"])
    assert refused(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert f"a batch of {n_frames} frames; expected 1 to {MAX_BATCH}" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchInference(model_name="drawn", frame_ids=[0] * (n_frames % 1000 + 1000 if n_frames else 0))
    assert refused(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_long_name_is_not_multiplied(ours: Client):
    batch = ours.GenerateBatchInference(model_name="n" * (1 << 20), frame_ids=range(MAX_BATCH))
    assert len(batch.responses) == MAX_BATCH
    assert batch.ByteSize() < 200_000


def test_a_huge_message_is_refused(ours: Client):
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchWithAudio(frame_count=1, audio_chunks=[b"\0" * (MAX_RECEIVED_BYTES + 1)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_nothing_of_ours_leaks_out_of_a_fault(ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(rehearsed, "generate", fail)
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateInference(model_name="rehearsed", frame_id=1)
    code, said, stable = refused(caught.value)
    assert (code, stable) == (grpc.StatusCode.INTERNAL, "internal_error")
    assert "secret" not in said


def test_who_comes_when_all_places_are_taken_is_told_to_come_again(
    rpc: Rpc, channel: grpc.Channel, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    going_on, paint = threading.Event(), rehearsed.generate

    def wait(*given: Any) -> Any:
        assert going_on.wait(PATIENCE_S)
        return paint(*given)

    monkeypatch.setattr(rehearsed, "generate", wait)
    call = channel.unary_unary(f"/{SERVICE}/GenerateInference")
    request = Proto(our_table()).message("OptimizedInferenceRequest")(model_name="rehearsed").SerializeToString()
    waiting = [call.future(request, timeout=PATIENCE_S) for _ in range(MAX_WAITING)]
    wait_until(lambda: rpc.server.service.n_waiting == MAX_WAITING)
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateInference(model_name="rehearsed")
    assert refused(caught.value)[::2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
    assert ours.HealthCheck().healthy  # not kept waiting by them
    going_on.set()
    assert len([one.result() for one in waiting]) == MAX_WAITING
    assert ours.GenerateInference(model_name="rehearsed").success


def test_frames_by_number_leave_threads_to_sessions(
    rpc: Rpc, channel: grpc.Channel, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    going_on, busy, paint = threading.Event(), [], rehearsed.generate

    def wait(*given: Any) -> Any:
        busy.append(given[0])
        assert going_on.wait(PATIENCE_S)
        return paint(*given)

    monkeypatch.setattr(rehearsed, "generate", wait)
    call = channel.unary_unary(f"/{SERVICE}/GenerateInference")
    request = Proto(our_table()).message("OptimizedInferenceRequest")(model_name="rehearsed").SerializeToString()
    waiting = [call.future(request, timeout=PATIENCE_S) for _ in range(20)]
    wait_until(lambda: rpc.server.service.n_waiting == 20 and len(busy) == N_SINGLE_FRAME_THREADS)
    assert rpc.call(rpc.avatars.run_in_thread, lambda: "a session's frame") == "a session's frame"
    assert len(busy) == N_SINGLE_FRAME_THREADS
    going_on.set()
    assert len([one.result() for one in waiting]) == len(busy) == 20


# Deadlines, back-pressure and hostile clients


def test_work_stops_when_the_callers_deadline_passes(
    rpc: Rpc, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    painted, paint = [], rehearsed.generate
    monkeypatch.setattr(
        rehearsed, "generate", lambda *given: (painted.append(given[0]), time.sleep(0.05), paint(*given))[2]
    )
    with pytest.raises(grpc.RpcError) as caught:
        ours.GenerateBatchInference({"timeout": 0.5}, model_name="rehearsed", frame_ids=range(75))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: rpc.server.service.n_waiting == 0)
    n_painted = len(painted)
    assert n_painted < 75
    assert ours.GenerateInference(model_name="rehearsed", frame_id=1).success
    assert len(painted) == n_painted + 1


def test_work_stops_when_the_caller_leaves(
    rpc: Rpc, channel: grpc.Channel, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    painted, paint = [], rehearsed.generate
    monkeypatch.setattr(
        rehearsed, "generate", lambda *given: (painted.append(given[0]), time.sleep(0.05), paint(*given))[2]
    )
    message = Proto(our_table()).message("BatchInferenceRequest")(model_name="rehearsed", frame_ids=range(75))
    call = channel.unary_unary(f"/{SERVICE}/GenerateBatchInference").future(message.SerializeToString())
    wait_until(lambda: painted)
    call.cancel()
    wait_until(lambda: rpc.server.service.n_waiting == 0)
    assert len(painted) < 75


def test_a_reader_that_stalls_holds_back_its_own_stream_alone(
    rpc: Rpc, ours: Client, rehearsed: AvatarPackage, monkeypatch: pytest.MonkeyPatch
):
    """It asks for ten thousand frames and takes none: the server draws what the connection's buffers hold, no more."""
    monkeypatch.setattr("container.live.legacy.single_frames.encode_jpeg", lambda *_: b"\xff" * 60_000)
    drawn, calls = [], rpc.server.service
    before = calls.n_streams
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(rpc.address, options) as own:
        paint = rehearsed.generate
        monkeypatch.setattr(rehearsed, "generate", lambda *given: drawn.append(given[0]) or paint(*given))
        stalled = (
            Proto(our_table())
            .client(own)
            .StreamInference({"model_name": "rehearsed", "frame_id": i % 75} for i in range(10_000))
        )
        first = next(stalled)
        assert first.success
        settle(lambda: len(drawn))
        n_drawn = len(drawn)
        assert n_drawn < 500
        assert ours.GenerateInference(model_name="rehearsed", frame_id=3).success
        assert len(list(ours.StreamInference({"model_name": "rehearsed", "frame_id": i} for i in range(9)))) == 9
        assert len(drawn) == n_drawn + 10
        stalled.cancel()
    wait_until(lambda: calls.n_streams == before)


def settle(count: Any) -> None:
    """Until a count stands still for a second."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        if count() != last:
            last, since = count(), time.monotonic()


def test_a_stalled_reader_is_given_up(rpc: Rpc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.STALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr("container.live.legacy.single_frames.encode_jpeg", lambda *_: b"\xff" * 1_000_000)
    calls = rpc.server.service
    before = calls.n_streams
    with grpc.insecure_channel(rpc.address, [("grpc.use_local_subchannel_pool", 1)]) as own:
        stalled = (
            Proto(our_table())
            .client(own)
            .StreamInference({"model_name": "rehearsed", "frame_id": i % 75} for i in range(1000))
        )
        next(stalled)
        wait_until(lambda: calls.n_streams == before)
        with pytest.raises(grpc.RpcError) as caught:
            list(stalled)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_so_many_streams_and_no_more(rpc: Rpc, ours: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.MAX_STREAMS", 2)
    assert MAX_STREAMS > 2
    done = threading.Event()

    def ask() -> Iterator[dict[str, Any]]:
        yield {"model_name": "rehearsed", "frame_id": 0}
        assert done.wait(PATIENCE_S)

    two = [ours.StreamInference(ask()) for _ in range(2)]
    assert all(next(one).success for one in two)
    with pytest.raises(grpc.RpcError) as caught:
        next(ours.StreamInference(ask()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    done.set()
    assert [list(one) for one in two] == [[], []]
    assert next(ours.StreamInference(ask())).success


def garbage(rng: random.Random) -> bytes:
    """Bytes that are no message: noise, cut ones, and lengths of what never comes."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        return bytes([rng.randrange(1, 6) << 3 | 2]) + b"\xff\xff\xff\xff\x07" + rng.randbytes(20)  # 2 GB follow
    if kind == 2:
        return bytes([rng.randrange(1, 6) << 3 | rng.choice([3, 4, 6, 7])]) + rng.randbytes(9)
    return bytes.fromhex("0a0773616e646572731008180422020001220102")[: rng.randrange(1, 19)]


def end_of(stream: Any) -> grpc.StatusCode:
    with suppress(grpc.RpcError):
        list(stream)
    return stream.code()


def test_fuzzed_messages_never_harm_the_server(ours: Client, channel: grpc.Channel, caplog: pytest.LogCaptureFixture):
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
    assert not caplog.records  # it is the callers' fault, and who makes it on purpose could fill the log


def test_bytes_that_are_no_http2_never_harm_the_server(rpc: Rpc, ours: Client):
    rng = random.Random(21)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    headers = b"\xff\xff\xff\x01\x05\xff\xff\xff\xff"  # a frame of headers, 16 MB long
    for body in [b"GET / HTTP/1.1\r\n\r\n", preface + headers, *(preface + rng.randbytes(300) for _ in range(50))]:
        with socket.create_connection(("127.0.0.1", rpc.port)) as hostile:
            hostile.sendall(body)
    assert ours.GenerateInference(model_name="rehearsed", frame_id=2).success


def test_a_batch_that_runs_is_finished_when_the_server_stops(rpc_settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("container.rpc.GRACE_S", PATIENCE_S)
    with rpc_server(rpc_settings) as own, grpc.insecure_channel(own.address) as opened:
        message = Proto(our_table()).message("BatchInferenceRequest")(model_name="rehearsed", frame_ids=range(20))
        own.package("rehearsed")
        call = opened.unary_unary(f"/{SERVICE}/GenerateBatchInference").future(message.SerializeToString())
        wait_until(lambda: own.server.service.n_waiting)
        own.is_ready = False
        own.call(own.server.stop)
        answer = Proto(our_table()).message("BatchInferenceResponse").FromString(call.result(PATIENCE_S))
    assert [one.success for one in answer.responses] == [True] * 20
