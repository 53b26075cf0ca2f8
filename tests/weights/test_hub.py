from __future__ import annotations

import hashlib
import io
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hub_server import HubServer, Repository

from inference.backends import Device
from inference.errors import InvalidRequest, StorageError, WeightsNotFound, WrongWeights
from inference.lip_reading.model import load_model
from inference.models import LipCoordNet
from inference.weights import checkpoint
from inference.weights.fetch import fetch
from inference.weights.hub_connection import connect
from inference.weights.registry import HUB, LIP_READING, REGISTRY, HubSource, WeightFile
from inference.weights.resolve import find_weights
from inference.weights.sources import WeightSources

CPU = Device("cpu", "f32")
FILE = HUB.files[0].name
OTHER = "someone/else"
A_COMMIT, B_COMMIT = "a" * 40, "b" * 40


def saved(seed: int) -> bytes:
    """Return LipCoordNet's state dict with random weights as a torch file: 27 MB."""
    torch.manual_seed(seed)
    out = io.BytesIO()
    torch.save(LipCoordNet().state_dict(), out)
    return out.getvalue()


@pytest.fixture(scope="session")
def published() -> bytes:
    return saved(1)


@pytest.fixture
def hub(published: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with LipCoordNet's repository; its file is `published`, whose hash is in the registry."""
    file = WeightFile(FILE, hashlib.sha256(published).hexdigest(), len(published))
    monkeypatch.setitem(REGISTRY, "hub", replace(HUB, files=(file,)))
    with HubServer({HUB.hub.repository: Repository(HUB.hub.revision, {FILE: published})}) as server:
        yield server


@pytest.fixture
def sources(hub: HubServer, tmp_path: Path) -> WeightSources:
    return WeightSources(tmp_path / "cache", hf_endpoint=hub.url)


def files_in(folder: Path) -> list[str]:
    """Return the files in a cache, without the Hub client's own metadata."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts)


def test_the_registry_pins_the_published_weights():
    assert HUB.hub == HubSource("SilentSpeak/LipCoordNet", "ca518743854a518b70cbe0a5107dc7b2dd49b10e")
    assert (HUB.landmarks, HUB.language) == ("dlib", "grid")
    assert HUB.licence.startswith("MIT")


def test_a_set_is_fetched_once_at_its_pinned_revision(hub: HubServer, sources: WeightSources, published: bytes):
    (path,) = fetch("hub", sources)
    assert path.read_bytes() == published
    assert all(f"/resolve/{HUB.hub.revision}/" in path or path.startswith("/lfs/") for _, path, _ in hub.seen)
    hub.seen.clear()
    assert fetch("hub", sources) == [path]
    assert hub.seen == []


def test_a_model_is_loaded_from_the_hub_and_then_from_its_safetensors_copy(
    hub: HubServer, sources: WeightSources, published: bytes, monkeypatch: pytest.MonkeyPatch
):
    model = load_model("hub", CPU, sources)
    assert model.landmarks == "dlib"
    assert model.info.sha256 == hashlib.sha256(published).hexdigest()
    assert model.info.weights == "hub"
    assert find_weights("hub", LIP_READING, sources).path.suffix == ".safetensors"
    monkeypatch.setattr(checkpoint, "read_torch", lambda path: pytest.fail(f"{path} was read"))
    again = load_model("hub", CPU, replace(sources, hf_offline=True))
    assert again.info == model.info
    video, lips = torch.rand(1, 3, 4, 64, 128).numpy(), torch.rand(1, 4, 20, 2).numpy()
    assert np.abs(model.network(video, lips)[0] - again.network(video, lips)[0]).max() < 1e-5


def test_a_damaged_copy_is_written_again(sources: WeightSources):
    copy = find_weights("hub", LIP_READING, sources).path
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-100])
    assert find_weights("hub", LIP_READING, sources).path.read_bytes() == whole


def test_hf_model_id_of_the_published_repository_selects_the_set(sources: WeightSources):
    found = find_weights(None, LIP_READING, replace(sources, hf_model_id=HUB.hub.repository))
    assert (found.label, found.landmarks) == ("hub", "dlib")


def test_an_interrupted_download_resumes(hub: HubServer, sources: WeightSources, published: bytes):
    hub.cuts = [15_000_000]
    (path,) = fetch("hub", sources)
    assert path.read_bytes() == published
    first, second = hub.gets("/lfs/")
    assert "range" not in first
    assert int(second["range"].removeprefix("bytes=").removesuffix("-")) >= 10_000_000


def test_repeated_interruptions_raise_storage_error_and_leave_nothing(
    hub: HubServer, sources: WeightSources, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda s: None)
    hub.cuts = [0] * 20
    with pytest.raises(StorageError, match=r"could not be fetched from http://127"):
        fetch("hub", sources)
    assert files_in(sources.cache) == []


def test_an_unreachable_hub_raises_storage_error_without_a_retry(
    sources: WeightSources, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: pytest.fail("a retry"))
    monkeypatch.setattr("inference.weights.hub.REACH_TIMEOUT_S", 60.0)  # only a guard
    with pytest.raises(StorageError, match="could not be fetched"):
        fetch("hub", replace(sources, hf_endpoint="http://127.0.0.1:9"))


def test_a_name_that_is_never_resolved_raises_storage_error(sources: WeightSources, monkeypatch: pytest.MonkeyPatch):
    resolved = threading.Event()
    monkeypatch.setattr("inference.weights.hub_connection.connect", lambda url, error: resolved.wait())
    monkeypatch.setattr("inference.weights.hub.REACH_TIMEOUT_S", 0.01)
    with pytest.raises(StorageError, match=r"did not answer within 0\.01 s"):
        fetch("hub", sources)
    resolved.set()


def test_a_hub_that_is_slow_to_answer_is_reachable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("inference.weights.hub_connection.CONNECT_TIMEOUT_S", 0.05)
    error: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}/", error)
    assert error == []


def test_a_proxy_of_the_environment_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    error: list[BaseException] = []
    connect(hub.url, error)
    assert isinstance(error[0], ConnectionRefusedError)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")  # of which only the Hub's client knows
    error.clear()
    connect(hub.url, error)
    assert error == []


def test_an_error_of_tls_is_the_answer_of_a_server():
    error: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_in_plain_text, args=(server,))
        thread.start()
        connect(f"https://127.0.0.1:{server.getsockname()[1]}/", error)
        thread.join()
    assert error == []


def answer_in_plain_text(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_the_error_names_a_missing_file(hub: HubServer, sources: WeightSources):
    hub.repositories[HUB.hub.repository].files.clear()
    with pytest.raises(WeightsNotFound, match=rf"{FILE} of SilentSpeak/LipCoordNet at ca51874: .*no such file"):
        fetch("hub", sources)


def test_the_error_names_an_unknown_repository(hub: HubServer, sources: WeightSources):
    hub.repositories.clear()
    with pytest.raises(WeightsNotFound, match="has no repository SilentSpeak/LipCoordNet"):
        fetch("hub", sources)


def test_the_error_names_an_unknown_revision(hub: HubServer, sources: WeightSources):
    hub.repositories[HUB.hub.repository].commit = A_COMMIT
    with pytest.raises(WeightsNotFound, match="no such revision"):
        fetch("hub", sources)


def test_a_gated_repository_needs_the_token(hub: HubServer, sources: WeightSources):
    hub.repositories[HUB.hub.repository].gated = True
    with pytest.raises(WeightsNotFound, match=r"is gated; accept its terms .* set HF_TOKEN"):
        fetch("hub", sources)
    hub.seen.clear()
    assert fetch("hub", replace(sources, hf_token="hf_secret"))
    tokens = [(path.startswith("/lfs/"), headers.get("authorization")) for _, path, headers in hub.seen]
    assert tokens == [(False, None), (False, "Bearer hf_secret"), (True, None)]  # not to the host that stores the file
    assert "hf_secret" not in repr(replace(sources, hf_token="hf_secret"))


def test_a_file_with_another_hash_is_refused_and_deleted(hub: HubServer, sources: WeightSources):
    hub.repositories[HUB.hub.repository].files[FILE] = b"other bytes"
    with pytest.raises(WrongWeights, match="11 bytes with SHA-256"):
        fetch("hub", sources)
    assert files_in(sources.cache) == []


def test_a_file_damaged_in_the_cache_is_fetched_again(hub: HubServer, sources: WeightSources, published: bytes):
    (path,) = fetch("hub", sources)
    path.write_bytes(b"damaged")
    with pytest.raises(WrongWeights, match="7 bytes with SHA-256"):
        fetch("hub", replace(sources, hf_offline=True))
    assert fetch("hub", sources)[0].read_bytes() == published


def test_offline_only_the_cache_is_used(hub: HubServer, sources: WeightSources):
    offline = replace(sources, hf_offline=True)
    with pytest.raises(WeightsNotFound, match=r"HF_HUB_OFFLINE forbids a download; fetch it once online"):
        load_model("hub", CPU, offline)
    assert hub.seen == []
    (path,) = fetch("hub", sources)
    hub.seen.clear()
    assert fetch("hub", offline) == [path]
    assert hub.seen == []


def test_a_file_of_unknown_hash_is_trusted_on_first_use(
    hub: HubServer, sources: WeightSources, published: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(REGISTRY, "hub", replace(HUB, files=(WeightFile(FILE, None),)))
    (path,) = fetch("hub", sources)
    record = path.with_name(path.name + ".sha256").read_text()
    assert record == f"{hashlib.sha256(published).hexdigest()}  {path.name}\n"
    path.write_bytes(published[:-1])
    with pytest.raises(WrongWeights, match="when it was first fetched"):
        find_and_check(sources)


def find_and_check(sources: WeightSources) -> None:
    from inference.weights.cache import locate

    locate(REGISTRY["hub"], REGISTRY["hub"].files[0], sources.cache)


def test_another_repository_is_read_at_the_commit_of_main(hub: HubServer, sources: WeightSources):
    hub.repositories[OTHER] = Repository(A_COMMIT, {"README.md": b"", "pretrain/model.pt": saved(2)})
    first = load_model(None, CPU, replace(sources, hf_model_id=OTHER))
    assert first.info.weights == f"{OTHER}@{A_COMMIT}"
    assert first.landmarks is None
    hub.repositories[OTHER] = Repository(B_COMMIT, {"pretrain/model.pt": saved(3)})
    second = load_model(f"hf://{OTHER}", CPU, sources)
    assert second.info.weights == f"{OTHER}@{B_COMMIT}"
    assert second.info.sha256 != first.info.sha256


def test_another_repository_is_read_from_the_cache_offline_or_if_the_hub_is_down(
    hub: HubServer, sources: WeightSources, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: None)
    hub.repositories[OTHER] = Repository(A_COMMIT, {"model.pt": saved(2)})
    with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE"):
        find_weights(f"hf://{OTHER}", LIP_READING, replace(sources, hf_offline=True))
    found = find_weights(f"hf://{OTHER}", LIP_READING, sources)
    assert find_weights(f"hf://{OTHER}", LIP_READING, replace(sources, hf_offline=True)) == found
    with caplog.at_level(logging.WARNING):
        assert find_weights(f"hf://{OTHER}", LIP_READING, replace(sources, hf_endpoint="http://127.0.0.1:9")) == found
    assert "using the commit that was fetched before" in caplog.text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["README.md"], "no .safetensors, .pt, .pth file"),
        (["a.pt", "b.pt"], r"contains 2 weight files \(a.pt, b.pt\); expected one, or model.safetensors"),
        (["../../out.pt"], "no .safetensors, .pt, .pth file"),
    ],
)
def test_a_repository_without_one_weight_file_is_refused(
    hub: HubServer, sources: WeightSources, files: list[str], words: str
):
    hub.repositories[OTHER] = Repository(A_COMMIT, dict.fromkeys(files, b"x"))
    with pytest.raises(WeightsNotFound, match=words):
        find_weights(f"hf://{OTHER}", LIP_READING, sources)


@pytest.mark.parametrize("name", ["", "../etc", "a/b/c", "owner/..", "a b/c"])
def test_an_invalid_repository_name_is_refused(sources: WeightSources, name: str):
    with pytest.raises(InvalidRequest, match="expected 'owner/name'"):
        find_weights(f"hf://{name}", LIP_READING, sources)
