"""Access to the gRPC port: token and TLS; health and reflection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.certificates import make_pair
from support.rpc_server import (
    SERVICE,
    Proto,
    Rpc,
    error_of,
    our_table,
    rpc_server,
)

from container.live.legacy.single_frames import LatencyByAvatar
from container.rpc import RpcServer
from inference.errors import InvalidRequest
from inference.settings import Settings


def test_reflection_lists_the_calls(channel: grpc.Channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == set(
        database.get_services()
    )
    file = database.FindFileContainingSymbol(SERVICE)
    assert {call.name for call in file.service[0].method} == {
        "GenerateInference",
        "GenerateBatchInference",
        "GenerateBatchWithAudio",
        "StreamInference",
        "LoadPackage",
        "GetStats",
        "ListModels",
        "HealthCheck",
        "GetVideoFrame",
        "GetModelMetadata",
        "StreamVisemes",
    }


def test_the_standard_health_service(channel: grpc.Channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        response = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="another"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_draining_server_reports_not_serving(rpc_settings: Settings):
    with rpc_server(rpc_settings) as own, grpc.insecure_channel(own.address) as opened:
        client = Proto(our_table()).client(opened)
        assert client.HealthCheck().healthy
        own.is_ready = False
        health = client.HealthCheck()
        assert (health.healthy, health.status) == (False, "NOT_SERVING")
        with pytest.raises(grpc.RpcError) as caught:
            client.GenerateInference(model_name="rehearsed")
        assert error_of(caught.value)[::2] == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        with pytest.raises(grpc.RpcError) as caught:
            list(client.StreamInference(iter([{"model_name": "rehearsed"}])))
        assert error_of(caught.value)[::2] == (grpc.StatusCode.UNAVAILABLE, "not_ready")


def test_a_stopped_server_closes_its_port(rpc_settings: Settings):
    with rpc_server(rpc_settings) as own:
        port = own.port
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_a_port_in_use_is_an_error(rpc: Rpc, rpc_settings: Settings):
    second = RpcServer(rpc.avatars, LatencyByAvatar(), rpc_settings, rpc.port, lambda: True)
    with pytest.raises(OSError, match=f"127.0.0.1:{rpc.port}: gRPC cannot use this address"):
        rpc.call(second.start)
    rpc.call(second.stop)


def test_a_server_that_never_started_can_be_stopped(rpc: Rpc, rpc_settings: Settings):
    """The process stops it if another port is not available."""
    rpc.call(RpcServer(rpc.avatars, LatencyByAvatar(), rpc_settings, 0, lambda: True).stop)


@pytest.fixture(scope="module")
def guarded(rpc_settings: Settings) -> Iterator[Rpc]:
    with rpc_server(rpc_settings.model_copy(update={"token": "sesame"})) as running:
        yield running


@pytest.mark.parametrize(
    "given", [(), (("authorization", "sesame"),), (("authorization", "Bearer x"),), (("authorization-bin", b"\xff"),)]
)
def test_calls_without_the_token_are_rejected(guarded: Rpc, given: tuple[tuple[str, str], ...]):
    with grpc.insecure_channel(guarded.address) as opened:
        client = Proto(our_table()).client(opened)
        with pytest.raises(grpc.RpcError) as caught:
            client.ListModels({"metadata": given})
        assert error_of(caught.value)[::2] == (grpc.StatusCode.UNAUTHENTICATED, "access_denied")
        with pytest.raises(grpc.RpcError) as caught:
            list(client.StreamInference(iter([{"model_name": "rehearsed"}]), metadata=given))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(opened).get_services()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        check = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_calls_with_the_token_are_served(guarded: Rpc):
    token = {"metadata": (("authorization", "Bearer sesame"),)}
    with grpc.insecure_channel(guarded.address) as opened:
        client = Proto(our_table()).client(opened)
        assert client.GenerateInference(token, model_name="rehearsed", frame_id=1).success
        [response] = client.StreamInference(iter([{"model_name": "rehearsed"}]), **token)
        assert response.success


def test_tls_requires_trust_in_the_certificate(rpc_settings: Settings, tmp_path: Path):
    pair = make_pair(tmp_path)
    changes = {"tls_cert": pair.cert, "tls_key": pair.key, "token": "sesame"}
    with rpc_server(rpc_settings.model_copy(update=changes)) as own:
        trusting = grpc.ssl_channel_credentials(pair.cert.read_bytes())
        token = grpc.access_token_call_credentials("sesame")
        with grpc.secure_channel(own.address, grpc.composite_channel_credentials(trusting, token)) as opened:
            client = Proto(our_table()).client(opened)
            assert client.GenerateInference(model_name="rehearsed", frame_id=1).success
        for channel in (
            grpc.insecure_channel(own.address),
            grpc.secure_channel(own.address, grpc.ssl_channel_credentials()),  # does not trust the certificate
        ):
            with channel, pytest.raises(grpc.RpcError) as caught:
                Proto(our_table()).client(channel).ListModels({"wait_for_ready": False})
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("fault", ["no file", "no certificate", "another key"])
def test_an_invalid_certificate_stops_the_start(rpc: Rpc, rpc_settings: Settings, tmp_path: Path, fault: str):
    pair = make_pair(tmp_path)
    if fault == "no file":
        pair.cert.unlink()
    elif fault == "no certificate":
        pair.cert.write_text("<html>")
    else:
        (tmp_path / "other").mkdir()
        pair = replace(pair, key=make_pair(tmp_path / "other").key)
    settings = rpc_settings.model_copy(update={"tls_cert": pair.cert, "tls_key": pair.key})
    server = RpcServer(rpc.avatars, LatencyByAvatar(), settings, 0, lambda: True)
    with pytest.raises(InvalidRequest, match="expected PEM files of a certificate and of its key"):
        rpc.call(server.start)
