"""Each command of the READMEs, run word for word against the best stand-in; or listed with the reason why it is not.

AWS is moto, a real `viseme serve --aws-routes` for the endpoint's runtime, and the function's own code for Lambda. The
AWS CLI's commands run with both of its versions. An address is all that is added, outside of the command's words.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import cv2
import httpx
import pytest
from moto.server import ThreadedMotoServer
from support.async_runtime import async_runtime
from support.aws_cli import find_cli, require_cli, version_of
from support.live_server import PATIENCE_S, LiveServer, live_server
from support.moto_sagemaker import complete_sagemaker
from support.quiet_http import serving
from support.readme_commands import NOT_RUN, RUN, Block, blocks_of, is_run, read_blocks, reason_not_to_run
from support.video_files import make_wav

from deploy.image_manifest import DOCKER_MANIFEST

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "deploy/README.md", "infra/README.md")
BLOCKS = read_blocks(ROOT, DOCUMENTS)
COMMANDS = [(block, command) for block in BLOCKS for command in block.commands]
REGION, BUCKET = "us-east-1", "my-videos"
IMAGE_TAGS = ("1.0", "1.1", "1.0-cpu")
OUTPUTS = (f"s3://{BUCKET}/results/", f"s3://{BUCKET}/failures/")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
# The address of each service, as AWS_ENDPOINT_URL_... would give it, which the CLI reads from version 2.13 on only.
SHIM = """#!/bin/sh
case "$1" in
    sagemaker-runtime) url="$AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME" ;;
    lambda) url="$AWS_ENDPOINT_URL_LAMBDA" ;;
    *) url="$AWS_ENDPOINT_URL" ;;
esac
exec {aws} --endpoint-url "$url" "$@"
"""


# The tables


def test_every_command_is_run_or_has_a_reason():
    unknown = [
        f"{block}: {command}"
        for block, command in COMMANDS
        if reason_not_to_run(command) is None and not is_run(command)
    ]
    assert not unknown, (
        "no rule for these; add each to RUN, or to NOT_RUN with the reason, in tests/support/readme_commands.py:\n"
        + "\n".join(unknown)
    )


def test_the_tables_have_the_commands_that_matter():
    run = [command for _, command in COMMANDS if is_run(command)]
    for start in ("viseme read", "viseme sync", "python -m deploy.endpoint", "python -m deploy.invoke"):
        assert any(command.startswith(start) for command in run), start
    for start in (
        "aws sagemaker-runtime invoke-endpoint ",
        "aws sagemaker-runtime invoke-endpoint-async",
        "aws lambda",
    ):
        assert any(command.startswith(start) for command in run), start


def test_blocks_are_read():
    text = "```\none a \\\n    b   # note\n'1\n2'\n\n```\n```json\n{}\n```\n   ```sh\n   two\n   # three\n   ```\n"
    assert [block.commands for block in blocks_of("x.md", text)] == [("one a b", "'1\n2'"), ("two",)]
    assert all(reason for _, reason in NOT_RUN)
    assert all(re.compile(pattern) for pattern in RUN)


@pytest.mark.parametrize("command", [command for _, command in COMMANDS if command.startswith("pip install")])
def test_extras_exist(command: str):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [named] = re.findall(r"\.\[([\w,-]+)\]", command)
    assert set(named.split(",")) <= set(extras)


# The stand-ins


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        complete_sagemaker(patch)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture(scope="module")
def container(weights_cache: Path, moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data = tmp_path_factory.mktemp("data")
    (data / "weights").symlink_to(weights_cache)
    env = CREDENTIALS | {
        "AWS_ENDPOINT_URL_S3": moto_url,
        "VISEME_DEADLINE_S": str(PATIENCE_S),
        "VISEME_DATA_DIR": str(data),
    }
    with live_server(tmp_path_factory.mktemp("server"), env, "--aws-routes") as live:
        yield live


@dataclass
class Account:
    """The addresses of an AWS account. env: for commands."""

    env: dict[str, str]
    async_url: str


@pytest.fixture(scope="module")
def addresses(moto_url: str, container: LiveServer) -> Iterator[Account]:
    urls = {"AWS_ENDPOINT_URL": moto_url, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": container.url}
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | CREDENTIALS | urls
    s3 = client("s3", moto_url)
    with async_runtime(container.url, s3, *OUTPUTS) as async_url, lambda_service(env) as url:
        yield Account(env | {"AWS_ENDPOINT_URL_LAMBDA": url}, async_url)


@pytest.fixture
def account(
    addresses: Account,
    moto_url: str,
    talking_film: bytes,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Account:
    """An empty account, but for the reader's videos and images."""
    block = request.node.callspec.params.get("block")
    # moto loads all of AWS's own policies at each reset, which takes seconds.
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", str(bool(block and "aws iam" in block.text)).lower())
    httpx.post(f"{moto_url}/moto-api/reset", timeout=PATIENCE_S, trust_env=False).raise_for_status()
    s3, ecr = client("s3", moto_url), client("ecr", moto_url)
    s3.create_bucket(Bucket=BUCKET)
    for key in ("clip.mp4", "long.mp4", "uploads/clip.mp4"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=talking_film)
    ecr.create_repository(repositoryName="viseme")
    for tag in IMAGE_TAGS:
        manifest = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "tag": tag})
        ecr.put_image(
            repositoryName="viseme", imageManifest=manifest, imageManifestMediaType=DOCKER_MANIFEST, imageTag=tag
        )
    return addresses


@cache
def client(service: str, url: str) -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


FUNCTION_CODE = (
    "import json, sys; sys.path.append({folder!r}); from invoke_endpoint.handler import handler; "
    "print(json.dumps(handler(json.load(sys.stdin), None)))"
)


@contextmanager
def lambda_service(env: dict[str, str]) -> Iterator[str]:
    """Yield the URL of Lambda, which runs the function in a process of its own.

    Source: the operation Invoke in botocore's service model (path, headers).
    """
    code = FUNCTION_CODE.format(folder=str(ROOT / "lambdas"))
    variables = env | {"ENDPOINT_NAME": "viseme", "MODE": "realtime"}

    class Lambda(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            assert self.path == "/2015-03-31/functions/FUNCTION/invocations"
            event = self.rfile.read(int(self.headers["content-length"]))
            run = subprocess.run(
                [sys.executable, "-c", code], env=variables, input=event, capture_output=True, check=False
            )
            body = run.stdout if run.returncode == 0 else json.dumps({"errorMessage": run.stderr.decode()}).encode()
            self.send_response(200)
            if run.returncode:
                self.send_header("X-Amz-Function-Error", "Unhandled")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Lambda) as url:
        yield url


@pytest.fixture(scope="module", params=[1, 2])
def cli(request: pytest.FixtureRequest) -> Path:
    return require_cli(request.param)


@pytest.fixture
def workspace(tmp_path: Path, talking_film: bytes) -> Path:
    """A folder with the files that the commands name."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(talking_film)
    (folder / "speech.wav").write_bytes(make_wav(1.0))
    is_read, frame = cv2.VideoCapture(str(folder / "clip.mp4")).read()
    assert is_read
    cv2.imwrite(str(folder / "face.jpg"), frame)
    return folder


def run_shell(command: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as the reader would, with this environment's programs first on the PATH."""
    path = f"{folder.parent / 'bin'}:{Path(sys.executable).parent}:{env['PATH']}"
    run = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert run.returncode == 0, f"{command}\n{run.stdout}{run.stderr}"
    return run


# The commands


def blocks_with(pattern: str) -> list[Block]:
    """Return the blocks of which a command is run that matches."""
    found = [block for block in BLOCKS if any(is_run(one) and re.match(pattern, one) for one in block.commands)]
    assert found, pattern
    return found


@pytest.mark.parametrize("block", blocks_with(r"aws "), ids=str)
def test_commands_of_the_aws_cli(block: Block, cli: Path, account: Account, workspace: Path):
    if "--invocation-timeout-seconds" in block.text and version_of(cli) == (2, 9):
        pytest.skip("the AWS CLI of Debian 12, 2.9.19, has no --invocation-timeout-seconds; deploy/README.md has it")
    (workspace.parent / "bin").mkdir()
    shim = workspace.parent / "bin" / "aws"
    shim.write_text(SHIM.format(aws=cli))
    shim.chmod(0o755)
    env = account.env
    if "invoke-endpoint-async" in block.text:
        env = env | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": account.async_url}
    for command in filter(is_run, block.commands):
        run = run_shell(command, workspace, env)
    if "invoke-endpoint-async" in block.text:
        assert json.loads(run.stdout)["OutputLocation"].startswith(OUTPUTS[0])
    elif command.endswith(" answer.json"):
        answer = json.loads((workspace / "answer.json").read_text())
        assert "errorMessage" not in answer, answer
        answer = answer["results"][0]["answer"] if "lambda" in command else answer
        assert answer["num_frames"] == 75


@pytest.mark.parametrize("option", ["--body", "--payload"])
def test_an_inline_request_is_base64_for_version_2_only(option: str, account: Account, tmp_path: Path):
    """The reason why requests are in files; the words of deploy/README.md."""
    request = '{"s3_bucket": "my-videos", "s3_video_key": "uploads/clip.mp4"}'
    name = ["--endpoint-name", "viseme"] if option == "--body" else ["--function-name", "FUNCTION"]
    words = ["sagemaker-runtime", "invoke-endpoint"] if option == "--body" else ["lambda", "invoke"]
    url = account.env[f"AWS_ENDPOINT_URL_{words[0].replace('-', '_').upper()}"]
    typed = ["--content-type", "application/json"] if option == "--body" else []
    arguments = [*words, *name, *typed, option, request, str(tmp_path / "answer.json"), "--endpoint-url", url]
    raw = ["--cli-binary-format", "raw-in-base64-out"]
    results = {}
    clis = {major: find_cli(major) for major in (1, 2)}
    for major, found in clis.items():
        if found is None:
            pytest.skip(f"no AWS CLI {major} here")
    for major, found in clis.items():
        for more in ([], raw):
            run = subprocess.run(
                [str(found), *arguments, *more], env=account.env, capture_output=True, text=True, check=False
            )
            results[major, bool(more)] = run
    assert results[1, False].returncode == 0, results[1, False].stderr
    assert "Unknown options: --cli-binary-format" in results[1, True].stderr
    assert "Invalid base64" in results[2, False].stderr
    assert results[2, True].returncode == 0, results[2, True].stderr


@pytest.mark.parametrize("block", blocks_with(r"python -m deploy\."), ids=str)
def test_commands_of_deploy(block: Block, account: Account, workspace: Path, moto_url: str):
    is_async = "--mode async" in block.text
    env = account.env
    if is_async:
        env = env | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": account.async_url}
    if not re.search(r"^python -m deploy\.endpoint (?!.*--(update|delete))", block.text, re.MULTILINE):
        create_endpoint(moto_url)
    for command in filter(is_run, block.commands):
        run = run_shell(command, workspace, env)
        if "deploy.endpoint" in command and "--delete" not in command and "--dry-run" not in command:
            assert "viseme: in service with viseme-v" in run.stderr
            assert "viseme: read " in run.stderr
        elif "deploy.invoke" in command:
            [output] = re.findall(r" -o (\S+)", command) or [None]
            answer = (workspace / output).read_text() if output else run.stdout
            assert answer.startswith("WEBVTT") or json.loads(answer.splitlines()[-1])["num_frames"] == 75


def create_endpoint(url: str) -> None:
    """Create the endpoint that the commands of a block expect."""
    sagemaker = client("sagemaker", url)
    role = "arn:aws:iam::123456789012:role/SageMaker"
    name = "viseme-v20261101000000"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": "viseme"})
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.g5.xlarge",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="viseme", EndpointConfigName=name)


@pytest.mark.parametrize("block", blocks_with(r"viseme "), ids=str)
def test_commands_of_viseme(block: Block, account: Account, workspace: Path):
    before = set(workspace.iterdir())
    for command in filter(is_run, block.commands):
        run = run_shell(command, workspace, account.env)
        [output] = re.findall(r" -o (\S+)", command) or [None]
        assert run.stdout.strip() or (output and (workspace / output).stat().st_size > 1000)
    assert before <= set(workspace.iterdir())
