"""The smoke test against our own server: moto is AWS, `viseme serve` is the container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.sagemaker.models import FakeEndpointConfig
from moto.server import ThreadedMotoServer
from support.async_runtime import async_runtime
from support.endpoint_calls import NEW, OURS, REGION
from support.live_server import LiveServer, live_server

from deploy import endpoint, smoke_test
from deploy.endpoint import main
from deploy.waiting import WaitPolicy

GROUP = "/aws/sagemaker/Endpoints/viseme"
FOLDERS = ("s3://videos/results/", "s3://videos/failures/")
ASYNC = ["--mode", "async", "--min-capacity", "1", "--async-output", FOLDERS[0], "--async-failure", FOLDERS[1]]


@pytest.fixture(scope="module")
def container(weights_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data = tmp_path_factory.mktemp("data")  # not the user's, where boxes of the clip's face may be cached
    (data / "weights").symlink_to(weights_cache)
    env = {"VISEME_DEADLINE_S": "300", "VISEME_DATA_DIR": str(data)}
    with live_server(tmp_path_factory.mktemp("server"), env, "--aws-routes") as live:
        yield live


@pytest.fixture
def aws(container: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """moto's server for all of AWS but the runtime, which is the container; the container's log is in CloudWatch."""
    monkeypatch.setattr(FakeEndpointConfig, "validate_instance_type", lambda self, instance_type: None)
    monkeypatch.setattr(endpoint, "WaitPolicy", lambda: WaitPolicy(poll_s=0.2, timeout_s=60))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", container.url)
    try:
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="videos")
        publish_log(container)
        yield
        assert main(["--endpoint-name", "viseme", "--delete"]) == 0
        boto3.client("logs", region_name=REGION).delete_log_group(logGroupName=GROUP)
    finally:
        server.stop()


def publish_log(container: LiveServer) -> None:
    logs = boto3.client("logs", region_name=REGION)
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="AllTraffic/i-1")
    at_ms = logs.describe_log_streams(logGroupName=GROUP)["logStreams"][0]["creationTime"]
    lines = container.log.read_text().splitlines()
    events = [{"timestamp": at_ms, "message": line} for line in lines]
    logs.put_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1", logEvents=events)


@pytest.fixture(params=["realtime", "async"])
def command(request: pytest.FixtureRequest, aws: None, container: LiveServer, monkeypatch) -> Iterator[list[str]]:
    """Return the command that creates an endpoint whose container is ours."""
    if request.param == "realtime":
        yield OURS
        return
    with async_runtime(container.url, boto3.client("s3", region_name=REGION), *FOLDERS) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield [*OURS, *ASYNC]


def test_an_endpoint_reads_and_syncs_before_it_is_done(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(command) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "Creating" not in line]
    assert lines[0] == f"viseme: in service with {NEW}"
    assert lines[1].startswith(f'viseme: read "{smoke_test.CLIP_WORDS}" (as spoken) in 75 frames, LipCoordNet with ')
    assert "ms in the container; answered after" in lines[1]
    assert lines[2].startswith("viseme: synced 25 frames with ")
    assert lines[3].startswith("viseme: device cpu")


def test_a_container_that_answers_with_an_error(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "clip.mp4").write_bytes(b"not a video")
    monkeypatch.setattr(smoke_test, "CLIP", tmp_path / "clip.mp4")
    assert main(command) == 1
    err = capsys.readouterr().err
    assert f"viseme: in service with {NEW}, but lip reading fails: " in err
    assert "unsupported_media" in err  # the container's own words
    assert "viseme is ready" in err  # and its log
    assert "--delete removes it" in err
