"""The template: permissions, triggers, encryption, and agreement with the functions and deploy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lambda_functions import LAMBDAS, load, load_shared

from deploy.dev.template import load_template

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "infra" / "template.yaml"
# Actions without resource-level permissions, from AWS's service authorization reference.
WITHOUT_RESOURCES = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return load_template(TEMPLATE)


@pytest.fixture(scope="module")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    return template["Resources"]


def of_type(resources: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in resources.items() if one["Type"] == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def both_ways(value: Any) -> list[Any]:
    """Return the values on both sides of a condition."""
    branches = value["Fn::If"][1:] if isinstance(value, dict) and "Fn::If" in value else [value]
    return [one for one in branches if one != {"Ref": "AWS::NoValue"}]


def statements_of(role: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for policy in role["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            yield from both_ways(statement)


def actions_of(statement: dict[str, Any]) -> list[str]:
    return [action for one in as_list(statement["Action"]) for action in as_list_of_strings(both_ways(one))]


def as_list_of_strings(found: list[Any]) -> list[str]:
    assert all(isinstance(one, str) for one in found)
    return found


def allowed(resources: dict[str, Any], role: str) -> dict[str, str]:
    """Return the resources, as text, of each action that a role may take."""
    found: dict[str, str] = {}
    for statement in statements_of(resources[role]["Properties"]):
        for action in actions_of(statement):
            found[action] = found.get(action, "") + json.dumps(statement["Resource"])
    return found


def test_no_role_may_do_anything_to_everything(resources):
    roles = of_type(resources, "AWS::IAM::Role")
    assert set(roles) == {"InvokeEndpointRole", "OnResultRole", "UploadUrlRole", "ExecutionRole"}
    for name, role in roles.items():
        assert "ManagedPolicyArns" not in role, f"{name}: AWS's own policies allow more than is needed"
        for statement in statements_of(role):
            assert statement["Effect"] == "Allow"
            for action in actions_of(statement):
                assert "*" not in action, f"{name}: {action}"
                if "*" in as_list(statement["Resource"]):
                    assert action in WITHOUT_RESOURCES, f"{name}: {action} on everything"


def test_metrics_are_limited_by_a_condition(resources):
    statements = statements_of(resources["ExecutionRole"]["Properties"])
    [metrics] = [one for one in statements if one["Action"] == "cloudwatch:PutMetricData"]
    assert metrics["Condition"]["StringLike"]["cloudwatch:namespace"]


def test_each_function_may_do_what_it_does_and_no_more(resources):
    common = {"sqs:SendMessage", "logs:CreateLogStream", "logs:PutLogEvents"}
    may = {role: allowed(resources, role) for role in ("InvokeEndpointRole", "OnResultRole", "UploadUrlRole")}
    assert set(may["InvokeEndpointRole"]) - common == {
        "sagemaker:InvokeEndpointAsync",
        "sagemaker:InvokeEndpoint",
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:ListBucket",
        "s3:PutObject",
        "s3:DeleteObject",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
    }
    results = {"s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject", "dynamodb:UpdateItem"}
    assert set(may["OnResultRole"]) - common == results
    assert may["OnResultRole"]["s3:DeleteObject"] == '{"Fn::Sub": "${MediaBucket.Arn}/requests/*"}'
    assert set(may["UploadUrlRole"]) - common == {"s3:PutObject"}
    assert may["UploadUrlRole"]["s3:PutObject"] == '{"Fn::Sub": "${MediaBucket.Arn}/uploads/*"}'
    # A function triggered by an event may not write to the prefix that triggers events.
    for role in ("InvokeEndpointRole", "OnResultRole"):
        assert "uploads/" not in may[role]["s3:PutObject"]
    assert "uploads/" not in allowed(resources, "ExecutionRole")["s3:PutObject"]


def test_on_result_has_the_queue_of_requests_to_repeat(resources):
    variables = resources["OnResult"]["Properties"]["Environment"]["Variables"]
    assert variables["DEAD_LETTERS_URL"] == {"Ref": "DeadLetters"}


def test_the_endpoint_may_read_write_and_publish(resources):
    may = allowed(resources, "ExecutionRole")
    for prefix in ("uploads/*", "requests/*"):
        assert prefix in may["s3:GetObject"]
    for prefix in ("results/*", "failures/*"):
        assert prefix in may["s3:PutObject"]
    assert "SuccessTopic" in may["sns:Publish"]
    assert "ErrorTopic" in may["sns:Publish"]
    assert {"kms:Decrypt", "kms:GenerateDataKey", "ecr:BatchGetImage"} <= set(may)


def test_only_an_upload_calls_the_endpoint(resources):
    rules = of_type(resources, "AWS::Events::Rule")
    assert set(rules) == {"UploadRule", "ExpiryRule"}
    rule = rules["UploadRule"]
    pattern = rule["EventPattern"]
    assert (pattern["source"], pattern["detail-type"]) == (["aws.s3"], ["Object Created"])
    assert pattern["detail"]["bucket"]["name"] == [{"Ref": "MediaBucket"}]
    assert pattern["detail"]["object"]["key"] == [{"prefix": "uploads/"}]
    [target] = rule["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["InvokeEndpoint", "Arn"]}
    assert target["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}
    notified = resources["MediaBucket"]["Properties"]["NotificationConfiguration"]
    assert notified == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


def test_a_schedule_looks_for_expired_requests(resources):
    """The function needs the bucket for that, and EventBridge the permission to call it."""
    rule = resources["ExpiryRule"]
    assert rule["Condition"] == resources["ExpiryRuleMayInvoke"]["Condition"] == "IsAsync"
    assert "EventPattern" not in rule["Properties"]
    [target] = rule["Properties"]["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["OnResult", "Arn"]}
    assert resources["ExpiryRuleMayInvoke"]["Properties"]["SourceArn"] == {"Fn::GetAtt": ["ExpiryRule", "Arn"]}
    variables = resources["OnResult"]["Properties"]["Environment"]["Variables"]
    assert variables["BUCKET_NAME"] == {"Ref": "MediaBucket"}


def test_both_topics_call_on_result(resources):
    subscriptions = [
        one for one in of_type(resources, "AWS::SNS::Subscription").values() if one["Protocol"] == "lambda"
    ]
    assert sorted(one["TopicArn"]["Ref"] for one in subscriptions) == ["ErrorTopic", "SuccessTopic"]
    for one in subscriptions:
        assert one["Endpoint"] == {"Fn::GetAtt": ["OnResult", "Arn"]}
        assert one["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}


def test_every_permission_names_its_source(resources):
    for name, permission in of_type(resources, "AWS::Lambda::Permission").items():
        assert "SourceArn" in permission, name


def test_the_functions_are_those_in_lambdas(template, resources):
    functions = of_type(resources, "AWS::Serverless::Function")
    # In each function: `aws cloudformation package` does not read Globals, and would pack the template's own folder.
    assert {(TEMPLATE.parent / one["CodeUri"]).resolve() for one in functions.values()} == {LAMBDAS}
    handlers = {one["Handler"] for one in functions.values()}
    assert handlers == {f"{path.parent.name}.handler.handler" for path in LAMBDAS.glob("*/handler.py")}
    for name, one in functions.items():
        assert one["DeadLetterQueue"]["TargetArn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}, name
        assert one["LoggingConfig"]["LogGroup"]["Ref"] in resources, name
        assert one.get("FunctionUrlConfig", {}).get("AuthType", "AWS_IAM") == "AWS_IAM", name


def test_a_claim_outlives_its_function(resources):
    """The lease ends after the function's timeout, and before Lambda's last retry, 1 and 2 minutes after failures."""
    lease, timeout = load_shared("jobs.claims").LEASE_S, resources["InvokeEndpoint"]["Properties"]["Timeout"]
    assert timeout < lease < 180


def test_functions_and_template_agree(template, resources):
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    own = resources["InvokeEndpoint"]["Properties"]["Environment"]["Variables"]
    invoke = load("invoke_endpoint")
    given = {name: value if isinstance(value, str) else "x" for name, value in (variables | own).items()}
    settings = invoke.Settings.from_env(given | {"MODE": template["Parameters"]["Mode"]["Default"]})
    assert (settings.mode, settings.prefixes.uploads, settings.prefixes.results) == ("async", "uploads/", "results/")
    claims = load_shared("jobs.claims")
    [requests] = [
        rule
        for rule in resources["MediaBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == settings.prefixes.requests
    ]
    assert requests["ExpirationInDays"] * 24 * 3600 == claims.RETENTION_S
    assert template["Parameters"]["MaxUploadBytes"]["Default"] == load("upload_url").MAX_BYTES


@pytest.mark.parametrize("bucket", ["MediaBucket", "ModelBucket", "LogBucket"])
def test_buckets_are_encrypted_private_tls_only_and_do_not_grow(resources, bucket):
    found = resources[bucket]["Properties"]
    [encryption] = found["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(found["PublicAccessBlockConfiguration"]) == 4
    assert found["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert found["LifecycleConfiguration"]["Rules"]
    assert resources[bucket]["DeletionPolicy"] == "RetainExceptOnCreate"
    [policy] = [one for one in of_type(resources, "AWS::S3::BucketPolicy").values() if one["Bucket"] == {"Ref": bucket}]
    [deny] = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (deny["Principal"], deny["Action"]) == ("*", "s3:*")
    assert deny["Resource"] == [{"Fn::GetAtt": [bucket, "Arn"]}, {"Fn::Sub": f"${{{bucket}.Arn}}/*"}]


def test_the_rest_is_encrypted_too(resources):
    for name, topic in of_type(resources, "AWS::SNS::Topic").items():
        assert topic["KmsMasterKeyId"] == {"Ref": "TopicKey"}, name
    assert resources["TopicKey"]["Properties"]["EnableKeyRotation"] is True
    assert resources["DeadLetters"]["Properties"]["SqsManagedSseEnabled"] is True
    assert resources["FilmTable"]["Properties"]["SSESpecification"]["SSEEnabled"] is True
    assert resources["Repository"]["Properties"]["ImageScanningConfiguration"]["ScanOnPush"] is True


def test_logs_expire(resources):
    groups = of_type(resources, "AWS::Logs::LogGroup")
    assert len(groups) == 3  # the endpoint's own is made by deploy: SageMaker may have made it before the stack
    for name, group in groups.items():
        assert group["RetentionInDays"] == {"Ref": "LogDays"}, name


def test_the_stack_creates_nothing_that_the_endpoint_creates(template, resources):
    """SageMaker creates the endpoint's log group: the stack would fail if the endpoint came first."""
    assert "/aws/sagemaker/Endpoints" not in json.dumps(of_type(resources, "AWS::Logs::LogGroup"))
    for command in template["Outputs"]["DeployCommand"]["Value"]["Fn::If"][1:]:
        assert "--log-days ${LogDays}" in command["Fn::Sub"]


def test_what_contains_data_stays_unless_the_stack_could_not_be_created(resources):
    for name in ("MediaBucket", "ModelBucket", "LogBucket", "Repository"):
        assert resources[name]["DeletionPolicy"] == "RetainExceptOnCreate", name
        assert resources[name]["UpdateReplacePolicy"] == "Retain", name


def test_access_is_logged_once_s3_may_write_the_logs(resources):
    logged = {name for name, one in of_type(resources, "AWS::S3::Bucket").items() if "LoggingConfiguration" in one}
    assert logged == {"MediaBucket", "ModelBucket"}
    assert all(resources[name]["DependsOn"] == "LogBucketPolicy" for name in logged)


def test_alarms_have_an_action(resources):
    alarms = of_type(resources, "AWS::CloudWatch::Alarm")
    assert len(alarms) >= 4
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}], name
    topic = resources["AlarmTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    key = resources["TopicKey"]["Properties"]["KeyPolicy"]["Statement"]
    for statements in (topic, key):  # an alarm that may not use the topic's key is lost silently
        assert any(one["Principal"] == {"Service": "cloudwatch.amazonaws.com"} for one in statements)


def test_the_template_does_not_create_the_endpoint(resources):
    """The endpoint and its scaling belong to deploy/."""
    kinds = {one["Type"] for one in resources.values()}
    assert not {kind for kind in kinds if kind.startswith(("AWS::SageMaker", "AWS::ApplicationAutoScaling"))}


@pytest.mark.parametrize("mode", [0, 1], ids=["async", "realtime"])
def test_the_deploy_command_is_valid(template, mode):
    """It uses the stack's role, bucket and topics."""
    from deploy.endpoint import make_parser

    text = template["Outputs"]["DeployCommand"]["Value"]["Fn::If"][1 + mode]["Fn::Sub"]
    command = re.sub(r"\$\{[^}]+\}", "given", text.replace("${LogDays}", "30")).split()
    assert command[:3] == ["python", "-m", "deploy.endpoint"]
    args = make_parser().parse_args(command[3:])
    assert args.mode == ("async", "realtime")[mode]
    prefixes = [f"s3://given/{folder}/" for folder in ("results", "failures")]
    assert [args.async_output, args.async_failure] == ([None, None] if mode else prefixes)


def test_deploy_and_template_agree(template):
    from deploy.aws_requests import VARIANT
    from deploy.images import COMMON_ACCOUNT

    assert template["Parameters"]["ImageAccount"]["Default"] == COMMON_ACCOUNT
    assert template["Parameters"]["VariantName"]["Default"] == VARIANT


def test_no_yaml_that_cloudformation_cannot_parse():
    """CloudFormation's parser supports neither anchors nor merge keys."""
    assert not re.findall(r"(?m)[:-] [&*][A-Za-z]\w*|<<:", TEMPLATE.read_text())


def test_exceptions_are_explained(resources):
    top = TEMPLATE.read_text().split("\nMetadata:")[0]
    for name, one in resources.items():
        for skip in one.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert skip["comment"], name
            assert skip["id"] in top, f"{skip['id']} of {name} is not explained at the top"


@pytest.mark.skipif(
    not shutil.which("cfn-lint", path=str(Path(sys.executable).parent)), reason="cfn-lint is not installed"
)
def test_cfn_lint_finds_nothing():
    command = [Path(sys.executable).parent / "cfn-lint", "--include-checks", "I", "--", TEMPLATE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
