"""What is added to moto for `viseme dev`; tests/deploy/dev/test_account.py has the rest."""

from __future__ import annotations

import threading

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.sqs.models import Message
from support.moto_sagemaker import complete_sagemaker

from deploy.dev.moto_account import delete_message, find_endpoint_config, queues
from deploy.dev.stack import REGION


def test_no_message_is_added_while_another_is_deleted(moto: None, monkeypatch: pytest.MonkeyPatch):
    sqs = boto3.client("sqs", region_name=REGION)
    url = sqs.create_queue(QueueName="events")["QueueUrl"]
    for body in ("first", "second"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    [first] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
    queue, known, could_add = queues()["events"], Message.had_receipt_handle, []

    def try_lock() -> None:
        could_add.append(queue._messages_lock.acquire(blocking=False))

    def had_receipt_handle(message: Message, receipt_handle: str) -> bool:
        other = threading.Thread(target=try_lock)
        other.start()
        other.join()
        return bool(known(message, receipt_handle))

    monkeypatch.setattr(Message, "had_receipt_handle", had_receipt_handle)
    delete_message(queue, first["ReceiptHandle"])
    assert could_add
    assert not any(could_add)
    assert [message.body for message in queue._messages] == ["second"]


def test_an_endpoint_outlives_its_configuration(moto: None, monkeypatch: pytest.MonkeyPatch):
    complete_sagemaker(monkeypatch)
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    role = "arn:aws:iam::123456789012:role/r"
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"})

    def create_config(name: str, bucket: str) -> None:
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.c7i.xlarge", "InitialInstanceCount": 1}
        output = {"OutputConfig": {"S3OutputPath": f"s3://{bucket}"}}
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[variant], AsyncInferenceConfig=output
        )

    def output_path() -> str:
        found = sagemaker.describe_endpoint(EndpointName="e")["AsyncInferenceConfig"]
        assert find_endpoint_config("e").async_inference_config == found
        path: str = found["OutputConfig"]["S3OutputPath"]
        return path

    create_config("one", "first")
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="one")
    sagemaker.delete_endpoint_config(EndpointConfigName="one")
    assert output_path() == "s3://first"
    create_config("one", "second")  # another of that name: the endpoint is served by the first one
    assert output_path() == "s3://first"
    sagemaker.delete_endpoint_config(EndpointConfigName="one")
    assert output_path() == "s3://first"
    create_config("one", "third")
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="one")
    assert output_path() == "s3://third"
    with pytest.raises(ClientError, match=r'ValidationException.*Could not find endpoint ".*:endpoint/none"'):
        sagemaker.update_endpoint(EndpointName="none", EndpointConfigName="one")
    with pytest.raises(ClientError, match=r'ValidationException.*Could not find endpoint configuration ".*/two"'):
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="two")
