"""Done means it answered: the requests that `create` and `update` send before they say so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY
from support.endpoint_calls import (
    ALL_AT_ONCE,
    MADE_AT_MS,
    NAMED,
    NEW,
    OLD,
    OURS,
    describe,
    expect_clean,
    expect_create,
    expect_discard,
    expect_log,
    expect_scaling,
    expect_update,
)

from deploy import endpoint, smoke_test
from deploy.endpoint import main
from deploy.smoke_test import CLIP, CLIP_FRAMES, CLIP_WORDS, SPEECH, canned_answer
from deploy.waiting import WaitPolicy, describe_ready_line

GROUP = "/aws/sagemaker/Endpoints/viseme"
RUNTIME = "sagemaker-runtime"
STOCK_LINE = (
    "2026-11-20 13:20:00,123 [INFO ] W-model-1-stdout com.amazonaws.ml.mms.wlm.WorkerLifeCycle - viseme is ready: "
    '{"device": "cuda", "gpu": "NVIDIA A10G", "driver": "550.163.01", "torch_version": "2.6.0", "warm_up_ms": 900.0}'
)
READING = canned_answer() | {"model": {"name": "LipCoordNet", "weights": "starter"}, "timings_ms": {"total": 158.4}}


def body(answer: object) -> dict:
    contents = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return {"Body": StreamingBody(io.BytesIO(contents), len(contents))}


def expect_reading(script, answer: object) -> None:
    wanted = {"ContentType": "video/mp4", "Accept": "application/json", "Body": CLIP.read_bytes()}
    script.expect(RUNTIME, "InvokeEndpoint", NAMED | wanted, body(answer))


def expect_sync(script, answer: object) -> None:
    wanted = {"ContentType": "application/json", "Accept": "application/json", "Body": ANY}
    script.expect(RUNTIME, "InvokeEndpoint", NAMED | wanted, body(answer))


def expect_ready_line(script, *messages: str) -> None:
    since = MADE_AT_MS - 120_000
    wanted = {"logGroupName": GROUP, "filterPattern": '"viseme is ready"', "startTime": since}
    script.expect("logs", "FilterLogEvents", wanted, {"events": [{"message": one} for one in messages]})


def expect_in_service(script) -> None:
    expect_create(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))


def refuse(script, status: int, message: str = "x") -> None:
    """Expect a request that the container answers with an error, as SageMaker passes it on."""
    side = "client" if 400 <= status < 500 else "server"
    text = f'Received {side} error ({status}) from primary with message "{message}". See https://console in account'
    fields = {"OriginalStatusCode": status, "OriginalMessage": message}
    script.refuse(RUNTIME, "InvokeEndpoint", "ModelError", text, **fields)


def test_create_is_done_once_it_answered(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    expect_reading(script, READING)
    expect_sync(script, canned_answer())
    expect_ready_line(script, STOCK_LINE)
    assert main(OURS) == 0
    script.done()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"viseme: in service with {NEW}"
    assert lines[1].startswith(
        f'viseme: read "{CLIP_WORDS}" (as spoken) in 75 frames, LipCoordNet with starter, 158 ms in the container; '
        "answered after "
    )
    assert lines[2].startswith("viseme: synced 25 frames with MODEL, a video of 8 bytes; answered after ")
    assert lines[3] == "viseme: device cuda, gpu NVIDIA A10G, driver 550.163.01, torch_version 2.6.0"


def test_other_words_are_shown_and_no_failure(script, capsys: pytest.CaptureFixture[str]):
    """Other weights may know other words."""
    expect_in_service(script)
    expect_reading(script, READING | {"text": "hello world"})
    expect_sync(script, canned_answer())
    expect_ready_line(script)
    assert main(OURS) == 0
    assert f'read "hello world" (spoken was "{CLIP_WORDS}") in 75 frames' in capsys.readouterr().err


def test_nothing_is_sent_if_the_test_is_skipped(script):
    expect_in_service(script)
    assert main([*OURS, "--no-smoke-test"]) == 0
    script.done()


def test_a_failure_shows_the_containers_words(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    refuse(script, 500, "the weights of model.safetensors do not fit")
    expect_log(script, "Traceback (most recent call last):", "WrongWeights: 3 keys are missing")
    assert main(OURS) == 1
    script.done()
    err = capsys.readouterr().err
    assert f"viseme: in service with {NEW}, but lip reading fails: 500: Received server error (500)" in err
    assert "the weights of model.safetensors do not fit" in err
    assert "\n  WrongWeights: 3 keys are missing\n" in err
    assert "the endpoint was kept and costs money, although it answers wrongly; --delete removes it" in err


def test_a_driver_is_recognised(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    refuse(script, 500, "device cuda was asked for")
    expect_log(script, "The NVIDIA driver on your system is too old (found version 11040)")
    assert main(OURS) == 1
    err = capsys.readouterr().err
    assert "deploy.endpoint: driver: viseme: in service" in err
    assert "--inference-ami-version" in err


@pytest.mark.parametrize("status", [429, 503, 504, 0])
def test_a_request_is_repeated_if_the_container_is_not_ready(script, capsys: pytest.CaptureFixture[str], status: int):
    expect_in_service(script)
    refuse(script, status)
    expect_reading(script, READING)
    script.refuse(RUNTIME, "InvokeEndpoint", "ServiceUnavailable", "busy")
    expect_sync(script, canned_answer())
    expect_ready_line(script)
    assert main(OURS) == 0
    script.done()
    assert capsys.readouterr().err.count("; trying again\n") == 2


def test_a_request_is_not_repeated_for_ever(script, monkeypatch: pytest.MonkeyPatch):
    times = iter(range(0, 4000, 100))
    policy = WaitPolicy(poll_s=0, sleep=lambda _: None, clock=lambda: next(times))
    monkeypatch.setattr(endpoint, "WaitPolicy", lambda: policy)
    expect_in_service(script)
    for _ in range(3):
        refuse(script, 503)
    expect_log(script, "still loading")
    assert main(OURS) == 1
    script.done()


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"<html>", "Expecting value"),
        ([], "list indices must be"),
        ({"status": "success"}, "no 'num_frames'"),
        (READING | {"num_frames": 3}, "num_frames is 3; expected 75"),
    ],
)
def test_an_answer_to_something_else_is_a_failure(script, capsys: pytest.CaptureFixture[str], answer, what: str):
    expect_in_service(script)
    expect_reading(script, answer)
    expect_log(script, "said nothing")
    assert main(OURS) == 1
    script.done()
    err = capsys.readouterr().err
    assert "but lip reading fails: the answer is not what was requested" in err
    assert what in err


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ({"num_frames": 25, "video": "AAAAAAAAAAA="}, "bytes 4 to 8 of the video is"),
        ({"num_frames": 2, "video": ""}, "num_frames is 2; expected 25"),
        ({"num_frames": 25, "video": "?"}, "base64"),
        ({}, "no 'num_frames'"),
    ],
)
def test_an_answer_without_the_video_is_a_failure(script, capsys: pytest.CaptureFixture[str], output: dict, what: str):
    expect_in_service(script)
    expect_reading(script, READING)
    expect_sync(script, {"status": "success", "outputs": [{"model": "starter"} | output]})
    expect_log(script, "said nothing")
    assert main(OURS) == 1
    script.done()
    err = capsys.readouterr().err
    assert "but lip sync fails: the answer is not what was requested" in err
    assert what in err


def test_a_request_that_may_not_be_sent_says_nothing_about_the_endpoint(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    script.refuse(RUNTIME, "InvokeEndpoint", "AccessDeniedException", "not authorized: sagemaker:InvokeEndpoint")
    assert main(OURS) == 1
    script.done()
    err = capsys.readouterr().err
    assert "permission: sagemaker-runtime InvokeEndpoint: AccessDeniedException" in err
    assert "although it could not be tested" in err


def test_an_answer_that_breaks_off_says_nothing_about_the_endpoint(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    wanted = {"ContentType": "video/mp4", "Accept": "application/json", "Body": CLIP.read_bytes()}
    cut_off = {"Body": StreamingBody(io.BytesIO(b'{"status"'), 100)}
    script.expect(RUNTIME, "InvokeEndpoint", NAMED | wanted, cut_off)
    assert main(OURS) == 1
    script.done()
    err = capsys.readouterr().err
    assert "sagemaker-runtime InvokeEndpoint: 9 read, but total bytes expected is 100" in err
    assert "although it could not be tested" in err


def test_an_unreadable_log_does_not_hide_the_answer(script, capsys: pytest.CaptureFixture[str]):
    expect_in_service(script)
    expect_reading(script, READING)
    expect_sync(script, canned_answer())
    script.refuse("logs", "FilterLogEvents", "AccessDeniedException")
    assert main(OURS) == 0
    assert "viseme: (the log cannot be read: AccessDeniedException)" in capsys.readouterr().err


# Updates


def start_update(script, bounds: tuple[int, int] | None = None) -> None:
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    expect_update(script, ALL_AT_ONCE, bounds=bounds)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))


def expect_undo(script) -> None:
    request = NAMED | {"EndpointConfigName": OLD, "RetainAllVariantProperties": True}
    arn = "arn:aws:sagemaker:us-east-1:1:endpoint/viseme"
    script.expect("sagemaker", "UpdateEndpoint", request, {"EndpointArn": arn})


def test_an_update_is_done_once_it_answered(script):
    start_update(script, bounds=(1, 2))
    expect_reading(script, READING)
    expect_sync(script, canned_answer())
    expect_ready_line(script)
    expect_scaling(script, 1, 2)
    expect_clean(script)
    assert main([*OURS, "--update"]) == 0
    script.done()


def test_an_update_that_answers_wrongly_is_undone(script, capsys: pytest.CaptureFixture[str]):
    start_update(script, bounds=(1, 2))
    refuse(script, 500, "CUDA error")
    expect_log(script, "CUDA error: no kernel image is available")
    expect_undo(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Updating", OLD))
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", OLD))
    expect_scaling(script, 1, 2)
    expect_discard(script)
    assert main([*OURS, "--update"]) == 1
    script.done()
    err = capsys.readouterr().err
    assert f"viseme: the new version answers wrongly; going back to {OLD}\n" in err
    assert f"the update to {NEW} was undone; {OLD} serves again" in err
    assert "\n  CUDA error: no kernel image is available\n" in err


def test_an_update_that_cannot_be_undone_is_reported(script, capsys: pytest.CaptureFixture[str]):
    start_update(script, bounds=(1, 2))
    refuse(script, 500, "CUDA error")
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    script.refuse("sagemaker", "UpdateEndpoint", "ResourceLimitExceeded", "limit")
    assert main([*OURS, "--update"]) == 1
    script.done()  # nothing is deleted: the new version still serves
    err = capsys.readouterr().err
    assert f"viseme: {NEW} answers wrongly, and {OLD} could not be restored: quota: " in err
    assert "scaling between 1 and 2 instances is off; --update --min-capacity 1 --max-capacity 2 restores it" in err


def test_an_untested_update_stays_and_so_does_the_old_version(script, capsys: pytest.CaptureFixture[str]):
    start_update(script, bounds=(1, 2))
    script.refuse(RUNTIME, "InvokeEndpoint", "AccessDeniedException", "no")
    expect_scaling(script, 1, 2)
    assert main([*OURS, "--update"]) == 1
    script.done()
    assert f"{NEW} is in service, but untested; {OLD} was kept" in capsys.readouterr().err


# Asynchronous endpoints

FOLDERS = ["--mode", "async", "--min-capacity", "1", "--async-output", "s3://videos/results/"]
FOLDERS += ["--async-failure", "s3://videos/failures/"]
OUTPUT, FAILURE = "s3://videos/results/1.out", "s3://videos/failures/1.out"


def expect_async_in_service(script) -> None:
    output = {"S3OutputPath": "s3://videos/results/", "S3FailurePath": "s3://videos/failures/"}
    config = {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4}, "OutputConfig": output}
    expect_create(script, AsyncInferenceConfig=config)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))


def expect_async_request(script, name: str, content_type: str) -> None:
    key = f"requests/{NEW}-{name}"
    put = {"Bucket": "videos", "Key": key, "Body": ANY, "ExpectedBucketOwner": "123456789012"}
    script.expect("s3", "PutObject", put | {"ContentType": content_type})
    wanted = {"InputLocation": f"s3://videos/{key}", "ContentType": content_type, "Accept": "application/json"}
    answer = {"OutputLocation": OUTPUT, "FailureLocation": FAILURE, "InferenceId": "1"}
    script.expect(RUNTIME, "InvokeEndpointAsync", NAMED | wanted | {"InvocationTimeoutSeconds": 300}, answer)


def expect_object(script, uri: str, contents: object | None) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if contents is None:
        script.refuse("s3", "GetObject", "NoSuchKey", parameters={"Bucket": bucket, "Key": key})
    else:
        script.expect("s3", "GetObject", {"Bucket": bucket, "Key": key}, body(contents))


def test_an_asynchronous_endpoint_is_tested_through_its_queue(script, capsys: pytest.CaptureFixture[str]):
    expect_async_in_service(script)
    expect_async_request(script, "clip.mp4", "video/mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, None)
    expect_object(script, OUTPUT, READING)
    expect_async_request(script, "smoke-test.json", "application/json")
    expect_object(script, OUTPUT, canned_answer())
    expect_ready_line(script)
    assert main([*OURS, *FOLDERS]) == 0
    script.done()
    assert f'viseme: read "{CLIP_WORDS}" (as spoken)' in capsys.readouterr().err


def test_an_asynchronous_failure_shows_the_containers_words(script, capsys: pytest.CaptureFixture[str]):
    expect_async_in_service(script)
    expect_async_request(script, "clip.mp4", "video/mp4")
    expect_object(script, OUTPUT, None)
    expect_object(script, FAILURE, b'{"status": "error", "error": {"code": "out_of_memory", "message": "no memory"}}')
    expect_log(script, "OutOfMemory")
    assert main([*OURS, *FOLDERS]) == 1
    script.done()
    err = capsys.readouterr().err
    assert "but lip reading fails: the request failed: {" in err
    assert "out_of_memory" in err
    assert "although it answers wrongly" in err


def test_no_answer_in_time_says_nothing_about_the_endpoint(
    script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Requests of others may wait in the queue."""
    times = iter(range(0, 100_000, 500))
    policy = WaitPolicy(poll_s=0, sleep=lambda _: None, clock=lambda: next(times))
    monkeypatch.setattr(endpoint, "WaitPolicy", lambda: policy)
    expect_async_in_service(script)
    expect_async_request(script, "clip.mp4", "video/mp4")
    for _ in range(2):
        expect_object(script, OUTPUT, None)
        expect_object(script, FAILURE, None)
    assert main([*OURS, *FOLDERS]) == 1
    script.done()
    err = capsys.readouterr().err
    assert f"viseme: lip reading: no answer after 900 s; it will be written to {OUTPUT}" in err
    assert "although it could not be tested" in err


def test_the_platforms_log_is_not_taken_for_the_containers(script):
    """SageMaker writes a stream of its own beside that of each container of an asynchronous endpoint."""
    from deploy.waiting import read_last_log_lines

    streams = [{"logStreamName": f"AllTraffic/i-1{end}", "creationTime": MADE_AT_MS + 1} for end in ("/data-log", "")]
    wanted = {"logGroupName": GROUP, "orderBy": "LastEventTime", "descending": True, "limit": 20}
    script.expect("logs", "DescribeLogStreams", wanted, {"logStreams": streams})
    wanted = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1", "limit": 20, "startFromHead": False}
    script.expect("logs", "GetLogEvents", wanted, {"events": [{"message": "a line\n"}]})
    assert read_last_log_lines(script.aws, "viseme") == ["a line"]


# What is sent


def test_ready_lines_of_both_servers_are_understood():
    ours = {"event": "viseme is ready", "device": "cpu", "gpu": None, "torch_version": "2.13.0", "port": 8080}
    assert describe_ready_line(json.dumps(ours)) == "device cpu, torch_version 2.13.0"
    assert describe_ready_line(STOCK_LINE) == ("device cuda, gpu NVIDIA A10G, driver 550.163.01, torch_version 2.6.0")
    assert describe_ready_line("viseme is ready") is None


def test_the_requests_are_small():
    """An asynchronous request could even be inline (128,000 bytes)."""
    assert CLIP.stat().st_size + SPEECH.stat().st_size < 100_000
    assert len(smoke_test.SyncCheck().body()) < 128_000


def test_the_shipped_weights_read_the_clip(reader):
    result = reader.read(CLIP)
    assert (result.text, result.num_frames) == (CLIP_WORDS, CLIP_FRAMES)


def test_the_clip_and_the_speech_are_in_the_package():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["deploy"]
    package = CLIP.parents[1]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert {CLIP, SPEECH} <= shipped


@pytest.mark.parametrize("is_update", [False, True])
def test_ctrl_c_during_the_requests_says_what_it_costs(
    script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_update: bool
):
    """The endpoint is in service and paid for, which a caller who leaves must know."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if is_update:
        script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
        expect_update(script, ALL_AT_ONCE, bounds=(1, 2))
        script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    else:
        expect_in_service(script)
    monkeypatch.setattr(smoke_test.SmokeTest, "run", interrupt)
    assert main([*OURS, *(["--update"] if is_update else [])]) == 130
    script.done()
    err = capsys.readouterr().err
    assert "costs money" in err
    assert "\npython -m deploy.endpoint --endpoint-name viseme --region us-east-1 --delete\n" in err
    if is_update:
        assert f"{NEW} is in service, but has not been tested, and {OLD} was kept" in err
        assert "--update --min-capacity 1 --max-capacity 2 restores it" in err
