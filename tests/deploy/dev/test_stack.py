"""The stack as the template has it: its functions evaluated, its resources named and made."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from deploy.aws import BotoAws
from deploy.dev import stack
from deploy.dev.stack import REGION, LocalStack, StackNames
from deploy.dev.template import ResourceValues, StackTemplate, load_template
from deploy.endpoint import make_parser
from deploy.errors import WrongRequest

NAMES = StackNames("http://127.0.0.1:8000", "clips")
DOCUMENT = """
Parameters:
  Name: {Type: String, Default: a, AllowedPattern: "[a-z]+"}
  Origins: {Type: CommaDelimitedList, Default: ""}
Conditions:
  IsA: !Equals [!Ref Name, a]
  IsNotA: !Not [!Condition IsA]
  HasOrigins: !Not [!Equals [!Join ["", !Ref Origins], ""]]
Globals:
  Function: {Timeout: 3, Environment: {Variables: {ONE: "1"}}}
Resources:
  Queue: {Type: AWS::SQS::Queue, Condition: IsNotA}
  Job:
    Type: AWS::Serverless::Function
    Properties:
      Environment: {Variables: {TWO: !Sub "${Name}-${Queue.Arn}-${!Name}-${AWS::Region}"}}
      Kept: !If [HasOrigins, x, !Ref AWS::NoValue]
      List: [!If [IsA, b, c], !If [IsNotA, d, !Ref AWS::NoValue]]
"""


def make_template(tmp_path: Path, text: str = DOCUMENT, **parameters: str) -> StackTemplate:
    path = tmp_path / "template.yaml"
    path.write_text(text)
    return StackTemplate(
        load_template(path), parameters, {"AWS::Region": "r"}, lambda name, _: ResourceValues(name, {"Arn": "arn"})
    )


def test_functions_and_conditions_are_evaluated(tmp_path: Path):
    [job] = make_template(tmp_path).resources()
    variables = {"ONE": "1", "TWO": "a-arn-${Name}-r"}
    assert job.properties == {"Timeout": 3, "Environment": {"Variables": variables}, "List": ["b"]}
    queue, job = make_template(tmp_path, Name="z", Origins="x,y").resources()
    assert queue.name == "Queue"
    assert job.properties["List"] == ["c", "d"]
    assert job.properties["Kept"] == "x"


def test_a_parameter_has_the_form_that_the_template_demands(tmp_path: Path):
    with pytest.raises(WrongRequest, match=r"Name 'A': expected \[a-z\]\+"):
        make_template(tmp_path, Name="A")


def test_what_is_not_implemented_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = DOCUMENT.replace("!If [IsA, b, c]", "!Select [0, [b]]")
    with pytest.raises(NotImplementedError, match="Fn::Select"):
        list(make_template(tmp_path, text).resources())
    document = load_template(stack.TEMPLATE)
    document["Resources"]["Alias"] = {"Type": "AWS::Lambda::Alias", "Properties": {}}
    monkeypatch.setattr(stack, "load_template", lambda _: document)
    with pytest.raises(NotImplementedError, match="AWS::Lambda::Alias"):
        LocalStack(NAMES, "viseme").create(BotoAws(REGION))


def test_only_safe_yaml_is_read(tmp_path: Path):
    (tmp_path / "template.yaml").write_text("a: !!python/object/apply:os.getpid []")
    with pytest.raises(yaml.YAMLError):
        load_template(tmp_path / "template.yaml")


@pytest.mark.parametrize("name", ["ab", "Clips", "a.b.c", "-clips", "a" * 49])
def test_a_bucket_has_a_name_that_its_stack_can_have(name: str):
    with pytest.raises(WrongRequest, match="--bucket"):
        StackNames("http://127.0.0.1:8000", name)


def test_the_stack_is_made_of_the_template(moto: None):
    found = LocalStack(NAMES, "lips")
    found.create(BotoAws(REGION))
    template = load_template(stack.TEMPLATE)
    rule = client("events").describe_rule(Name="clips-UploadRule")
    written = template["Resources"]["UploadRule"]["Properties"]["EventPattern"]
    written["detail"]["bucket"]["name"] = ["clips"]
    assert json.loads(rule["EventPattern"]) == written
    [target] = client("events").list_targets_by_rule(Rule="clips-UploadRule")["Targets"]
    assert target["Arn"].endswith(":clips-InvokeEndpoint-events")
    assert client("s3").get_bucket_versioning(Bucket="clips")["Status"] == "Enabled"
    subscribed = client("sns").list_subscriptions()["Subscriptions"]
    assert {one["Endpoint"].rpartition(":")[2] for one in subscribed} == {"clips-OnResult-events"}
    variables = {one.name: one.variables for one in found.functions}
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    invoke = {"ENDPOINT_NAME": "lips", "MODE": "async", "TABLE_NAME": "clips-FilmTable"}
    assert variables["clips-InvokeEndpoint"] == shared | invoke
    assert variables["clips-OnResult"]["DEAD_LETTERS_URL"] == "http://127.0.0.1:8000/123456789012/clips-DeadLetters"
    [schedule] = found.schedules
    assert schedule.period_s == 900


def test_the_endpoint_is_that_of_the_templates_command():
    words = shlex.split(LocalStack(NAMES, "lips").deploy_command)
    assert words[:3] == ["python", "-m", "deploy.endpoint"]
    args = make_parser().parse_args(words[3:])
    assert (args.endpoint_name, args.mode, args.async_failure) == ("lips", "async", "s3://clips/failures/")


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)
