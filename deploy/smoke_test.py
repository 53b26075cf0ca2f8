"""Send real requests to an endpoint that is in service, and check what it answers.

`InService` only means that the container answers /ping, which the stock image's server does whether or not the models
are loaded. Two requests show that they are: a rendered clip is read, and the clip's face is synced to another speech.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from deploy import invocation
from deploy.aws import Answer, Aws
from deploy.aws_requests import DeploymentSpec, account_of
from deploy.diagnostics import explain_answer
from deploy.errors import CallFailed, DeployError, RequestFailed
from deploy.storage import upload_file
from deploy.waiting import WaitPolicy, created_at, find_ready_line, read_last_log_lines

# viseme render "BIN BLUE AT F TWO NOW" --seed 5 -o clip.mp4, then its audio left out.
CLIP = Path(__file__).parent / "smoke" / "clip.mp4"
CLIP_WORDS = "BIN BLUE AT F TWO NOW"
CLIP_FRAMES = 75
# The audio of viseme render "SET RED IN Q SIX SOON" --seed 5: one second from 0.76 s on, 16 kHz mono.
SPEECH = CLIP.with_name("speech.wav")
SPEECH_FRAMES = 25  # at the clip's 25 fps
JSON = "application/json"
MP4_BRAND = b"ftyp"  # at byte 4 of every MP4
# A container that has just started may still load its models, and one that is updated under load may be busy: these
# faults pass. Any other one of the server, such as 500, does so seldom, and a broken endpoint costs money meanwhile.
RETRY_FOR_S = 300.0
NOT_READY_STATUSES = frozenset({408, 425, 429, 503, 504})
NOT_READY_CODES = frozenset({"InternalFailure", "InternalDependencyException", "ModelNotReadyException"})
NOT_READY_CODES |= {"ServiceUnavailable", "ThrottlingException"}
ASYNC_TIMEOUT_S = 300  # for the container; after that SageMaker writes a failure object
ASYNC_WAIT_S = 900.0  # requests of others may be queued before ours
MAX_POLL_S = 3.0  # between two polls for an asynchronous answer


def add_smoke_test_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-smoke-test",
        action="store_true",
        help="finish when the endpoint is in service; by default it must first read a clip and sync a face",
    )


class SmokeRequest(Protocol):
    """A request whose right answer is known. name: of the task; file_name, content_type, body: what is sent."""

    name: str
    file_name: str
    content_type: str

    def body(self) -> bytes:
        """Return the request's body."""

    def describe(self, answer: Answer) -> str:
        """Return a line about the answer. Raises: KeyError, TypeError, ValueError if it is not what was requested."""


class ReadingCheck:
    """The clip, sent as a video."""

    name = "lip reading"
    file_name = CLIP.name
    content_type = "video/mp4"

    def body(self) -> bytes:
        return CLIP.read_bytes()

    def describe(self, answer: Answer) -> str:
        check_equal("num_frames", answer["num_frames"], CLIP_FRAMES)
        text = str(answer["text"])
        # Other weights may know other words, so a difference is shown and is no failure.
        spoken = "as spoken" if text.upper() == CLIP_WORDS else f'spoken was "{CLIP_WORDS}"'
        return f'read "{text}" ({spoken}) in {answer["num_frames"]} frames{describe_model(answer)}'


class SyncCheck:
    """The clip and the speech, inline in a JSON request."""

    name = "lip sync"
    file_name = "smoke-test.json"
    content_type = JSON

    def body(self) -> bytes:
        face, audio = (base64.b64encode(path.read_bytes()).decode() for path in (CLIP, SPEECH))
        return json.dumps({"task": "lipsync", "face": face, "audio": audio}).encode()

    def describe(self, answer: Answer) -> str:
        output = answer["outputs"][0]
        check_equal("num_frames", output["num_frames"], SPEECH_FRAMES)
        video = base64.b64decode(output["video"], validate=True)
        check_equal("bytes 4 to 8 of the video", video[4:8], MP4_BRAND)
        return f"synced {output['num_frames']} frames with {output['model']}, a video of {len(video)} bytes"


def check_equal(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{name} is {found!r}; expected {expected!r}")


def describe_model(answer: Answer) -> str:
    """Return the weights and the container's own time, if the answer has them."""
    model, total_ms = answer.get("model", {}), answer.get("timings_ms", {}).get("total")
    found = [f"{model['name']} with {model['weights']}"] if {"name", "weights"} <= set(model) else []
    found += [f"{total_ms:.0f} ms in the container"] if isinstance(total_ms, (int, float)) else []
    return "".join(f", {one}" for one in found)


@dataclass(frozen=True)
class SmokeTest:
    """What `create` and `update` call once a version is in service."""

    aws: Aws
    wait_policy: WaitPolicy

    def run(self, spec: DeploymentSpec) -> None:
        """Send the requests one after the other, and report each answer.

        Raises: RequestFailed with the container's words if it answers with an error, or not what was requested;
        other DeployErrors if a request could not be sent or waited for, which says nothing about the endpoint.
        """
        for check in (ReadingCheck(), SyncCheck()):
            started_s = self.wait_policy.clock()
            answer = self._request(spec, check)
            took_s = self.wait_policy.clock() - started_s
            try:
                line = check.describe(json.loads(answer))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
                raise RequestFailed(self._explain(spec, check, explain_wrong_answer(answer, err))) from err
            self.wait_policy.report(f"{spec.endpoint}: {line}; answered after {took_s:.1f} s")
        environment = find_ready_line(self.aws, spec.endpoint, created_at(spec.name))
        if environment:
            self.wait_policy.report(f"{spec.endpoint}: {environment}")

    def _request(self, spec: DeploymentSpec, check: SmokeRequest) -> bytes:
        """Return the answer; repeat the request for a while if the endpoint is not ready."""
        started_s = self.wait_policy.clock()
        while True:
            try:
                return self._send(spec, check)
            except RequestFailed as err:  # the failure object of an asynchronous request
                raise RequestFailed(self._explain(spec, check, str(err))) from err
            except CallFailed as err:
                reason = f"{err.status}: {err.aws_message}" if err.status else err.aws_message
                if not is_not_ready(err) or self.wait_policy.clock() - started_s >= RETRY_FOR_S:
                    if err.code == "ModelError":
                        raise RequestFailed(self._explain(spec, check, reason)) from err
                    raise
                self.wait_policy.report(f"{spec.endpoint}: {check.name}: {first_line(reason)}; trying again")
                self.wait_policy.sleep(self.wait_policy.poll_s)

    def _send(self, spec: DeploymentSpec, check: SmokeRequest) -> bytes:
        if not spec.async_paths:
            return invocation.invoke_realtime(self.aws, spec.endpoint, check.body(), check.content_type, JSON)
        name = f"{spec.name}-{check.file_name}"
        bucket, key = invocation.place_for_request(spec.async_paths.output, name)
        account = account_of(spec.role_arn)
        parameters = spec.governance.object_parameters()
        uri = upload_file(self.aws, io.BytesIO(check.body()), bucket, key, account, check.content_type, parameters)
        started = invocation.start_async(self.aws, spec.endpoint, uri, check.content_type, JSON, ASYNC_TIMEOUT_S)
        poll_s = min(self.wait_policy.poll_s, MAX_POLL_S)
        try:
            return invocation.wait_for_answer(
                self.aws, started, replace(self.wait_policy, poll_s=poll_s, timeout_s=ASYNC_WAIT_S)
            )
        except (RequestFailed, CallFailed):
            raise
        except DeployError as err:
            raise DeployError(f"{spec.endpoint}: {check.name}: {err}") from err

    def _explain(self, spec: DeploymentSpec, check: SmokeRequest, reason: str) -> str:
        subject = f"{spec.endpoint}: in service with {spec.name}, but {check.name} fails"
        return explain_answer(subject, reason, read_last_log_lines(self.aws, spec.endpoint, created_at(spec.name)))


def is_not_ready(err: CallFailed) -> bool:
    """Return whether the same request may soon succeed: the container's status says so, or SageMaker's error code."""
    if err.code != "ModelError":
        return err.code in NOT_READY_CODES
    return not err.status or err.status in NOT_READY_STATUSES  # without a status it did not answer in time


def explain_wrong_answer(answer: bytes, err: Exception) -> str:
    what = f"no {err}" if isinstance(err, KeyError) else str(err)
    return f"the answer is not what was requested ({what}): {answer[:500].decode('utf-8', 'replace')}"


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def canned_answer() -> dict[str, Any]:
    """Return an answer that both checks accept: what a dry run assumes."""
    video = base64.b64encode(bytes(4) + MP4_BRAND).decode()
    output = {"model": "MODEL", "num_frames": SPEECH_FRAMES, "video": video}
    return {"status": "success", "text": CLIP_WORDS, "num_frames": CLIP_FRAMES, "outputs": [output]}
