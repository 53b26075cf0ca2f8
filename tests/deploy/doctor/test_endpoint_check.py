"""The doctor on an endpoint, AWS being a table of answers whose fields botocore's own models know."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters
from support.endpoint_calls import ACCOUNT, IMAGE, NEW, REGION, ROLE, describe

from deploy.aws import Answer, BotoAws, as_call_failed, service_model
from deploy.doctor.endpoint import check_endpoint
from deploy.doctor.findings import Finding, Outcome
from deploy.doctor.read_only_aws import PERMISSIONS, ReadOnlyAws
from deploy.errors import CallFailed, WrongRequest
from deploy.image_manifest import DOCKER_MANIFEST, OCI_INDEX
from deploy.images import stock_image
from deploy.smoke_test import canned_answer

READ_PREFIXES = ("Describe", "Get", "List", "BatchGet", "Head", "Filter", "Simulate", "Invoke")
ROOT = Path(__file__).parents[3]
GROUP = "/aws/sagemaker/Endpoints/viseme"
ARCHIVE = "s3://models/viseme/model.tar.gz"
FROM_ZERO = {"PolicyName": "viseme-from-zero", "PolicyType": "StepScaling", "Alarms": [{"AlarmName": "x"}]}
TRACKING = {"PolicyName": "viseme-target-tracking", "PolicyType": "TargetTrackingScaling"}


def alarm(metric="Invocation5XXErrors", variant: str | None = "AllTraffic", name="viseme-5xx", **more) -> Answer:
    names = {"EndpointName": "viseme"} | ({"VariantName": variant} if variant else {})
    dimensions = [{"Name": key, "Value": value} for key, value in names.items()]
    watched = {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions, "Statistic": "Sum"}
    return {"AlarmName": name, "StateValue": "OK", "ActionsEnabled": True, **watched, **more}


def role_of(principal: str) -> Answer:
    statement = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
    return {"Role": {"RoleName": "SageMaker", "AssumeRolePolicyDocument": {"Statement": [statement]}}}


def configuration(**more: Any) -> Answer:
    variant = {"VariantName": "AllTraffic", "ModelName": NEW, "InstanceType": "ml.g5.xlarge"}
    variant["InferenceAmiVersion"] = "al2023-ami-sagemaker-inference-gpu-4-1"
    return {"EndpointConfigName": NEW, "ProductionVariants": [variant | more]}


def policies(*found: Answer) -> Answer:
    return {"ScalingPolicies": list(found)}


def bounds(minimum: int, maximum: int) -> Answer:
    return {"ScalableTargets": [{"MinCapacity": minimum, "MaxCapacity": maximum}]}


def manifest(media_type: str) -> Answer:
    contents = json.dumps({"mediaType": media_type, "layers": [{"size": 2_000_000_000}]})
    return {"images": [{"imageManifest": contents, "imageManifestMediaType": media_type}]}


HEALTHY: dict[str, Answer] = {
    "DescribeEndpoint": describe(config=NEW),
    "DescribeEndpointConfig": configuration(),
    "DescribeModel": {
        "ModelName": NEW,
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": ARCHIVE},
    },
    "BatchGetImage": manifest(DOCKER_MANIFEST),
    "HeadObject": {"ContentLength": 5_000_000},
    "GetRole": role_of("sagemaker.amazonaws.com"),
    "SimulatePrincipalPolicy": {"EvaluationResults": [{"EvalActionName": "x", "EvalDecision": "allowed"}]},
    "DescribeLogGroups": {"logGroups": [{"logGroupName": GROUP, "retentionInDays": 30}]},
    "DescribeLogStreams": {"logStreams": []},
    "FilterLogEvents": {"events": []},
    "DescribeAlarms": {"MetricAlarms": [alarm()]},
    "DescribeScalableTargets": {"ScalableTargets": []},
    "DescribeScalingPolicies": policies(),
    "ListServiceQuotas": {"Quotas": [{"QuotaName": "ml.g5.xlarge for endpoint usage", "Value": 4.0}]},
    "InvokeEndpoint": {},
}


@dataclass
class TableAws:
    """Answers each call from a table by operation. Error: AWS's own error code and message."""

    answers: Mapping[str, Answer]
    calls: list[str] = field(default_factory=list)

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        validate_parameters(parameters, service_model(service).operation_model(operation).input_shape)
        self.calls.append(operation)
        answer = deepcopy(self.answers[operation])
        if "Error" in answer:
            raise as_call_failed(ClientError(answer, operation), service, operation)
        if operation == "InvokeEndpoint" and not answer:
            return {"Body": io.BytesIO(json.dumps(canned_answer()).encode())}
        return answer


def error(code: str, message: str = "", **more: Any) -> Answer:
    return {"Error": {"Code": code, "Message": message}, **more}


def examine(**answers: Answer) -> list[Finding]:
    return list(check_endpoint(TableAws(HEALTHY | answers), "viseme", REGION))


def faults(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.outcome is not Outcome.OK]


def test_a_healthy_endpoint():
    aws = TableAws(HEALTHY)
    findings = list(check_endpoint(aws, "viseme", REGION))
    assert [one.line() for one in faults(findings)] == []
    assert [one.check for one in findings] == [
        *(
            "status",
            "configuration and model",
            "image",
            "driver",
            "model data",
            "server settings",
            "role",
            "permissions of the role",
        ),
        *("log retention", "logs", "errors in the log", "alarms", "autoscaling", "quota", "lip reading", "lip sync"),
    ]
    documented = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    assert [one.check for one in findings if f"`{one.check}`" not in documented] == []
    assert set(aws.calls) == HEALTHY.keys() - {"DescribeScalingPolicies"}  # it does not scale


def test_the_answers_of_the_table_have_aws_own_fields():
    services = {"InvokeEndpoint": "sagemaker-runtime", "BatchGetImage": "ecr", "HeadObject": "s3"}
    services |= dict.fromkeys(("GetRole", "SimulatePrincipalPolicy"), "iam")
    services |= dict.fromkeys(("DescribeLogGroups", "DescribeLogStreams", "FilterLogEvents"), "logs")
    services |= {"DescribeAlarms": "cloudwatch", "ListServiceQuotas": "service-quotas"}
    services |= dict.fromkeys(("DescribeScalableTargets", "DescribeScalingPolicies"), "application-autoscaling")
    for operation, answer in HEALTHY.items():
        shape = service_model(services.get(operation, "sagemaker")).operation_model(operation).output_shape
        assert answer.keys() <= set(shape.members), operation


@pytest.mark.parametrize(
    ("answers", "outcome", "check", "words"),
    [
        (
            {"DescribeEndpoint": describe("Failed", NEW, FailureReason="The role could not assume role arn")},
            *("FAIL", "status", "check --role-arn"),
        ),
        ({"DescribeEndpoint": describe("Updating", NEW)}, "warn", "status", "run this again once it is InService"),
        ({"BatchGetImage": manifest(OCI_INDEX)}, "FAIL", "image", f"its manifest is {OCI_INDEX}"),
        (
            {"BatchGetImage": {"failures": [{"failureCode": "ImageNotFound", "failureReason": "gone"}]}},
            *("FAIL", "image", "new instances cannot start without it"),
        ),
        (
            {"DescribeEndpointConfig": configuration(InferenceAmiVersion="al2-ami-sagemaker-inference-gpu-2")},
            *("FAIL", "driver", "has NVIDIA driver 535"),
        ),
        (
            {
                "DescribeModel": HEALTHY["DescribeModel"]
                | {"PrimaryContainer": {"Image": stock_image(REGION, "ml.g5.xlarge")}}
            },
            *("warn", "server settings", "answers over 6.5 MB are lost"),
        ),
        (
            {
                "DescribeEndpoint": describe(config=NEW, AsyncInferenceConfig={"OutputConfig": {}}),
                "DescribeModel": HEALTHY["DescribeModel"]
                | {"PrimaryContainer": {"Image": IMAGE, "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}}},
                "DescribeEndpointConfig": configuration()
                | {"AsyncInferenceConfig": {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}},
            },
            *("warn", "server settings", "SageMaker sends 1 asynchronous requests at once to 3 workers"),
        ),
        ({"HeadObject": error("404")}, "FAIL", "model data", f"{ARCHIVE} does not exist"),
        ({"GetRole": role_of("lambda.amazonaws.com")}, "FAIL", "role", "does not trust sagemaker.amazonaws.com"),
        ({"GetRole": error("NoSuchEntity")}, "FAIL", "role", "does not exist"),
        (
            {"SimulatePrincipalPolicy": {"EvaluationResults": [{"EvalDecision": "explicitDeny"}]}},
            *("FAIL", "permissions of the role", "logs:CreateLogStream"),
        ),
        (
            {"SimulatePrincipalPolicy": {"EvaluationResults": [{"EvalDecision": "implicitDeny"}]}},
            *("warn", "permissions of the role", "allow s3:GetObject"),
        ),
        ({"DescribeLogGroups": {"logGroups": []}}, "warn", "logs", f"there is no group {GROUP}"),
        (
            {"DescribeLogGroups": {"logGroups": [{"logGroupName": GROUP}]}},
            *("warn", "log retention", "--log-days 30"),
        ),
        (
            {"FilterLogEvents": {"events": [{"message": "The NVIDIA driver on your system is too old"}]}},
            *("FAIL", "errors in the log", "--inference-ami-version"),
        ),
        ({"DescribeAlarms": {"MetricAlarms": []}}, "warn", "alarms", "none watches this endpoint"),
        (
            {"DescribeAlarms": {"MetricAlarms": [alarm(variant=None)]}},
            *("FAIL", "alarms", "published with EndpointName VariantName, not EndpointName"),
        ),
        (
            {"DescribeAlarms": {"MetricAlarms": [alarm("InvocationFailures")]}},
            *("FAIL", "alarms", "published for async endpoints, not realtime"),
        ),
        (
            {"DescribeAlarms": {"MetricAlarms": [alarm(variant="Blue")]}},
            *("FAIL", "alarms", "of the variant Blue; the endpoint has AllTraffic"),
        ),
        (
            {"DescribeAlarms": {"MetricAlarms": [alarm(StateValue="ALARM", StateReason="5 of 5")]}},
            *("warn", "alarms", "viseme-5xx rings: 5 of 5"),
        ),
        (
            {
                "DescribeEndpoint": describe(
                    config=NEW,
                    LastDeploymentConfig={"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "viseme-gone"}]}},
                )
            },
            *("FAIL", "alarms", "viseme-gone does not exist"),
        ),
        (
            {"DescribeScalableTargets": bounds(1, 3), "DescribeScalingPolicies": policies()},
            *("FAIL", "autoscaling", "no target-tracking policy"),
        ),
        (
            {"DescribeScalableTargets": bounds(0, 3), "DescribeScalingPolicies": policies(TRACKING)},
            *("FAIL", "autoscaling", "nothing starts the first instance"),
        ),
        (
            {
                "DescribeScalableTargets": bounds(0, 3),
                "DescribeScalingPolicies": policies(TRACKING, FROM_ZERO | {"Alarms": []}),
            },
            *("FAIL", "autoscaling", "no alarm calls viseme-from-zero"),
        ),
        (
            {
                "DescribeScalableTargets": bounds(1, 9),
                "DescribeScalingPolicies": policies(TRACKING),
            },
            *("warn", "quota", "4 of ml.g5.xlarge, 1 run here, autoscaling may start 9"),
        ),
        (
            {"ListServiceQuotas": {"Quotas": [{"QuotaName": "ml.g5.xlarge for endpoint usage", "Value": 1.0}]}},
            *("warn", "quota", "new instances beside the old ones is refused"),
        ),
        (
            {"InvokeEndpoint": error("ModelError", "no model", OriginalStatusCode=500)},
            *("FAIL", "lip reading", "500: no model"),
        ),
    ],
)
def test_each_fault_is_named(answers: dict[str, Answer], outcome: str, check: str, words: str):
    found = [one for one in faults(examine(**answers)) if one.check == check]
    assert outcome in {str(one.outcome) for one in found}
    assert any(words in one.line() for one in found), [one.line() for one in found]


@pytest.mark.parametrize("operation", sorted(HEALTHY))
def test_a_call_that_is_denied_is_one_line(operation: str):
    scaled = {"DescribeScalableTargets": bounds(1, 3), "DescribeScalingPolicies": policies(TRACKING)}
    answers = HEALTHY | scaled | {operation: error("AccessDeniedException", "not authorized")}
    findings = list(check_endpoint(TableAws(answers), "viseme", REGION))
    assert [one.line() for one in findings if one.has_failed] == []
    unchecked = [one.found for one in findings if one.outcome is Outcome.NOT_CHECKED]
    # The reader of the last log lines has no error of its own.
    expected = "(the log cannot be read" if operation == "DescribeLogStreams" else f"needs {PERMISSIONS[operation]}"
    assert any(expected in one for one in unchecked), [one.line() for one in findings]


def alarm_of_scaling(metric: str, variant: str | None, name: str) -> Answer:
    action = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:1:resource/sagemaker/endpoint/viseme"
    return alarm(metric, variant, name, StateValue="ALARM", AlarmActions=[action])


def test_alarms_of_autoscaling_ring_at_a_healthy_endpoint():
    """Application Auto Scaling makes two for target tracking; the lower one rings while there is little to do."""
    low = alarm_of_scaling("InvocationsPerInstance", "AllTraffic", "TargetTracking-endpoint/viseme-AlarmLow-1")
    assert [one.line() for one in faults(examine(DescribeAlarms={"MetricAlarms": [low]}))] == []


def test_alarms_on_metrics_of_others_are_not_judged():
    own = alarm("CPUUtilization", name="busy", Namespace="/aws/sagemaker/Endpoints", Statistic="Maximum")
    assert [one.line() for one in faults(examine(DescribeAlarms={"MetricAlarms": [own]}))] == []
    [unknown] = faults(examine(DescribeAlarms={"MetricAlarms": [alarm("InvocationFailure")]}))
    assert unknown.outcome is Outcome.WARNING
    assert "watches InvocationFailure, which is none of those known here" in unknown.line()


def test_a_caller_who_may_do_nothing():
    denied = error("AccessDeniedException", "not authorized")
    findings = examine(**dict.fromkeys(HEALTHY, denied))
    assert {str(one.outcome) for one in findings} == {"not checked"}
    assert findings[0].line().endswith("needs sagemaker:DescribeEndpoint")


def test_a_serverless_endpoint():
    serverless = {"MemorySizeInMB": 6144, "MaxConcurrency": 4}
    variant = {"VariantName": "AllTraffic", "ModelName": NEW, "ServerlessConfig": serverless}
    running = {"VariantName": "AllTraffic", "CurrentServerlessConfig": serverless}
    findings = examine(
        DescribeEndpoint=describe(config=NEW, ProductionVariants=[running]),
        DescribeEndpointConfig={"EndpointConfigName": NEW, "ProductionVariants": [variant]},
    )
    assert [one.line() for one in faults(findings)] == []
    assert any("serverless" in one.found for one in findings if one.check == "configuration and model")


def test_an_asynchronous_endpoint_is_not_called():
    folders = {"S3OutputPath": "s3://videos/results/", "S3FailurePath": "s3://videos/failures/"}
    config = {"AsyncInferenceConfig": {"OutputConfig": folders}}
    aws = TableAws(
        HEALTHY
        | {
            "DescribeEndpoint": describe(config=NEW, **config),
            "DescribeEndpointConfig": configuration() | config,
            "DescribeAlarms": {"MetricAlarms": [alarm("InvocationFailures")]},
            "SimulatePrincipalPolicy": {"EvaluationResults": [{"EvalDecision": "implicitDeny"}]},
        }
    )
    findings = list(check_endpoint(aws, "viseme", REGION))
    assert "InvokeEndpoint" not in aws.calls
    assert [one.outcome for one in findings if one.check.startswith("lip ")] == [Outcome.NOT_CHECKED] * 2
    lacking = [one.found for one in findings if one.check == "permissions of the role"]
    assert "s3:PutObject on arn:aws:s3:::videos/results/x is not allowed (asynchronous answers)" in lacking


def test_a_caller_without_credentials():
    with pytest.raises(CallFailed, match="credentials"):
        examine(DescribeEndpoint=error("UnrecognizedClientException", "The security token is invalid."))


def test_no_call_changes_anything():
    assert all(operation.startswith(READ_PREFIXES) for operation in PERMISSIONS)
    aws = TableAws(HEALTHY)
    with pytest.raises(KeyError, match="DeleteEndpoint"):
        ReadOnlyAws(aws).call("sagemaker", "DeleteEndpoint", EndpointName="viseme")
    assert aws.calls == []


def test_an_endpoint_that_does_not_exist():
    with pytest.raises(WrongRequest, match="no such endpoint in us-east-1"):
        examine(DescribeEndpoint=error("ValidationException", 'Could not find endpoint "viseme".'))


class PartlyMoto(BotoAws):
    """moto, and the table for what moto lacks."""

    def call(self, service: str, operation: str, **parameters: Any) -> Answer:
        if operation in ("ListServiceQuotas", "InvokeEndpoint"):
            return TableAws(HEALTHY).call(service, operation, **parameters)
        return super().call(service, operation, **parameters)


def test_the_calls_against_moto(moto: None):
    """Real answers, as moto makes them, of what it implements."""
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    container = {"Image": IMAGE, "ModelDataUrl": ARCHIVE}
    sagemaker.create_model(ModelName=NEW, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = configuration()["ProductionVariants"][0] | {"InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=NEW, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="viseme", EndpointConfigName=NEW)
    boto3.client("cloudwatch", region_name=REGION).put_metric_alarm(
        AlarmName="viseme-5xx",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": "EndpointName", "Value": "viseme"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    found = {one.check: one.line() for one in check_endpoint(PartlyMoto(REGION), "viseme", REGION)}
    assert found["status"].startswith("ok")
    assert f"arn:aws:iam::{ACCOUNT}:role/SageMaker does not exist" in found["role"]
    assert "published with EndpointName VariantName" in found["alarms"]
    assert "does not exist" in found["model data"]
    assert "there is no group" in found["logs"]


def test_the_documented_policy_has_the_permissions_of_every_call():
    text = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    policy = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert set(policy["Statement"][0]["Action"]) == set(PERMISSIONS.values())
