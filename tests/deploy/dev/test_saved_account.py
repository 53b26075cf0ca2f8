"""What `--data` keeps: saved from one account of moto, restored into another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from deploy.aws import BotoAws
from deploy.dev.saved_account import SavedAccount
from deploy.dev.stack import REGION
from deploy.errors import WrongRequest

BUCKET = "clips"
ODD_KEY = "uploads/../a b/ä" + "x" * 300  # no name of a file


@contextmanager
def account(folder: Path) -> Iterator[tuple[SavedAccount, Any]]:
    """Yield what saves an empty account with a stack, and S3."""
    with mock_aws():
        s3 = boto3.client("s3", region_name=REGION)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        key = {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST"}
        attributes = [{"AttributeName": "id", "AttributeType": "S"}]
        boto3.client("dynamodb", region_name=REGION).create_table(
            TableName="claims", AttributeDefinitions=attributes, **key
        )
        boto3.client("sqs", region_name=REGION).create_queue(QueueName="events")
        saved = SavedAccount(folder, ["claims"], ["events"])
        try:
            yield saved, s3
        finally:
            saved.close()


def contents_of(s3: Any) -> list[tuple[Any, ...]]:
    """Return all versions with what a client sees of them, the newest first."""
    found = s3.list_object_versions(Bucket=BUCKET)
    versions = [
        (
            one["Key"],
            one["VersionId"],
            one["ETag"],
            one["LastModified"],
            one["IsLatest"],
            *described(s3.get_object(Bucket=BUCKET, Key=one["Key"], VersionId=one["VersionId"])),
        )
        for one in found["Versions"]
    ]
    return versions + [(one["Key"], one["VersionId"], one["IsLatest"]) for one in found.get("DeleteMarkers", [])]


def described(reply: Any) -> tuple[Any, ...]:
    return reply["Body"].read(), reply["Metadata"], reply["ContentType"]


def test_versions_markers_items_and_messages_come_back(tmp_path: Path):
    with account(tmp_path) as (saved, s3):
        for body in (b"first", b"second"):
            s3.put_object(Bucket=BUCKET, Key=ODD_KEY, Body=body, ContentType="video/mp4", Metadata={"etag": "e"})
            saved.save_key(BUCKET, ODD_KEY)
        s3.put_object(Bucket=BUCKET, Key="gone", Body=b"gone")
        s3.delete_object(Bucket=BUCKET, Key="gone")
        s3.create_bucket(Bucket="other")
        s3.put_object(Bucket="other", Key="plain", Body=b"1")
        s3.put_object(Bucket="other", Key="plain", Body=b"2")
        saved.save_buckets()
        dynamodb, sqs = (boto3.client(one, region_name=REGION) for one in ("dynamodb", "sqs"))
        dynamodb.put_item(TableName="claims", Item={"id": {"S": "1"}, "until": {"N": "1796062526667677905"}})
        sqs.send_message(QueueUrl="events", MessageBody='{"a": "ä"}')
        sqs.receive_message(QueueUrl="events")  # in work, and not deleted
        saved.save_tables()
        saved.save_queues()
        before = contents_of(s3)
    assert len(before) == 4
    with account(tmp_path) as (saved, s3):
        saved.restore(BotoAws(REGION))
        assert contents_of(s3) == before
        assert s3.get_object(Bucket="other", Key="plain")["Body"].read() == b"2"
        [item] = boto3.client("dynamodb", region_name=REGION).scan(TableName="claims")["Items"]
        assert item["until"] == {"N": "1796062526667677905"}
        [message] = boto3.client("sqs", region_name=REGION).receive_message(QueueUrl="events")["Messages"]
        assert message["Body"] == '{"a": "ä"}'


def test_what_was_deleted_is_gone_from_disk(tmp_path: Path):
    with account(tmp_path) as (saved, s3):
        versions = [s3.put_object(Bucket=BUCKET, Key="a", Body=body)["VersionId"] for body in (b"one", b"two")]
        saved.save_key(BUCKET, "a")
        assert contents_on_disk(tmp_path) == {b"one", b"two"}
        s3.delete_object(Bucket=BUCKET, Key="a", VersionId=versions[0])
        saved.save_key(BUCKET, "a")
        assert contents_on_disk(tmp_path) == {b"two"}
        s3.delete_object(Bucket=BUCKET, Key="a", VersionId=versions[1])
        s3.delete_bucket(Bucket=BUCKET)
        saved.save_buckets()
        assert list((tmp_path / "s3").iterdir()) == []


def contents_on_disk(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.glob("s3/*/values/*")}


def test_a_process_that_was_killed_while_it_wrote(tmp_path: Path):
    with account(tmp_path) as (saved, s3):
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"whole")
        saved.save_key(BUCKET, "a")
        [folder] = (tmp_path / "s3").iterdir()
    (folder / "values" / "unnamed").write_bytes(b"its key was not written")
    (folder / "keys" / "b.json.1.part").write_bytes(b'{"ke')
    (tmp_path / "s3" / "made").mkdir()  # its bucket.json was not written
    with account(tmp_path) as (saved, s3):
        saved.restore(BotoAws(REGION))
        assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"whole"
    assert contents_on_disk(tmp_path) == {b"whole"}
    assert not list(tmp_path.rglob("*.part"))
    assert list((tmp_path / "s3").iterdir()) == [folder]


def test_two_processes_cannot_share_a_folder(tmp_path: Path):
    with account(tmp_path), pytest.raises(WrongRequest, match="another viseme dev uses it"):
        SavedAccount(tmp_path, [], [])


def test_a_folder_of_another_format(tmp_path: Path):
    (tmp_path / "format.json").write_text('{"format": 2}')
    with pytest.raises(WrongRequest, match="format 2, expected 1"):
        SavedAccount(tmp_path, [], [])
