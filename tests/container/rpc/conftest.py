from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.rpc_server import Client, Proto, Rpc, golden_table, our_table, rpc_server

from inference.avatar import AvatarPackage
from inference.avatar.manifest import describe_files, read_manifest, write_manifest
from inference.avatar.write_package import write_features
from inference.settings import Settings


@pytest.fixture(scope="session")
def rpc_settings(avatar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return settings with two packages: the rendered avatar, and the same with packaged audio features."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "drawn").symlink_to(avatar_folder)
    shutil.copytree(avatar_folder, folder / "rehearsed")
    write_features(folder / "rehearsed", np.random.default_rng(5).random((75, 32), np.float32) * 4)
    manifest = read_manifest(avatar_folder)
    changes = {"name": "rehearsed", "files": describe_files(folder / "rehearsed")}
    write_manifest(folder / "rehearsed", manifest.model_copy(update=changes))
    return Settings(data_dir=folder / "cache", device="cpu", precision="f32", avatars=folder)


@pytest.fixture(scope="session")
def rpc(rpc_settings: Settings) -> Iterator[Rpc]:
    with rpc_server(rpc_settings) as running:
        yield running


@pytest.fixture(scope="session")
def rehearsed(rpc: Rpc) -> AvatarPackage:
    return rpc.package("rehearsed")


@pytest.fixture(scope="session")
def drawn(rpc: Rpc) -> AvatarPackage:
    return rpc.package("drawn")


@pytest.fixture(scope="session")
def channel(rpc: Rpc) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(rpc.address, options) as opened:
        yield opened


@pytest.fixture(scope="session", params=["golden", "ours"])
def proto(request: pytest.FixtureRequest) -> Proto:
    """Return the schema of an independent client, if it is available, and that of the generated stubs."""
    table = golden_table() if request.param == "golden" else our_table()
    if table is None:
        pytest.skip("the reference material is not beside this checkout")
    return Proto(table)


@pytest.fixture(scope="session")
def client(proto: Proto, channel: grpc.Channel) -> Client:
    return proto.client(channel)


@pytest.fixture(scope="session")
def ours(channel: grpc.Channel) -> Client:
    return Proto(our_table()).client(channel)
