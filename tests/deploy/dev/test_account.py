"""`viseme dev` as a process: uploads become results by the AWS CLI alone, and SDKs reach the endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError
from support.aws_cli import require_cli, version_of
from support.dev_account import DevAccount
from support.live_server import PATIENCE_S
from support.waiting import wait_until

from deploy.smoke_test import CLIP, CLIP_FRAMES, CLIP_WORDS

BUCKET = "s3://viseme-dev"


@pytest.fixture(scope="module")
def account(weights_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevAccount]:
    data = tmp_path_factory.mktemp("data")
    (data / "weights").symlink_to(weights_cache)
    account = DevAccount(tmp_path_factory.mktemp("account"), data)
    try:
        yield account
    finally:
        account.close()


@pytest.fixture
def client(account: DevAccount) -> Callable[[str], Any]:
    return account.client


@pytest.mark.parametrize("major", [1, 2])
def test_an_upload_becomes_a_result_by_the_printed_commands(account: DevAccount, major: int, tmp_path: Path):
    cli, name = require_cli(major), f"clip{major}.mp4"
    upload, show_result, list_all, invoke, invoke_async = (
        line.replace("clip.mp4", name) for line in account.lines[1:6]
    )
    (tmp_path / name).write_bytes(CLIP.read_bytes())
    account.run(cli, upload, tmp_path)
    record = account.wait_for(f"{BUCKET}/results/{name}.json")
    assert record["answer"]["text"] == CLIP_WORDS
    assert record["answer"]["num_frames"] == CLIP_FRAMES
    assert json.loads(account.run(cli, show_result, tmp_path)) == record
    assert record["output_location"].removeprefix(f"{BUCKET}/") in account.run(cli, list_all, tmp_path)
    account.run(cli, invoke, tmp_path)
    assert json.loads((tmp_path / "answer.json").read_text())["text"] == CLIP_WORDS
    accepted = json.loads(account.run(cli, invoke_async, tmp_path))
    assert account.wait_for(accepted["OutputLocation"])["text"] == CLIP_WORDS


@pytest.mark.parametrize("major", [1, 2])
def test_the_aws_cli_takes_the_address_from_the_environment(account: DevAccount, major: int, tmp_path: Path):
    cli, (_, upload, show, *_) = require_cli(major), account.lines
    if (2, 0) <= version_of(cli) < (2, 13):
        pytest.skip("it needs 2.13")
    large = tmp_path / "clip.mp4"
    large.write_bytes(bytes(20 << 20))  # in parts
    for command in (
        upload.replace("/uploads/", "/parts/"),
        show.replace("results/clip.mp4.json -", "parts/clip.mp4 got"),
    ):
        account.run(cli, command.partition(" --endpoint-url")[0], tmp_path)
    assert (tmp_path / "got").read_bytes() == large.read_bytes()


def test_a_broken_upload_lands_in_failures(account: DevAccount):
    account.client("s3").put_object(Bucket="viseme-dev", Key="uploads/broken.mp4", Body=b"not a video")
    record = account.wait_for(f"{BUCKET}/results/broken.mp4.json")
    assert record["status"] == "error"
    assert not record["retryable"]
    assert record["failure_location"].startswith(f"{BUCKET}/failures/")
    assert account.wait_for(record["failure_location"])["error"]["code"] == "unsupported_media"


def test_boto3_streams_an_answer(client: Any):
    runtime = client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="viseme", ContentType="video/mp4", Accept="application/x-ndjson", Body=CLIP.read_bytes()
    )
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert json.loads(b"".join(parts).splitlines()[-1])["text"] == CLIP_WORDS


def test_what_the_container_and_the_endpoint_reject(client: Any):
    runtime = client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName="viseme", ContentType="video/mp4", Body=b"not a video")
    assert caught.value.response["OriginalStatusCode"] == 400
    with pytest.raises(runtime.exceptions.ValidationError, match="Endpoint none of account"):
        runtime.invoke_endpoint(EndpointName="none", Body=b"")
    with pytest.raises(runtime.exceptions.ValidationError, match=r"InputLocation 'clip\.mp4'"):
        runtime.invoke_endpoint_async(EndpointName="viseme", InputLocation="clip.mp4")


def test_a_form_of_the_upload_function_starts_a_job(account: DevAccount, client: Any):
    reply = client("lambda").invoke(FunctionName="viseme-dev-UploadUrl", Payload=b'{"filename": "form.mp4"}')
    form = json.loads(reply["Payload"].read())
    files = {"file": ("form.mp4", CLIP.read_bytes())}
    posted = httpx.post(form["url"], data=form["fields"], files=files, timeout=PATIENCE_S, trust_env=False)
    assert posted.status_code == 204
    result = form["key"].replace("uploads/", "results/", 1)
    assert account.wait_for(f"{BUCKET}/{result}.json")["answer"]["text"] == CLIP_WORDS


def test_deploy_endpoint_works_unchanged(account: DevAccount, client: Any):
    name = ["--endpoint-name", "second"]
    role = "arn:aws:iam::123456789012:role/viseme-dev-ExecutionRole"
    report = deploy(account, *name, "--role-arn", role, "--bucket", "viseme-dev-modelbucket")
    assert f'second: read "{CLIP_WORDS}" (as spoken)' in report
    assert "second: device cpu" in report  # from the container's log in CloudWatch
    deploy(account, *name, "--delete")
    runtime = client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ValidationError, match="Endpoint second of account"):
        runtime.invoke_endpoint(EndpointName="second", Body=b"")


def deploy(account: DevAccount, *arguments: str) -> str:
    """Run `python -m deploy.endpoint`; return what it reports."""
    command = [sys.executable, "-m", "deploy.endpoint", *arguments]
    run = subprocess.run(command, env=account.env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stderr


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"host": "rebound.example"}, "Host 'rebound.example'"),
        ({"origin": "https://other.example"}, "origin https://other.example is not allowed"),
        ({"sec-fetch-site": "cross-site"}, "origin of another site is not allowed"),
    ],
)
def test_pages_of_other_sites_are_denied(account: DevAccount, headers: dict[str, str], reason: str):
    for path in (
        "/viseme-dev",
        "/endpoints/viseme/invocations",
        "/2015-03-31/functions/viseme-dev-OnResult/invocations",
    ):
        reply = httpx.post(f"{account.url}{path}", headers=headers, timeout=PATIENCE_S, trust_env=False)
        assert reply.status_code == 403
        assert reason in reply.json()["Message"]


def test_moto_has_no_controls_here(account: DevAccount):
    reply = httpx.post(f"{account.url}/moto-api/reset", timeout=PATIENCE_S, trust_env=False)
    assert reply.status_code == 404
    assert "access-control-allow-origin" not in reply.headers


def test_what_moto_lacks_is_an_error_of_aws(client: Callable[[str], Any]):
    role = "arn:aws:iam::123456789012:role/viseme-dev-ExecutionRole"
    with pytest.raises(ClientError, match=r"\(NotImplemented\).*simulate_principal_policy"):
        client("iam").simulate_principal_policy(PolicySourceArn=role, ActionNames=["s3:GetObject"])


def test_a_restart_forgets_nothing(account: DevAccount):
    """After the tests above: what they made is still there, and the same video is not read again."""
    before = versions_of(account)
    assert account.stop() == []
    account.start()
    assert versions_of(account) == before
    account.client("s3").put_object(Bucket="viseme-dev", Key="uploads/clip1.mp4", Body=CLIP.read_bytes())
    wait_until(lambda: account.process.poll() or '"status": "duplicate"' in account.log.read_text())
    # Its record is published again, as that of the newest version.
    assert versions_of(account)["results/clip1.mp4.json"][1:] == before["results/clip1.mp4.json"]
    assert answers_of(versions_of(account)) == answers_of(before)


def test_a_killed_process_leaves_none(account: DevAccount):
    """The last test."""
    family = psutil.Process(account.process.pid).children(recursive=True)
    assert family
    account.process.kill()
    account.process.wait()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert alive == []


def versions_of(account: DevAccount) -> dict[str, list[tuple[str, str]]]:
    """Return all versions of all objects by key: version and ETag, the newest first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in account.client("s3").list_object_versions(Bucket="viseme-dev")["Versions"]:
        found.setdefault(one["Key"], []).append((one["VersionId"], one["ETag"]))
    return found


def answers_of(versions: dict[str, Any]) -> set[str]:
    return {key for key in versions if key.endswith(".out")}
