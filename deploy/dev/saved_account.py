"""What `viseme dev --data DIR` keeps on disk: the objects of S3, the items of the tables, the messages in the queues.

Every change is on disk before the call that made it is answered. Of an object there are a file with its bytes, and
one with its key's versions as JSON, which is written last and replaced whole: a killed process leaves the old versions
or the new ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey

from deploy.aws import Aws
from deploy.dev.moto_account import buckets, queues
from deploy.dev.stack import ACCOUNT_ID, REGION
from deploy.errors import WrongRequest

FORMAT = 1
PART = ".part"  # of a file that is being written
# What moto's keys have besides their bytes, metadata and time; each is text, a number, a boolean or None.
KEY_FIELDS = (
    "_etag",
    "_version_id",
    "_is_versioned",
    "_storage_class",
    "encryption",
    "checksum_algorithm",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
)
Version = dict[str, Any]


class SavedAccount:
    """A folder that mirrors an account."""

    def __init__(self, folder: Path, tables: list[str], queue_names: list[str]) -> None:
        """Lock the folder for this process. Raises: WrongRequest if another process has it; OSError."""
        self._folder, self._tables, self._queues = folder, tables, queue_names
        self._lock = threading.Lock()
        (folder / "s3").mkdir(parents=True, exist_ok=True)
        self._file_lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._file_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise WrongRequest(f"--data {folder}: another viseme dev uses it") from err
        known = read_json(folder / "format.json", {"format": FORMAT})
        if known != {"format": FORMAT}:
            raise WrongRequest(f"--data {folder}: format {known.get('format')}, expected {FORMAT}")
        write_file(folder / "format.json", json.dumps(known).encode())

    def close(self) -> None:
        """Unlock the folder."""
        self._file_lock.close()

    def restore(self, aws: Aws) -> None:
        """Put everything back into an account whose stack is made; nothing is sent as an event."""
        with self._lock:
            for path in self._folder.rglob(f"*{PART}"):  # killed while it was written
                path.unlink()
            for folder in sorted((self._folder / "s3").iterdir()):
                self._restore_bucket(folder)
        for table in self._tables:
            for item in read_json(self._folder / f"{table}.table.json", []):
                aws.call("dynamodb", "PutItem", TableName=table, Item=item)
        for name in self._queues:
            url = aws.call("sqs", "GetQueueUrl", QueueName=name)["QueueUrl"]
            for body in read_json(self._folder / f"{name}.queue.json", []):
                aws.call("sqs", "SendMessage", QueueUrl=url, MessageBody=body)

    def save_key(self, bucket: str, key: str) -> None:
        """Save what has become of one key."""
        with self._lock:
            found = buckets().get(bucket)
            if found is not None:
                self._save_bucket_itself(found)
                self._save_versions(found, key)

    def save_buckets(self) -> None:
        """Save what has become of all buckets, after a call that does not name its key."""
        with self._lock:
            present = dict(buckets())
            for bucket in present.values():
                self._save_bucket_itself(bucket)
                saved = {read_json(path, {})["key"] for path in (self._path_of(bucket) / "keys").glob("*.json")}
                for key in saved | set(dict(bucket.keys)):
                    self._save_versions(bucket, key)
            for folder in (self._folder / "s3").iterdir():
                if read_json(folder / "bucket.json", {}).get("name") not in present:
                    delete_folder(folder)

    def save_tables(self) -> None:
        from moto.dynamodb.models import dynamodb_backends

        with self._lock:
            tables = dynamodb_backends[ACCOUNT_ID][REGION].tables
            for name in self._tables:
                if (table := tables.get(name)) is not None:
                    items = [item.to_json()["Attributes"] for item in table.all_items()]
                    write_file(self._folder / f"{name}.table.json", json.dumps(items).encode())

    def save_queues(self) -> None:
        with self._lock:
            found = queues()
            for name in self._queues:
                if (queue := found.get(name)) is not None:
                    bodies = [message.body for message in list(queue._messages)]
                    write_file(self._folder / f"{name}.queue.json", json.dumps(bodies).encode())

    def _path_of(self, bucket: FakeBucket) -> Path:
        return self._folder / "s3" / digest_of(bucket.name)

    def _save_bucket_itself(self, bucket: FakeBucket) -> None:
        folder = self._path_of(bucket)
        for name in ("keys", "values"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        found = {"name": bucket.name, "region": bucket.region_name, "versioning": bucket.versioning_status}
        if read_json(folder / "bucket.json", None) != found:
            write_file(folder / "bucket.json", json.dumps(found).encode())

    def _save_versions(self, bucket: FakeBucket, key: str) -> None:
        """Write the versions of a key, and delete what is left of versions that were deleted."""
        folder, name = self._path_of(bucket), digest_of(key)
        path = folder / "keys" / f"{name}.json"
        before = read_json(path, {"versions": []})["versions"]
        kept = list(bucket.keys.getlist(key, []) or [])  # other requests may change the list meanwhile
        versions = [version_of(one, name) for one in kept]
        if versions != before:
            for found, version in zip(kept, versions, strict=True):
                if "value" in version and not (folder / "values" / version["value"]).exists():
                    write_file(folder / "values" / version["value"], found.value)
            if versions:
                write_file(path, json.dumps({"key": key, "versions": versions}).encode())
            else:
                path.unlink(missing_ok=True)
        gone = {one.get("value") for one in before} - {one.get("value") for one in versions}
        for value in gone - {None}:
            (folder / "values" / value).unlink(missing_ok=True)

    def _restore_bucket(self, folder: Path) -> None:
        found = read_json(folder / "bucket.json", None)
        if found is None:  # killed while it was made
            delete_folder(folder)
            return
        bucket = buckets().get(found["name"])
        if bucket is None:
            bucket = FakeBucket(found["name"], ACCOUNT_ID, found["region"])
            buckets()[found["name"]] = bucket
        bucket.versioning_status = found["versioning"]
        used = set()
        for path in (folder / "keys").glob("*.json"):
            saved = read_json(path, {})
            versions = [restore_version(bucket, saved["key"], one, folder) for one in saved["versions"]]
            bucket.keys.setlist(saved["key"], link_markers(versions))
            used |= {one.get("value") for one in saved["versions"]}
        for path in (folder / "values").iterdir():
            if path.name not in used:  # killed before its key was written
                path.unlink()


def version_of(found: FakeKey | FakeDeleteMarker, name: str) -> Version:
    """Return a version of a key as JSON, without its bytes. name: of the key's files."""
    version: Version = {"last_modified": found.last_modified.isoformat()}
    if isinstance(found, FakeDeleteMarker):
        return version | {"marker": found.version_id}
    etag = found.etag.strip('"')  # computed and kept by moto, if it was not given
    version |= {"value": f"{name}.{digest_of(found.version_id + etag)}", "metadata": dict(found.metadata)}
    return version | {field: getattr(found, field) for field in KEY_FIELDS}


def restore_version(bucket: FakeBucket, key: str, version: Version, folder: Path) -> FakeKey | FakeDeleteMarker:
    """Return a version of a key as moto keeps it. Raises: OSError if its bytes are missing."""
    value = (folder / "values" / version["value"]).read_bytes() if "value" in version else b""
    found = FakeKey(key, value, ACCOUNT_ID, bucket.region_name, bucket_name=bucket.name)
    restored: FakeKey | FakeDeleteMarker = found
    if "marker" in version:
        restored = FakeDeleteMarker(found)
        restored._version_id = version["marker"]
    else:
        for field in KEY_FIELDS:
            setattr(found, field, version[field])
        found.set_metadata(dict(version["metadata"]))
    restored.last_modified = datetime.fromisoformat(version["last_modified"])
    return restored


def link_markers(versions: list[FakeKey | FakeDeleteMarker]) -> list[FakeKey | FakeDeleteMarker]:
    """Return the versions; a delete marker names the version before it, as moto has it."""
    for before, after in pairwise(versions):
        if isinstance(after, FakeDeleteMarker) and isinstance(before, FakeKey):
            after.key = before
    return versions


def digest_of(text: str) -> str:
    """Return a name for a file: keys may be longer than names of files, and have any characters."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default


def write_file(path: Path, contents: bytes) -> None:
    """Replace a file whole. Raises: OSError, and leaves nothing then."""
    part = path.with_name(f"{path.name}.{threading.get_ident()}{PART}")
    try:
        part.write_bytes(contents)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def delete_folder(folder: Path) -> None:
    """Delete a bucket's folder: first what makes it one, so that what a killed process leaves is no bucket."""
    (folder / "bucket.json").unlink(missing_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
