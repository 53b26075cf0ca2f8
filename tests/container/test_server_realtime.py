"""`viseme serve --realtime` as users start it: every port, with TLS and a token."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.fake_worker import run_fake
from support.live_server import PATIENCE_S, LiveServer, live_server

from container import server as server_module
from container.live.frame_messages import unpack_frame
from container.server import run_server
from container.worker import process as process_module
from inference.settings import Settings

HEADERS = {"Authorization": "Bearer secret"}


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def write_certificate(folder: Path) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return {"VISEME_TLS_CERT": str(folder / "cert.pem"), "VISEME_TLS_KEY": str(folder / "key.pem")}


class SecureServer(LiveServer):
    @property
    def url(self) -> str:
        return super().url.replace("http://127.0.0.1", "https://localhost")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False, verify=self.trust)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.log.parent / "cert.pem"))


@pytest.fixture(scope="module")
def server(
    weights_cache: Path, avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureServer]:
    folder = tmp_path_factory.mktemp("realtime")
    env = write_certificate(folder) | {
        "VISEME_TOKEN": "secret",
        "VISEME_AVATARS": str(avatar_folder.parent),
        "VISEME_PRECISION": "f32",
        "OMP_NUM_THREADS": "1",
    }
    ports = ",".join(map(str, free_ports(3)))
    arguments = ("--realtime", "--legacy-ports", ports, "--grpc-port", "0")
    with live_server(folder, env, *arguments, kind=SecureServer) as live:
        yield live  # type: ignore[misc]


def test_a_session_speaks(server: SecureServer):
    sound = (np.random.default_rng(1).standard_normal(9600) * 5000).astype("<i2").tobytes()

    async def go() -> list[Any]:
        url = server.url.replace("https", "wss") + "/v1/avatars/drawn/session"
        async with websockets.connect(url, ssl=server.trust, additional_headers=HEADERS, proxy=None) as connection:
            await connection.send(sound)
            await connection.send('{"type": "flush"}')
            received: list[Any] = []
            while not received or received[-1] != "speech_finished":
                message = await asyncio.wait_for(connection.recv(), PATIENCE_S)
                received.append(unpack_frame(message) if isinstance(message, bytes) else json.loads(message)["type"])
            return received

    received = asyncio.run(go())
    frames = [one for one in received if not isinstance(one, str)]
    assert b"".join(frame.pcm for frame in frames if frame.is_speaking) == sound
    assert [one for one in received if isinstance(one, str)] == ["ready", "speech_started", "speech_finished"]


def test_every_port_of_older_clients_answers(server: SecureServer):
    async def go(port: int) -> bytes | str:
        url = f"wss://localhost:{port}/ws"
        async with websockets.connect(url, ssl=server.trust, additional_headers=HEADERS, proxy=None) as connection:
            await connection.send(b"\x05drawn" + struct.pack("<I", 7))
            return await asyncio.wait_for(connection.recv(), PATIENCE_S)

    ports = [server.ready[f"legacy_port_{place}"] for place in range(3)]
    for port in [server.ready["port"], *ports]:
        answer = asyncio.run(go(port))
        assert answer[:5] == b"\x01" + struct.pack("<I", 7)
    with server.client() as client:
        assert client.get(f"https://localhost:{ports[2]}/health").status_code == 403
        assert client.get(f"https://localhost:{ports[2]}/health", headers=HEADERS).json()["healthy"] is True
        assert client.get(f"https://localhost:{ports[0]}/health", headers=HEADERS).status_code == 404


def test_avatars_are_loaded_before_the_server_is_ready(server: SecureServer):
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    events = [line["event"] for line in lines]
    assert events.index("an avatar was loaded") < events.index("viseme is ready")
    assert "secret" not in server.log.read_text()


def test_a_port_that_is_taken_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(process_module, "run_worker", run_fake)
    monkeypatch.setattr(server_module, "set_up_logs", lambda: None)
    denied: list[bool] = []
    monkeypatch.setattr(server_module, "deny_inspection", lambda: denied.append(True))  # it would last
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_server(Settings(data_dir=tmp_path, port=0, legacy_ports=(0, port))) == 1
    assert denied == [True]
    assert "a port cannot be opened" in caplog.text
