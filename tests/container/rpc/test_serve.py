"""`viseme serve` with its gRPC port, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import grpc
import pytest
from support.live_server import PATIENCE_S, SERVE, live_server
from support.rpc_server import Proto, our_table

from inference.settings import Settings


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found: int = one.getsockname()[1]
        return found


def test_one_process_serves_http_and_grpc_and_stops_during_a_stream(
    rpc_settings: Settings, weights_cache: Path, tmp_path: Path
):
    port = free_port()
    env = {"VISEME_AVATARS": str(rpc_settings.avatars), "VISEME_TOKEN": "sesame", "VISEME_DEVICE": "cpu"}
    with live_server(tmp_path, env, "--grpc-port", str(port)) as live:
        assert live.ready["grpc_port"] == port
        with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
            client, token = Proto(our_table()).client(opened), {"metadata": (("authorization", "Bearer sesame"),)}
            assert client.HealthCheck(token).status == "SERVING"
            with pytest.raises(grpc.RpcError) as caught:
                client.HealthCheck()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError):
                opened.unary_unary("/made.Up/Name")(b"")
            assert live.get("/metrics").status_code == 403
            with live.client() as http:
                counted = http.get("/metrics", headers={"Authorization": "Bearer sesame"}).text
            for route, status in (
                ("HealthCheck", "OK"),
                ("HealthCheck", "UNAUTHENTICATED"),
                ("other", "UNAUTHENTICATED"),
            ):
                assert f'viseme_requests_total{{route="grpc {route}",status="{status}"}} 1.0' in counted
            endless = client.StreamInference(
                ({"model_name": "rehearsed", "frame_id": i % 75} for i in iter(int, 1)), **token
            )
            assert next(endless).success
            assert client.ListModels(token).loaded_models == ["rehearsed"]
            live.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as caught:
                list(endless)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert live.process.wait(PATIENCE_S) == 0
        assert "unexpected error" not in live.log.read_text()


def test_an_invalid_certificate_is_a_usage_error(tmp_path: Path):
    (tmp_path / "pem").write_text("<html>")
    env = {"VISEME_TLS_CERT": str(tmp_path / "pem"), "VISEME_TLS_KEY": str(tmp_path / "pem")}
    run = subprocess.run(SERVE, env=os.environ | env, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"VISEME_TLS_CERT={tmp_path}/pem" in run.stderr
