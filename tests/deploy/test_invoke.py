"""deploy.invoke: one command for real-time and asynchronous endpoints."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY

from deploy import invoke
from deploy.invoke import main
from deploy.waiting import WaitPolicy

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NAMED = {"EndpointName": "viseme"}
CALL = ["--endpoint-name", "viseme"]
OUTPUT, FAILURE = "s3://videos/results/1.out", "s3://videos/failures/1.out"
ANSWER = b'{"status": "success"}'


@pytest.fixture(autouse=True)
def ready(script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "BotoAws", lambda region: script.aws)
    monkeypatch.setattr(invoke, "WaitPolicy", lambda **_: WaitPolicy(timeout_s=30, sleep=lambda _: None))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "my clip (1).MP4"
    path.write_bytes(b"video")
    return path


def body(contents: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(contents), len(contents))


def expect_endpoint(script, status: str = "InService", *, is_async: bool = False, **more) -> None:
    found = {
        "EndpointName": "viseme",
        "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/viseme",
        "EndpointStatus": status,
        "CreationTime": NOW,
        "LastModifiedTime": NOW,
    }
    if is_async:
        found["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": "s3://videos/results/"}}
    script.expect("sagemaker", "DescribeEndpoint", NAMED, found | more)


def test_a_file_in_real_time(script, video: Path, capfd: pytest.CaptureFixture[str]):
    expect_endpoint(script)
    wanted = NAMED | {
        "ContentType": "video/mp4",
        "Accept": "text/vtt",
        "Body": b"video",
        "CustomAttributes": '{"face":1}',
    }
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(b"WEBVTT\n")})
    assert main([str(video), *CALL, "--accept", "text/vtt", "--options", '{"face":1}']) == 0
    script.done()
    assert capfd.readouterr().out == "WEBVTT\n"


def test_an_object_in_real_time_is_sent_as_a_json_request(script, tmp_path: Path):
    expect_endpoint(script)
    request = json.dumps({"s3_bucket": "videos", "s3_video_key": "uploads/a b.mp4", "fps": 25}).encode()
    wanted = NAMED | {"ContentType": "application/json", "Accept": "application/json", "Body": request}
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(ANSWER)})
    assert main(["s3://videos/uploads/a b.mp4", *CALL, "-o", str(tmp_path / "answer.json")]) == 0
    script.done()
    assert (tmp_path / "answer.json").read_bytes() == ANSWER


def test_a_custom_request_in_real_time(script, tmp_path: Path):
    job = json.dumps({"task": "lipsync", "s3_bucket": "videos", "s3_video_key": "a.mp4", "s3_audio_key": "b.wav"})
    (tmp_path / "job.json").write_text(job)
    expect_endpoint(script)
    wanted = NAMED | {"ContentType": "application/json", "Accept": "video/mp4", "Body": job.encode()}
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(b"the video")})
    flags = ["--accept", "video/mp4", "-o", str(tmp_path / "out.mp4")]
    assert main([str(tmp_path / "job.json"), *CALL, *flags]) == 0
    script.done()
    assert (tmp_path / "out.mp4").read_bytes() == b"the video"


def test_a_custom_request_asynchronously(script, capfd: pytest.CaptureFixture[str]):
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://videos/jobs/1.json", "application/json")
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://videos/jobs/1.json", *CALL]) == 0
    script.done()
    assert json.loads(capfd.readouterr().out) == {"status": "success"}


def expect_async(script, location: object, content_type: str = "video/mp4") -> None:
    wanted = NAMED | {
        "InputLocation": location,
        "ContentType": content_type,
        "Accept": "application/json",
        "InvocationTimeoutSeconds": 3600,
    }
    answer = {"OutputLocation": OUTPUT, "FailureLocation": FAILURE, "InferenceId": "1"}
    script.expect("sagemaker-runtime", "InvokeEndpointAsync", wanted, answer)


def expect_object(script, uri: str, contents: bytes | None) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    wanted = {"Bucket": bucket, "Key": key}
    if contents is None:
        script.refuse("s3", "GetObject", "NoSuchKey", parameters=wanted)
    else:
        script.expect("s3", "GetObject", wanted, {"Body": body(contents)})


def test_an_object_asynchronously(script, capfd: pytest.CaptureFixture[str]):
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://videos/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, None)
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://videos/a.mp4", *CALL]) == 0
    script.done()
    assert json.loads(capfd.readouterr().out) == {"status": "success"}


def test_an_asynchronous_file_is_uploaded_outside_the_trigger_prefix(script, video: Path):
    expect_endpoint(script, is_async=True)
    wanted = {
        "Bucket": "videos",
        "Key": ANY,
        "Body": ANY,
        "ExpectedBucketOwner": "123456789012",
        "ContentType": "video/mp4",
    }
    script.expect("s3", "PutObject", wanted)
    expect_async(script, ANY)
    expect_object(script, OUTPUT, ANSWER)
    seen: list[dict] = []
    script.aws.client("s3").meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: seen.append(params)
    )
    assert main([str(video), *CALL]) == 0
    script.done()
    assert re.fullmatch(r"requests/[0-9a-f-]{36}\.mp4", seen[0]["Key"])


def test_an_asynchronous_failure(script, capsys: pytest.CaptureFixture[str]):
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://videos/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, b'{"error": {"code": "no_face_found"}}')
    assert main(["s3://videos/a.mp4", *CALL]) == 1
    script.done()
    assert "the request failed: " in (err := capsys.readouterr().err)
    assert "no_face_found" in err


def test_no_answer_in_time(script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter((0.0, 31.0))
    monkeypatch.setattr(invoke, "WaitPolicy", lambda **_: WaitPolicy(timeout_s=30, clock=lambda: next(times)))
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://videos/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, None)
    assert main(["s3://videos/a.mp4", *CALL]) == 1
    assert f"no answer after 30 s; it will be written to {OUTPUT}" in capsys.readouterr().err


def test_a_long_wait_is_reported(script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter((0.0, 59.0, 61.0, 62.0))
    monkeypatch.setattr(invoke, "WaitPolicy", lambda **_: WaitPolicy(clock=lambda: next(times), sleep=lambda _: None))
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://videos/a.mp4")
    for _ in range(3):
        expect_object(script, OUTPUT, None)
        expect_object(script, FAILURE, None)
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://videos/a.mp4", *CALL]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == ["still waiting (61 s)"]


def test_the_containers_error_is_shown(script, video: Path, capsys: pytest.CaptureFixture[str]):
    expect_endpoint(script)
    message = 'Received client error (400) from primary with message "no face". See https://console.aws...'
    script.refuse("sagemaker-runtime", "InvokeEndpoint", "ModelError", message)
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    assert main([str(video), *CALL]) == 1
    assert f"deploy.invoke: viseme: {message}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["s3://videos"], "s3://videos: expected s3://BUCKET/KEY"),
        (["s3://videos/a.mp4", "--options", "{face"], "--options {face: not JSON: "),
        (["s3://videos/a.mp4", "--options", "[1]"], '--options [1]: expected a JSON object such as {"face": 1}'),
    ],
)
def test_the_callers_mistakes(script, capsys: pytest.CaptureFixture[str], given: list[str], message: str):
    """Rejected before any call: the script expects none."""
    assert main([*given, *CALL]) == 2
    assert message in capsys.readouterr().err


def test_too_large_for_real_time(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "long.mp4").write_bytes(bytes(25_000_001))
    expect_endpoint(script)
    assert main([str(tmp_path / "long.mp4"), *CALL]) == 2
    assert "25000001 bytes; this endpoint takes at most 25000000: upload it to S3" in capsys.readouterr().err


def test_too_large_for_serverless(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "long.mp4").write_bytes(bytes(5 << 20))
    variant = {"VariantName": "AllTraffic", "CurrentServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    expect_endpoint(script, ProductionVariants=[variant])
    assert main([str(tmp_path / "long.mp4"), *CALL]) == 2
    assert "this endpoint takes at most 4194304" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["Creating", "Failed"])
def test_an_endpoint_that_does_not_serve(script, video: Path, capsys: pytest.CaptureFixture[str], status: str):
    expect_endpoint(script, status)
    assert main([str(video), *CALL]) == 2
    assert f"viseme: is {status} and takes no requests" in capsys.readouterr().err


def test_no_such_endpoint(script, video: Path, capsys: pytest.CaptureFixture[str]):
    script.refuse("sagemaker", "DescribeEndpoint", "ValidationException", 'Could not find endpoint "viseme".')
    assert main([str(video), *CALL]) == 2
    assert "viseme: no such endpoint in us-east-1" in capsys.readouterr().err
