"""The commands and the policy in deploy/README.md, and the trial script."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from deploy import endpoint, huggingface_model, image, invoke, lipcoordnet, package
from deploy.diagnostics import CAUSES, DRIVER
from deploy.images import AMIS

ROOT = Path(__file__).parents[2]
README = (ROOT / "deploy" / "README.md").read_text("utf-8").replace("\\\n", "")  # commands in one line
SCRIPT = ROOT / "deploy" / "first_real_run.sh"
PARSERS = {
    "deploy.endpoint": endpoint.make_parser,
    "deploy.huggingface_model": huggingface_model.make_parser,
    "deploy.image": image.make_parser,
    "deploy.invoke": invoke.make_parser,
    "deploy.lipcoordnet": lipcoordnet.make_parser,
    "deploy.package": package.make_parser,
}
# Operations whose IAM action has another name.
ACTIONS = {"s3:HeadBucket": "s3:ListBucket", "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock"}


@pytest.mark.parametrize(
    "line", re.findall(r"^python -m (deploy\.\w+ --?\w.*|deploy\.invoke .*)$", README, re.MULTILINE)
)
def test_commands_are_valid(line: str):
    module, *arguments = shlex.split(line)
    PARSERS[module]().parse_args(arguments)


@pytest.mark.parametrize("line", re.findall(r"^aws sagemaker-runtime (.*)$", README, re.MULTILINE))
def test_aws_cli_commands_are_valid(line: str):
    """Their options are the operation's parameters in AWS's service model."""
    command, *arguments = shlex.split(line)
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    operations = {xform_name(name, "-"): service.operation_model(name) for name in service.operation_names}
    allowed = {f"--{xform_name(name, '-')}" for name in operations[command].input_shape.members}
    options = {argument for argument in arguments if argument.startswith("--")}
    assert options <= allowed | {"--region"}


def test_links_inside_the_document_have_headings():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([\w-]+)\)", README)
    assert links
    assert set(links) <= anchors


def test_the_templates_command_is_valid():
    template = ROOT / "infra" / "template.yaml"
    if not template.is_file():
        pytest.skip("no infra/template.yaml here")
    commands = re.findall(
        r"python -m deploy\.endpoint (.*?)(?:\n\s*- |\n\w|\Z)", template.read_text("utf-8"), re.DOTALL
    )
    assert commands
    for command in commands:
        help_text = endpoint.make_parser().format_help()
        assert set(re.findall(r"--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", help_text))


def calls() -> set[tuple[str, str]]:
    """Return every service and operation that the code calls."""
    found = set()
    for path in (ROOT / "deploy").glob("*.py"):
        names = {"SERVICE": "application-autoscaling"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "aws.call":
                service, operation = node.args[:2]
                name = names.get(ast.unparse(service)) or ast.literal_eval(service)
                if isinstance(operation, ast.Constant):
                    found.add((name, str(operation.value)))
    return found | {
        ("sagemaker", name) for name in ("ListEndpointConfigs", "ListModels", "DeleteModel", "DeleteEndpointConfig")
    }


def test_the_policy_allows_every_call():
    policy = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])
    actions = [one["Action"] for one in policy["Statement"]]
    allowed = {name for one in actions for name in ([one] if isinstance(one, str) else one)}
    assert len(calls()) > 15
    for service, operation in calls():
        action = f"{service.removesuffix('-runtime')}:{operation}"
        assert ACTIONS.get(action, action) in allowed


SHOWN_TYPES = ("S3::Bucket", "Events::Rule", "Serverless::Function", "DynamoDB::Table", "SNS::Topic", "SQS::Queue")


def test_the_diagram_shows_the_templates_resources():
    """Each is shown under its logical id and connected by an arrow."""
    diagram = re.search(r"```mermaid\n(.*?)```", README, re.DOTALL)[1]
    template = (ROOT / "infra" / "template.yaml").read_text("utf-8")
    parts = set(re.findall(rf"^  (\w+):\n    Type: AWS::(?:{'|'.join(SHOWN_TYPES)})\n", template, re.MULTILINE))
    parts -= {"LogBucket", "AlarmTopic"}  # no video passes through them
    stack = diagram.partition("[infra/template.yaml]")[2].partition("    end\n")[0]
    assert parts == parts & set(re.findall(r"\w+", stack))
    assert len(parts) == 11
    nodes = set(re.findall(r"^        (\w+)[\[(]", diagram, re.MULTILINE))
    arrows = re.findall(r"^    (\w+) -.*[ |](\w+)$", diagram, re.MULTILINE)
    assert {name for arrow in arrows for name in arrow} == nodes


def test_every_cause_and_machine_image_is_listed():
    for cause in (DRIVER, *CAUSES):
        assert f"| `{cause.name}` |" in README
    for ami in AMIS:
        assert f"| `{ami.name}` | {ami.driver} | {ami.cuda[0]}.{ami.cuda[1]} |" in README


FAKES = {
    "python": 'echo "$@" >> calls; case "$*" in *--instance-type*) exit "${DEPLOYED:-0}";; esac',
    "aws": 'echo "aws $1 $2" >> calls; echo "viseme is ready: {}"',
}


@pytest.mark.parametrize("deployed", [0, 1])
def test_the_script_always_deletes(tmp_path: Path, deployed: int):
    for name, text in FAKES.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "video.mp4").touch()
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python", "DEPLOYED": str(deployed)}
    env["AWS_REGION"] = "us-east-1"
    run = subprocess.run(
        [str(SCRIPT), "arn:aws:iam::123456789012:role/X", str(tmp_path / "video.mp4"), "first"],
        env=env | {"EXTRA": "--mode async"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == deployed, run.stderr
    calls_made = (tmp_path / "calls").read_text().splitlines()
    for line in calls_made:
        if line.startswith("-m deploy."):
            module, *arguments = shlex.split(line)[1:]
            PARSERS[module]().parse_args(arguments)
    assert calls_made[0].endswith("--instance-type ml.g5.xlarge --mode async")
    assert calls_made[-1] == "-m deploy.endpoint --endpoint-name first --region us-east-1 --delete"
    assert ("viseme is ready" in run.stdout) == (deployed == 0)


def test_the_script_prints_its_usage():
    run = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "deploy/first_real_run.sh ROLE_ARN VIDEO" in run.stderr
