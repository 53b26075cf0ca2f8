"""The files of jobs in S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from container.jobs.records import attempt_prefix
from container.jobs.storage import INPUT, JOB_ID, KEY, JobStorage, StoredFile, check_name, digest_of
from inference.errors import StorageError


class S3Storage(JobStorage):
    """Files in an S3 bucket, for machines that share no file system."""

    def __init__(self, bucket: str, prefix: str, make_client: Callable[[], Any]) -> None:
        """prefix: ends with a slash, or is empty. make_client: called once, when the client is first needed."""
        self._bucket, self._prefix, self._make_client = bucket, prefix, make_client
        self._client: Any = None

    @property
    def client(self) -> Any:
        self._client = self._client or self._make_client()
        return self._client

    def write(self, job_id: str, key: str, source: Path) -> StoredFile:
        from inference.media.s3.upload import open_upload

        n_bytes, sha256 = digest_of(source)
        name = self._name(job_id, key)
        with open_upload(self._bucket, name, self.client, content_type="application/octet-stream") as upload:
            upload.upload_file(source)
            upload.finish()
        return StoredFile(key, n_bytes, sha256)

    @contextmanager
    def read(self, job_id: str, key: str) -> Iterator[Path]:
        from inference.media.s3.download import temporary_download

        with temporary_download(self._bucket, self._name(job_id, key), self.client, max_bytes=1 << 40) as path:
            yield path

    def url(self, job_id: str, key: str) -> str:
        from inference.media.s3.urls import object_url

        return object_url(self._bucket, self._name(job_id, key), self.client, is_presigned=True)

    def delete_attempts(self, job_id: str, kept: int | None) -> None:
        keep = None if kept is None else self._name(job_id, f"{attempt_prefix(kept)}/")
        self._delete_all(self._name(job_id, "attempts/"), lambda name: keep is None or not name.startswith(keep))

    def delete_attempt(self, job_id: str, attempt: int) -> None:
        self._delete_all(self._name(job_id, f"{attempt_prefix(attempt)}/"), lambda _name: True)

    def delete_input(self, job_id: str) -> None:
        with s3_errors(self._bucket, self._prefix):
            self.client.delete_object(Bucket=self._bucket, Key=self._name(job_id, INPUT))

    def delete(self, job_id: str) -> None:
        self._delete_all(self._name(job_id, ""), lambda _name: True)

    def job_ids(self, older_than: float) -> Iterator[str]:
        with s3_errors(self._bucket, self._prefix):
            entries = (entry for page in self._pages(self._prefix) for entry in page.get("Contents", []))
            # S3 lists in the order of keys, so the objects of a job follow one another.
            for job_id, found in groupby(entries, lambda entry: entry["Key"][len(self._prefix) :].partition("/")[0]):
                first = min(entry["LastModified"].timestamp() for entry in found)
                if JOB_ID.fullmatch(job_id) and first < older_than:
                    yield job_id

    def _name(self, job_id: str, key: str) -> str:
        check_name(JOB_ID, job_id)
        if key and not key.endswith("/"):
            check_name(KEY, key)
        return f"{self._prefix}{job_id}/{key}"

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        paginator = self.client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self._bucket, Prefix=prefix)

    def _delete_all(self, prefix: str, is_wanted: Callable[[str], bool]) -> None:
        with s3_errors(self._bucket, prefix):
            for page in self._pages(prefix):
                names = [entry["Key"] for entry in page.get("Contents", [])]
                if wanted := [{"Key": name} for name in names if is_wanted(name)]:
                    found = self.client.delete_objects(Bucket=self._bucket, Delete={"Objects": wanted, "Quiet": True})
                    if errors := found.get("Errors"):
                        raise StorageError(f"s3://{self._bucket}/{errors[0]['Key']}: {errors[0]['Message']}")


@contextmanager
def s3_errors(bucket: str, key: str) -> Iterator[None]:
    from inference.media.s3.client import translate_s3_errors

    with translate_s3_errors(bucket, key):
        yield
