"""deploy.invoke: one command for endpoints of both kinds."""

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
from deploy.waiting import Patience

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NAMED = {"EndpointName": "viseme"}
CALL = ["--endpoint-name", "viseme"]
OUTPUT, FAILURE = "s3://films/results/1.out", "s3://films/failures/1.out"
ANSWER = b'{"status": "success"}'


@pytest.fixture(autouse=True)
def ready(script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "LiveAws", lambda region: script.aws)
    monkeypatch.setattr(invoke, "Patience", lambda **_: Patience(limit_s=30, sleep=lambda _: None))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "my clip (1).MP4"
    path.write_bytes(b"film")
    return path


def body(contents: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(contents), len(contents))


def expect_endpoint(script, status: str = "InService", *, is_async: bool = False) -> None:
    found = {
        "EndpointName": "viseme",
        "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/viseme",
        "EndpointStatus": status,
        "CreationTime": NOW,
        "LastModifiedTime": NOW,
    }
    if is_async:
        found["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": "s3://films/results/"}}
    script.expect("sagemaker", "DescribeEndpoint", NAMED, found)


def test_a_file_in_real_time(script, film: Path, capfd: pytest.CaptureFixture[str]):
    expect_endpoint(script)
    wanted = NAMED | {
        "ContentType": "video/mp4",
        "Accept": "text/vtt",
        "Body": b"film",
        "CustomAttributes": '{"face":1}',
    }
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(b"WEBVTT\n")})
    assert main([str(film), *CALL, "--accept", "text/vtt", "--options", '{"face":1}']) == 0
    script.done()
    assert capfd.readouterr().out == "WEBVTT\n"


def test_an_object_in_real_time_is_the_seeds_request(script, tmp_path: Path):
    expect_endpoint(script)
    seeds = json.dumps({"s3_bucket": "films", "s3_video_key": "uploads/a b.mp4", "fps": 25}).encode()
    wanted = NAMED | {"ContentType": "application/json", "Accept": "application/json", "Body": seeds}
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(ANSWER)})
    assert main(["s3://films/uploads/a b.mp4", *CALL, "-o", str(tmp_path / "answer.json")]) == 0
    script.done()
    assert (tmp_path / "answer.json").read_bytes() == ANSWER


def test_a_request_of_ones_own_in_real_time(script, tmp_path: Path):
    job = json.dumps({"task": "lipsync", "s3_bucket": "films", "s3_video_key": "a.mp4", "s3_audio_key": "b.wav"})
    (tmp_path / "job.json").write_text(job)
    expect_endpoint(script)
    wanted = NAMED | {"ContentType": "application/json", "Accept": "video/mp4", "Body": job.encode()}
    script.expect("sagemaker-runtime", "InvokeEndpoint", wanted, {"Body": body(b"the film")})
    flags = ["--accept", "video/mp4", "-o", str(tmp_path / "out.mp4")]
    assert main([str(tmp_path / "job.json"), *CALL, *flags]) == 0
    script.done()
    assert (tmp_path / "out.mp4").read_bytes() == b"the film"


def test_a_request_of_ones_own_asynchronously(script, capfd: pytest.CaptureFixture[str]):
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://films/jobs/1.json", "application/json")
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://films/jobs/1.json", *CALL]) == 0
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
    expect_async(script, "s3://films/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, None)
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://films/a.mp4", *CALL]) == 0
    script.done()
    assert json.loads(capfd.readouterr().out) == {"status": "success"}


def test_a_file_asynchronously_is_put_where_it_starts_nothing_else(script, film: Path):
    expect_endpoint(script, is_async=True)
    wanted = {
        "Bucket": "films",
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
    assert main([str(film), *CALL]) == 0
    script.done()
    assert re.fullmatch(r"requests/[0-9a-f-]{36}\.mp4", seen[0]["Key"])


def test_an_asynchronous_failure(script, capsys: pytest.CaptureFixture[str]):
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://films/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, b'{"error": {"code": "no_face_found"}}')
    assert main(["s3://films/a.mp4", *CALL]) == 1
    script.done()
    assert "the endpoint failed on it: " in (said := capsys.readouterr().err)
    assert "no_face_found" in said


def test_no_answer_in_time(script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter((0.0, 31.0))
    monkeypatch.setattr(invoke, "Patience", lambda **_: Patience(limit_s=30, clock=lambda: next(times)))
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://films/a.mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, None)
    assert main(["s3://films/a.mp4", *CALL]) == 1
    assert f"no answer after 30 s; it will be at {OUTPUT}" in capsys.readouterr().err


def test_a_long_wait_is_told_of(script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter((0.0, 59.0, 61.0, 62.0))
    monkeypatch.setattr(invoke, "Patience", lambda **_: Patience(clock=lambda: next(times), sleep=lambda _: None))
    expect_endpoint(script, is_async=True)
    expect_async(script, "s3://films/a.mp4")
    for _ in range(3):
        expect_object(script, OUTPUT, None)
        expect_object(script, FAILURE, None)
    expect_object(script, OUTPUT, ANSWER)
    assert main(["s3://films/a.mp4", *CALL]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == ["still waiting (61 s)"]


def test_what_the_container_said(script, film: Path, capsys: pytest.CaptureFixture[str]):
    expect_endpoint(script)
    message = 'Received client error (400) from primary with message "no face". See https://console.aws...'
    script.refuse("sagemaker-runtime", "InvokeEndpoint", "ModelError", message)
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    assert main([str(film), *CALL]) == 1
    assert f"deploy.invoke: viseme: {message}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.mp4", "missing.mp4: no such file"),
        ("s3://films", "s3://films: expected s3://BUCKET/KEY"),
    ],
)
def test_the_callers_mistakes(script, capsys: pytest.CaptureFixture[str], given: str, said: str):
    expect_endpoint(script)
    assert main([given, *CALL]) == 2
    assert said in capsys.readouterr().err


def test_too_large_for_real_time(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "long.mp4").write_bytes(bytes(25_000_001))
    expect_endpoint(script)
    assert main([str(tmp_path / "long.mp4"), *CALL]) == 2
    assert "put it into S3" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["Creating", "Failed"])
def test_an_endpoint_that_does_not_serve(script, film: Path, capsys: pytest.CaptureFixture[str], status: str):
    expect_endpoint(script, status)
    assert main([str(film), *CALL]) == 2
    assert f"viseme: is {status} and answers nothing" in capsys.readouterr().err


def test_no_such_endpoint(script, film: Path, capsys: pytest.CaptureFixture[str]):
    script.refuse("sagemaker", "DescribeEndpoint", "ValidationException", 'Could not find endpoint "viseme".')
    assert main([str(film), *CALL]) == 2
    assert "viseme: no such endpoint in us-east-1" in capsys.readouterr().err
