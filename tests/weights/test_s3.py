from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from moto.server import ThreadedMotoServer

from inference.backends import Device
from inference.errors import AccessDenied, InvalidRequest, StorageError, WeightsNotFound, WrongWeights
from inference.lip_reading.model import load_model
from inference.weights import s3
from inference.weights.registry import LIP_READING, STARTER
from inference.weights.resolve import find_weights
from inference.weights.sources import WeightSources

URI = "s3://models/lips/net.safetensors"


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(s3_url: str) -> Any:
    client = boto3.client("s3", endpoint_url=s3_url)
    client.create_bucket(Bucket="models")
    return client


@pytest.fixture
def sources(s3_url: str, tmp_path: Path) -> WeightSources:
    return WeightSources(tmp_path, s3_endpoint_url=s3_url)


def test_weights_are_loaded_from_s3_with_their_hash(client, sources: WeightSources):
    contents = (STARTER.shipped_in / STARTER.files[0].name).read_bytes()
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=contents)
    model = load_model(URI, Device("cpu", "f32"), sources)
    assert model.info.weights == URI
    assert model.info.sha256 == hashlib.sha256(contents).hexdigest()
    assert model.landmarks == "mediapipe"


def test_each_version_is_downloaded_once(client, sources: WeightSources, monkeypatch: pytest.MonkeyPatch):
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=b"one")
    first = find_weights(URI, LIP_READING, sources)
    with monkeypatch.context() as patch:
        patch.setattr(s3, "download", lambda *_: pytest.fail("it was downloaded again"))
        assert find_weights(URI, LIP_READING, sources) == first
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=b"two")
    second = find_weights(URI, LIP_READING, sources)
    assert second.path.read_bytes() == b"two"
    assert second.sha256 != first.sha256


def test_a_file_changed_in_the_cache_is_refused(client, sources: WeightSources):
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=b"one")
    find_weights(URI, LIP_READING, sources).path.write_bytes(b"changed")
    with pytest.raises(WrongWeights, match="when it was first fetched"):
        find_weights(URI, LIP_READING, sources)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("uri", ["s3://models/nothing.pt", "s3://no-such-bucket/net.pt"])
def test_the_error_names_a_missing_object(sources: WeightSources, uri: str):
    with pytest.raises(WeightsNotFound, match=rf"{uri}: there is no key '\w+\.pt' in bucket .*, or no such bucket"):
        find_weights(uri, LIP_READING, sources)


@pytest.mark.parametrize("uri", ["s3://", "s3://models", "s3://models/", "s3://../x", "s3://models/a/..", "s3://a/b"])
def test_an_invalid_uri_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(InvalidRequest, match="expected s3://bucket/key"):
        find_weights(uri, LIP_READING, WeightSources(tmp_path))


def refusal(status: int, code: str) -> ClientError:
    """Return an error as botocore raises it."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (refusal(404, "NoSuchKey"), WeightsNotFound),
        (refusal(404, "NoSuchBucket"), WeightsNotFound),
        (refusal(403, "403"), AccessDenied),
        (refusal(400, "ExpiredToken"), AccessDenied),
        (refusal(301, "PermanentRedirect"), StorageError),
        (refusal(412, "PreconditionFailed"), StorageError),
        (refusal(503, "SlowDown"), StorageError),
        (NoCredentialsError(), AccessDenied),
        (EndpointConnectionError(endpoint_url="http://s3"), StorageError),
    ],
)
def test_each_failure_has_its_type(found: Exception, expected: type[Exception]):
    with pytest.raises(expected, match=URI), s3.translate_errors(URI):
        raise found


def test_an_object_that_is_too_large_is_not_downloaded(client, sources: WeightSources, monkeypatch: pytest.MonkeyPatch):
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=b"12345")
    monkeypatch.setattr(s3, "MAX_BYTES", 4)
    with pytest.raises(WeightsNotFound, match="5 bytes; expected weights, at most 4"):
        find_weights(URI, LIP_READING, sources)


def test_a_failed_download_is_retried_and_leaves_nothing(
    client, sources: WeightSources, monkeypatch: pytest.MonkeyPatch
):
    client.put_object(Bucket="models", Key="lips/net.safetensors", Body=b"one")
    tries: list[str] = []

    def refuse(**request):
        tries.append(request["Key"])
        raise ReadTimeoutError(endpoint_url="http://s3")

    monkeypatch.setattr(s3.s3, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(client, "get_object", refuse)
    monkeypatch.setattr(s3, "s3_client", lambda _: client)
    with pytest.raises(StorageError):
        find_weights(URI, LIP_READING, sources)
    assert len(tries) == 4
    assert [p for p in sources.cache.rglob("*") if p.is_file()] == []
