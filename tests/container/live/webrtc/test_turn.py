"""Sessions through a TURN server alone: of the client, and of the server's own setting."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from aioice.ice import Connection as IceConnection
from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from support.live_app import live_app, make_settings
from support.turn_server import PASSWORD, USERNAME, TurnServer, turn_server
from support.waiting import PATIENCE_S
from support.whep_client import SDP, WhepClient, whep_session

from container.app import Server
from container.live import avatar_cache as avatars_module
from inference.avatar import AvatarPackage

WHEP = "/v1/avatars/drawn/whep"
ANOTHER = "203.0.113.5"  # a client that is not on this machine
LOUD = 1000  # of 32768


class RelayedClient(WhepClient):
    """A client whose only address is that of a TURN server."""

    def __init__(self, turn: TurnServer) -> None:
        servers = [RTCIceServer(f"turn:{turn.address}:{turn.port}", USERNAME, PASSWORD)]
        configuration = RTCConfiguration(servers, iceTransportPolicy=RTCIceTransportPolicy.RELAY)
        super().__init__(connection=RTCPeerConnection(configuration))


class RelayedServerClient(WhepClient):
    """A client that uses none of the server's addresses but that of the server's TURN server."""

    @property
    def ice(self) -> IceConnection:
        assert self.connection.sctp is not None
        return self.connection.sctp.transport.transport._connection

    async def connect(self, address: str) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        for transceiver in self.connection.getTransceivers():
            ignore_unknown_addresses(transceiver.sender.transport.transport._connection)
        ignore_unknown_addresses(self.ice)
        headers = {"content-type": SDP, "x-forwarded-for": ANOTHER}
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            found = await http.post(address, content=self.connection.localDescription.sdp, headers=headers)
        assert found.status_code == 201, found.text
        lines = found.text.split("\r\n")
        kept = [line for line in lines if not line.startswith("a=candidate") or " typ relay" in line]
        assert any(line.startswith("a=candidate") for line in kept)
        await self.connection.setRemoteDescription(RTCSessionDescription("\r\n".join(kept), "answer"))


def ignore_unknown_addresses(ice: IceConnection) -> None:
    """Ignore checks from addresses that are not in the answer: aioice would use the server's own as well."""
    check = type(ice).check_incoming

    def check_if_known(message: Any, address: tuple[str, int], protocol: Any) -> None:
        if address in [(one.host, one.port) for one in ice.remote_candidates]:
            check(ice, message, address, protocol)

    vars(ice)["check_incoming"] = check_if_known


async def speak(client: WhepClient) -> None:
    """Check that both tracks, speech and events pass."""
    await client.until_event("ready")
    speech = np.random.default_rng(4).standard_normal(16_000) * 6000
    client.channel.send(speech.astype("<i2").tobytes())
    client.send_command("flush")
    await client.until_event("speech_finished")
    await client.until(lambda: any(np.abs(one.to_ndarray()).max() > LOUD for one in client.frames["audio"]))
    await client.until(lambda: client.frames["video"])


@pytest.fixture
def deployment(
    avatar_folder: Path, avatar_package: AvatarPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    package = copy.copy(avatar_package)
    vars(package)["close"] = lambda: None
    monkeypatch.setattr(avatars_module, "load_package", lambda _name, _settings: package)
    return {"folder": tmp_path, "avatars": avatar_folder.parent}


def test_a_client_behind_a_turn_server(deployment: dict[str, Any]):
    async def go(address: str, turn: TurnServer) -> None:
        async with whep_session(address, RelayedClient(turn)) as client:
            assert "typ relay" in client.connection.localDescription.sdp
            assert "typ host" not in client.connection.localDescription.sdp
            await speak(client)

    with turn_server("127.0.0.1") as turn, live_app(Server(make_settings(**deployment))) as app:
        asyncio.run(go(app.http(WHEP), turn))
        assert turn.n_allocations > 0


def test_a_server_behind_its_turn_server(deployment: dict[str, Any]):
    addresses = get_host_addresses(use_ipv4=True, use_ipv6=False)
    if not addresses:
        pytest.skip("this machine has no address but that of loopback")

    async def go(address: str) -> None:
        client = RelayedServerClient()
        async with whep_session(address, client):
            await speak(client)
            (pair,) = client.ice._nominated.values()
            assert pair.remote_candidate.type == "relay"

    with turn_server(addresses[0]) as turn:
        credentials = f"{USERNAME}:{quote(PASSWORD, safe='')}"
        servers = f"turn:{credentials}@{turn.address}:{turn.port}"
        with live_app(Server(make_settings(**deployment, ice_servers=servers, trusted_proxies=1))) as app:
            asyncio.run(go(app.http(WHEP)))
            assert turn.n_allocations > 0
