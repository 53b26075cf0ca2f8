from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from inference.errors import AccessDenied
from inference.media.s3.client import s3_client
from inference.media.s3.urls import object_url, regional_client


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    regional_client.cache_clear()
    yield
    regional_client.cache_clear()


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of us-east-1, with buckets there and in other regions."""
    with mock_aws():
        client = s3_client(None, "us-east-1")
        client.create_bucket(Bucket="home")
        for name, region in (("far", "eu-central-1"), ("with.dots", "ap-south-1")):
            client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
        yield client


@pytest.mark.parametrize(
    ("bucket", "start"),
    [
        ("home", "https://home.s3.us-east-1.amazonaws.com/"),
        ("far", "https://far.s3.eu-central-1.amazonaws.com/"),
        ("with.dots", "https://s3.ap-south-1.amazonaws.com/with.dots/"),
        ("foreign", "https://foreign.s3.us-east-1.amazonaws.com/"),
    ],
)
def test_a_url_contains_the_buckets_own_region(client: Any, bucket: str, start: str):
    plain = object_url(bucket, "a/ä b+1.mp4", client)
    assert plain == start + "a/%C3%A4%20b%2B1.mp4"
    signed = object_url(bucket, "a/ä b+1.mp4", client, is_presigned=True)
    assert signed.startswith(plain + "?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    region = start.partition(".s3.")[2].partition(".")[0] or "ap-south-1"
    assert f"%2F{region}%2Fs3%2F" in signed


def test_other_servers_keep_their_address():
    client = s3_client("http://127.0.0.1:9")
    assert object_url("home", "a b.mp4", client) == "http://127.0.0.1:9/home/a%20b.mp4"


def test_another_partition_has_another_domain(client: Any):
    chinese = s3_client(None, "cn-north-1")
    assert object_url("foreign", "a", chinese) == "https://foreign.s3.cn-north-1.amazonaws.com.cn/a"


def test_without_credentials_nothing_is_signed(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        object_url("home", "a", s3_client("http://127.0.0.1:9"), is_presigned=True)
