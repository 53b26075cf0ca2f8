"""The stack of `infra/template.yaml` in the local account: what its resources are called, and how they are made.

Queues stand for the events of a function: Lambda has one such queue inside for each function, and moto delivers
EventBridge's events and SNS's messages to queues.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.aws import Aws
from deploy.dev.template import Properties, ResourceValues, StackResource, StackTemplate, load_template
from deploy.errors import WrongRequest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "infra" / "template.yaml"
ACCOUNT_ID = "123456789012"  # moto's
REGION = "us-east-1"
FUNCTION, QUEUE, TOPIC = "AWS::Serverless::Function", "AWS::SQS::Queue", "AWS::SNS::Topic"
ARNS = {  # by type; at: region and account
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{at}:table/{name}",
    QUEUE: "arn:aws:sqs:{at}:{name}",
    TOPIC: "arn:aws:sns:{at}:{name}",
    FUNCTION: "arn:aws:lambda:{at}:function:{name}",
    "AWS::Events::Rule": "arn:aws:events:{at}:rule/{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{at}:log-group:{name}",
    "AWS::KMS::Key": "arn:aws:kms:{at}:key/{name}",
    "AWS::ECR::Repository": "arn:aws:ecr:{at}:repository/{name}",
}
MAX_BUCKET_LENGTH = 48  # S3 allows 63 characters; the stack's other names have up to 15 more
BUCKET_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{1,{MAX_BUCKET_LENGTH - 2}}})[a-z0-9]")
SCHEDULE = re.compile(r"rate\((\d+) minutes?\)")
# What moto does not enforce (policies), encrypt with, or send mail about.
NOT_MADE = frozenset(
    {
        "AWS::S3::BucketPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::SNS::TopicPolicy",
        "AWS::Lambda::Permission",
        "AWS::KMS::Key",
    }
)


@dataclass(frozen=True)
class StackNames:
    """How the resources of the stack are called. url: of the local account; bucket: that of uploads and results."""

    url: str
    bucket: str

    def __post_init__(self) -> None:
        if not BUCKET_NAME.fullmatch(self.bucket):
            raise WrongRequest(
                f"--bucket {self.bucket}: expected 3 to {MAX_BUCKET_LENGTH} lower-case letters, digits, inner hyphens"
            )

    @property
    def stack(self) -> str:
        return self.bucket

    def name_of(self, logical_name: str, kind: str) -> str:
        """Return a resource's name; CloudFormation would add random letters to it."""
        if kind == "AWS::S3::Bucket":
            return self.bucket if logical_name == "MediaBucket" else f"{self.bucket}-{logical_name.lower()}"
        if kind == "AWS::ECR::Repository":
            return f"{self.stack}-{logical_name.lower()}"
        return f"{self.stack}-{logical_name}"

    def arn(self, kind: str, name: str) -> str:
        return ARNS[kind].format(at=f"{REGION}:{ACCOUNT_ID}", account=ACCOUNT_ID, name=name)

    def values_of(self, logical_name: str, kind: str) -> ResourceValues:
        """Return what `Ref` and `Fn::GetAtt` return. Raises: NotImplementedError for another type of resource."""
        if kind not in ARNS:
            raise NotImplementedError(f"{logical_name} of type {kind!r}: the template refers to what is not made here")
        name = self.name_of(logical_name, kind)
        arn = self.arn(kind, name)
        uri = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/{name}"
        refs = {QUEUE: self.queue_url(name), TOPIC: arn}
        return ResourceValues(
            refs.get(kind, name), {"Arn": arn, "QueueName": name, "TopicName": name, "RepositoryUri": uri}
        )

    def queue_url(self, name: str) -> str:
        return f"{self.url}/{ACCOUNT_ID}/{name}"

    def event_queue(self, function: str) -> str:
        """Return the name of the queue with a function's events."""
        return f"{function}-events"


@dataclass(frozen=True)
class FunctionSpec:
    """A function of the template. code: its folder; dead_letters: the ARN of a queue; queue_url: of its events."""

    name: str
    handler: str
    code: Path
    timeout_s: float
    variables: Mapping[str, str]
    queue_url: str
    dead_letters: str | None


@dataclass(frozen=True)
class ScheduleSpec:
    """A rule that calls a function again and again."""

    rule_arn: str
    period_s: float
    queue_url: str


class LocalStack:
    """The template's resources, and where their events go."""

    def __init__(self, names: StackNames, endpoint: str) -> None:
        """Read the template. Raises: WrongRequest without a checkout, or if the endpoint's name is invalid."""
        if not TEMPLATE.is_file():
            raise WrongRequest(f"{TEMPLATE}: not found; `viseme dev` runs in a checkout of the repository")
        pseudo = {
            "AWS::AccountId": ACCOUNT_ID,
            "AWS::Region": REGION,
            "AWS::Partition": "aws",
            "AWS::StackName": names.stack,
        }
        self.names = names
        self._template = StackTemplate(load_template(TEMPLATE), {"EndpointName": endpoint}, pseudo, names.values_of)
        self._resources = list(self._template.resources())
        self.functions = [self._function(one) for one in self._of_kind(FUNCTION)]
        self._queues_by_arn = {
            names.arn(FUNCTION, one.name): names.event_queue(one.name) for one in self.functions
        }  # of functions

    @property
    def deploy_command(self) -> str:
        """The command that creates the endpoint, an output of the template."""
        return self._template.output("DeployCommand")

    @property
    def tables(self) -> list[str]:
        return [self._name(one) for one in self._of_kind("AWS::DynamoDB::Table")]

    @property
    def queues(self) -> list[str]:
        """The names of the stack's queues, and of those with the events of functions."""
        return [self._name(one) for one in self._of_kind(QUEUE)] + list(self._queues_by_arn.values())

    @property
    def schedules(self) -> list[ScheduleSpec]:
        """The rules with a schedule. Raises: NotImplementedError for another kind of schedule than `rate`."""
        found = []
        for rule in self._of_kind("AWS::Events::Rule"):
            if (schedule := rule.properties.get("ScheduleExpression")) is None:
                continue
            if (match := SCHEDULE.fullmatch(schedule)) is None:
                raise NotImplementedError(f"{rule.name}: schedule {schedule!r}, expected rate(N minutes)")
            arn = self.names.values_of(rule.name, rule.kind).attributes["Arn"]
            for target in rule.properties["Targets"]:
                url = self.names.queue_url(self._queues_by_arn[target["Arn"]])
                found.append(ScheduleSpec(arn, 60.0 * int(match[1]), url))
        return found

    def create(self, aws: Aws) -> None:
        """Make the resources: first those that others name. Raises: CallFailed; NotImplementedError."""
        makers: dict[str, Callable[[Aws, StackResource], None]] = {
            "AWS::S3::Bucket": self._make_bucket,
            "AWS::DynamoDB::Table": self._make_table,
            QUEUE: self._make_queue,
            FUNCTION: self._make_event_queue,
            TOPIC: self._make_topic,
            "AWS::IAM::Role": self._make_role,
            "AWS::Logs::LogGroup": self._make_log_group,
            "AWS::ECR::Repository": self._make_repository,
            "AWS::SNS::Subscription": self._make_subscription,
            "AWS::Events::Rule": self._make_rule,
            "AWS::CloudWatch::Alarm": self._make_alarm,
        }
        unknown = {one.kind for one in self._resources} - makers.keys() - NOT_MADE
        if unknown:
            raise NotImplementedError(f"the template has resources that are not made here: {', '.join(unknown)}")
        for kind, make in makers.items():
            for resource in self._of_kind(kind):
                make(aws, resource)

    def _of_kind(self, kind: str) -> list[StackResource]:
        return [one for one in self._resources if one.kind == kind]

    def _name(self, resource: StackResource) -> str:
        return self.names.name_of(resource.name, resource.kind)

    def _function(self, resource: StackResource) -> FunctionSpec:
        properties, name = resource.properties, self._name(resource)
        return FunctionSpec(
            name=name,
            handler=properties["Handler"],
            code=(TEMPLATE.parent / properties["CodeUri"]).resolve(),
            timeout_s=float(properties["Timeout"]),
            variables={key: str(value) for key, value in properties["Environment"]["Variables"].items()},
            queue_url=self.names.queue_url(self.names.event_queue(name)),
            dead_letters=properties.get("DeadLetterQueue", {}).get("TargetArn"),
        )

    def _make_bucket(self, aws: Aws, resource: StackResource) -> None:
        name, properties = self._name(resource), resource.properties
        aws.call("s3", "CreateBucket", Bucket=name)
        if versioning := properties.get("VersioningConfiguration"):
            aws.call("s3", "PutBucketVersioning", Bucket=name, VersioningConfiguration=versioning)
        events = properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration", {})
        if events.get("EventBridgeEnabled"):
            notifications: Properties = {"EventBridgeConfiguration": {}}
            aws.call("s3", "PutBucketNotificationConfiguration", Bucket=name, NotificationConfiguration=notifications)

    def _make_table(self, aws: Aws, resource: StackResource) -> None:
        name, properties = self._name(resource), resource.properties
        shared = {key: properties[key] for key in ("BillingMode", "KeySchema", "AttributeDefinitions")}
        aws.call("dynamodb", "CreateTable", TableName=name, **shared)
        if lifetime := properties.get("TimeToLiveSpecification"):
            aws.call("dynamodb", "UpdateTimeToLive", TableName=name, TimeToLiveSpecification=lifetime)

    def _make_queue(self, aws: Aws, resource: StackResource) -> None:
        attributes = {key: str(value) for key, value in resource.properties.items() if key != "SqsManagedSseEnabled"}
        aws.call("sqs", "CreateQueue", QueueName=self._name(resource), Attributes=attributes)

    def _make_event_queue(self, aws: Aws, resource: StackResource) -> None:
        aws.call("sqs", "CreateQueue", QueueName=self.names.event_queue(self._name(resource)))

    def _make_topic(self, aws: Aws, resource: StackResource) -> None:
        aws.call("sns", "CreateTopic", Name=self._name(resource))

    def _make_role(self, aws: Aws, resource: StackResource) -> None:
        name, properties = self._name(resource), resource.properties
        trust = json.dumps(properties["AssumeRolePolicyDocument"])
        aws.call("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=trust)
        for policy in properties["Policies"]:
            document = json.dumps(policy["PolicyDocument"])
            aws.call("iam", "PutRolePolicy", RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)

    def _make_log_group(self, aws: Aws, resource: StackResource) -> None:
        name, days = resource.properties["LogGroupName"], int(resource.properties["RetentionInDays"])
        aws.call("logs", "CreateLogGroup", logGroupName=name)
        aws.call("logs", "PutRetentionPolicy", logGroupName=name, retentionInDays=days)

    def _make_repository(self, aws: Aws, resource: StackResource) -> None:
        aws.call("ecr", "CreateRepository", repositoryName=self._name(resource))

    def _make_subscription(self, aws: Aws, resource: StackResource) -> None:
        queue = self._queues_by_arn[resource.properties["Endpoint"]]
        arn = self.names.arn(QUEUE, queue)
        aws.call("sns", "Subscribe", TopicArn=resource.properties["TopicArn"], Protocol="sqs", Endpoint=arn)

    def _make_rule(self, aws: Aws, resource: StackResource) -> None:
        name, properties = self._name(resource), resource.properties
        when: Properties = {key: properties[key] for key in ("Description", "ScheduleExpression") if key in properties}
        if pattern := properties.get("EventPattern"):
            when["EventPattern"] = json.dumps(pattern)
        aws.call("events", "PutRule", Name=name, **when)
        targets = [
            {"Id": one["Id"], "Arn": self.names.arn(QUEUE, self._queues_by_arn[one["Arn"]])}
            for one in properties["Targets"]
        ]
        aws.call("events", "PutTargets", Rule=name, Targets=targets)

    def _make_alarm(self, aws: Aws, resource: StackResource) -> None:
        aws.call("cloudwatch", "PutMetricAlarm", AlarmName=self._name(resource), **resource.properties)
