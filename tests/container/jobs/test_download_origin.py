"""The origin of presigned URLs, against moto's S3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from container.jobs import download_origin
from container.jobs.download_origin import DownloadOrigin
from inference.errors import StorageError
from inference.media.s3 import urls
from inference.media.s3.client import s3_client
from inference.settings import Settings


@pytest.fixture(autouse=True)
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    urls.regional_client.cache_clear()
    with mock_aws():
        for name in ("far", "with.dots"):
            where: Any = {"LocationConstraint": "eu-central-1"}
            s3_client().create_bucket(Bucket=name, CreateBucketConfiguration=where)
        yield
    urls.regional_client.cache_clear()


def origin_of(tmp_path: Path, storage: str | None, endpoint: str | None = None) -> DownloadOrigin:
    return DownloadOrigin(Settings(data_dir=tmp_path, job_storage=storage, s3_endpoint_url=endpoint))


@pytest.mark.parametrize(
    ("storage", "endpoint", "expected"),
    [
        (None, None, None),
        ("/srv/jobs", None, None),
        ("s3://far/jobs", None, "https://far.s3.eu-central-1.amazonaws.com"),
        ("s3://with.dots", None, "https://s3.eu-central-1.amazonaws.com"),
        ("s3://far/jobs", "http://127.0.0.1:9000/files", "http://127.0.0.1:9000"),
    ],
)
def test_the_origin_is_that_of_presigned_urls(
    tmp_path: Path, storage: str | None, endpoint: str | None, expected: str | None
):
    assert asyncio.run(origin_of(tmp_path, storage, endpoint).find()) == expected


def test_a_search_that_fails_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answers = iter([StorageError("S3 cannot be reached"), "https://far.s3.eu-central-1.amazonaws.com/any"])

    def object_url(*_: Any) -> str:
        answer = next(answers)  # StopIteration if a found origin were sought again
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(urls, "object_url", object_url)

    async def find_thrice(origin: DownloadOrigin) -> list[str | None]:
        return [await origin.find() for _ in range(3)]

    found = asyncio.run(find_thrice(origin_of(tmp_path, "s3://far")))
    assert found == [None, *["https://far.s3.eu-central-1.amazonaws.com"] * 2]


def test_the_page_does_not_wait_for_a_slow_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download_origin, "WAIT_S", 0.0)

    async def find(origin: DownloadOrigin) -> str | None:
        assert await origin.find() is None
        while (found := await origin.find()) is None:
            await asyncio.sleep(0.01)
        return found

    assert asyncio.run(find(origin_of(tmp_path, "s3://far"))) == "https://far.s3.eu-central-1.amazonaws.com"
