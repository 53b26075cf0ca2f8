"""What is added to moto for `viseme dev`; tests/deploy/dev/test_account.py has the rest."""

from __future__ import annotations

import threading

import boto3
import pytest
from moto.sqs.models import Message

from deploy.dev.moto_account import delete_message, queues
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
