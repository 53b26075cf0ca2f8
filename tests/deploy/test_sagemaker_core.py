"""The lines of docs/sagemaker-sdk.md, run with SDK 3's own objects: their calls are those of deploy.endpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.environments import environment

from deploy.endpoint import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sagemaker-sdk.md").read_text("utf-8")
# Runs a script as the page has it, with the network of every botocore client replaced: each call is recorded.
RUNNER = """
import io, json, sys
from types import SimpleNamespace
import botocore.session

calls, arn = [], "arn:aws:sagemaker:eu-west-1:123456789012:"
dates = {"CreationTime": 0, "LastModifiedTime": 0}
ANSWERS = {
    "CreateModel": {"ModelArn": arn + "model/viseme"},
    "DescribeModel": {"ModelName": "viseme", "ModelArn": arn + "model/viseme", **dates},
    "CreateEndpointConfig": {"EndpointConfigArn": arn + "endpoint-config/viseme"},
    "DescribeEndpointConfig": {"EndpointConfigName": "viseme", "EndpointConfigArn": arn + "x", **dates},
    "CreateEndpoint": {"EndpointArn": arn + "endpoint/viseme"},
    "DescribeEndpoint": {"EndpointName": "viseme", "EndpointArn": arn + "x", "EndpointStatus": "InService", **dates},
    "InvokeEndpoint": {"Body": io.BytesIO(b'{"status": "success"}'), "ContentType": "application/json"},
}

def answer(model, params, **_):
    return SimpleNamespace(status_code=200), ANSWERS[model.name]

def record(params, model, **_):
    calls.append({"operation": model.name, "parameters": dict(params)})

make = botocore.session.Session.__init__
def attach(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.register("before-parameter-build", record)
    self.register("before-call", answer)
botocore.session.Session.__init__ = attach
exec(compile(open(sys.argv[1]).read(), "sagemaker-sdk.md", "exec"))
open(sys.argv[2], "w").write(json.dumps(calls, default=lambda body: f"{len(body)} bytes"))
"""


def test_the_pages_lines_make_the_calls_of_deploy_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    python = environment("sagemaker-core")
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(code)
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    (tmp_path / "runner.py").write_text(RUNNER)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    env |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "eu-west-1"}
    command = [str(python), "runner.py", "page.py", "calls.json"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert '{"status": "success"}' in run.stdout
    theirs = {one["operation"]: one["parameters"] for one in json.loads((tmp_path / "calls.json").read_text())}

    flags = ["--endpoint-name", "viseme", "--region", "eu-west-1", "--instance-type", "ml.g5.xlarge"]
    flags += ["--role-arn", "arn:aws:iam::123456789012:role/SageMaker"]
    flags += ["--image-uri", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/viseme:1.0"]
    assert main([*flags, "--no-smoke-test", "--dry-run"]) == 0
    ours = {one["operation"]: one["parameters"] for one in map(json.loads, capsys.readouterr().out.splitlines())}
    named = json.loads(re.sub(r"viseme-v\d{14}", "viseme", json.dumps(ours)))  # this command names each version
    for operation in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
        assert theirs[operation] == named[operation]
    assert theirs["InvokeEndpoint"] == {
        "EndpointName": "viseme",
        "Body": "7 bytes",
        "ContentType": "video/mp4",
        "Accept": "application/json",
    }
