"""Events on their way to functions, as Lambda delivers them: at least once, twice again if the function fails.

Source: AWS Lambda developer guide, "Asynchronous invocation" (two retries, after one and two minutes; the event then
goes to the dead-letter queue, with ErrorMessage as an attribute) and "Using Lambda with Amazon SNS" (form of the
event); Amazon EventBridge user guide, "Schedules" (form of the event). A message that is no event, which can only be
one that was put into the queue by hand, is a dead letter at once: Lambda's Invoke rejects what is not JSON.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from deploy.aws import Aws
from deploy.dev.functions import FunctionFailed, LocalFunction
from deploy.dev.stack import ACCOUNT_ID, REGION, ScheduleSpec
from deploy.errors import DeployError

logger = logging.getLogger("viseme.dev")
RETRY_DELAYS_S = (60, 120)
MAX_POLL_S = 5.0  # between two looks at a queue if nothing wakes its pump: for messages that are due again
LEASE_MARGIN_S = 30
Event = dict[str, Any]


class InvalidEvent(Exception):
    """A queue's message is no event."""


class Wakeup:
    """Wakes the threads that wait for messages. Each waits for what was sent after its own last look."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self.is_stopped = False

    def notify(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def stop(self) -> None:
        self.is_stopped = True
        self.notify()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until there was a notification after `seen`; return their number."""
        with self._condition:
            self._condition.wait_for(lambda: self._count > seen or self.is_stopped, timeout_s)
            return self._count


class EventPump(threading.Thread):
    """Takes the events of a function from their queue and calls it."""

    def __init__(self, aws: Aws, function: LocalFunction, wakeup: Wakeup) -> None:
        super().__init__(name=f"pump of {function.spec.name}", daemon=True)
        self._aws, self._function, self._wakeup = aws, function, wakeup

    def run(self) -> None:
        seen = 0
        while not self._wakeup.is_stopped:
            seen = self._wakeup.wait(seen, MAX_POLL_S)
            try:
                while not self._wakeup.is_stopped and self.deliver_next():
                    pass
            except Exception:  # of SQS: the message stays, and is delivered again
                logger.exception("%s", self.name)

    def deliver_next(self) -> bool:
        """Call the function with one event; return whether there was one."""
        spec = self._function.spec
        found = self._aws.call(
            "sqs",
            "ReceiveMessage",
            QueueUrl=spec.queue_url,
            MaxNumberOfMessages=1,
            VisibilityTimeout=int(spec.timeout_s) + LEASE_MARGIN_S,
            AttributeNames=["ApproximateReceiveCount"],
        )
        messages = found.get("Messages", [])
        if not messages:
            return False
        [message] = messages
        try:
            event = parse_event(message["Body"])
        except InvalidEvent as err:
            logger.warning("%s: a message is no event, and in the dead-letter queue: %s", spec.name, err)
            self._give_up(message["Body"], f"InvalidRequestContentException: {err}")
        else:
            if not self._deliver(event, message):
                return not self._wakeup.is_stopped
        self._call("DeleteMessage", message)
        return True

    def _deliver(self, event: Event, message: Event) -> bool:
        """Call the function; return whether the message is done with."""
        spec, n_attempts = self._function.spec, int(message["Attributes"]["ApproximateReceiveCount"])
        try:
            self._function.invoke(event)
        except FunctionFailed as err:
            if self._wakeup.is_stopped:
                return False  # its process was ended
            if n_attempts <= len(RETRY_DELAYS_S):
                delay_s = RETRY_DELAYS_S[n_attempts - 1]
                logger.warning("%s failed and is called again in %s s: %s", spec.name, delay_s, err)
                self._call("ChangeMessageVisibility", message, VisibilityTimeout=delay_s)
                return False
            logger.warning("%s failed, and its event is in the dead-letter queue: %s", spec.name, err)
            self._give_up(json.dumps(event), str(err))
        return True

    def _call(self, operation: str, message: Event, **parameters: Any) -> None:
        url = self._function.spec.queue_url
        self._aws.call("sqs", operation, QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], **parameters)

    def _give_up(self, body: str, reason: str) -> None:
        """Put an event into the dead-letter queue."""
        spec = self._function.spec
        if spec.dead_letters is None:
            return
        url = f"{spec.queue_url.rpartition('/')[0]}/{spec.dead_letters.rpartition(':')[2]}"
        attributes = {"ErrorMessage": {"DataType": "String", "StringValue": reason[:1000]}}
        self._aws.call("sqs", "SendMessage", QueueUrl=url, MessageBody=body, MessageAttributes=attributes)


class Scheduler(threading.Thread):
    """Sends the event of a schedule to its function's queue, again and again."""

    def __init__(self, aws: Aws, schedule: ScheduleSpec, wakeup: Wakeup) -> None:
        super().__init__(name=f"schedule of {schedule.rule_arn}", daemon=True)
        self._aws, self._schedule, self._wakeup = aws, schedule, wakeup

    def run(self) -> None:
        seen, due_at = 0, time.monotonic() + self._schedule.period_s
        while not self._wakeup.is_stopped:
            seen = self._wakeup.wait(seen, max(0.0, due_at - time.monotonic()))
            if self._wakeup.is_stopped or time.monotonic() < due_at:
                continue
            due_at += self._schedule.period_s
            body = json.dumps(scheduled_event(self._schedule.rule_arn, datetime.now(UTC)))
            try:
                self._aws.call("sqs", "SendMessage", QueueUrl=self._schedule.queue_url, MessageBody=body)
            except DeployError:
                logger.exception("%s", self.name)


def parse_event(text: str) -> Event:
    """Return the event of a queue's message. Raises: InvalidEvent."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidEvent(f"the message is not JSON: {err}") from err
    if not isinstance(body, dict):
        raise InvalidEvent(f"the message is a JSON {type(body).__name__}, expected an object")
    return event_of(body)


def event_of(body: Event) -> Event:
    """Return a queue's message as the event that Lambda gets: SNS's messages are wrapped in records."""
    if body.get("Type") != "Notification":
        return body
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": body.get("TopicArn"),
        "Sns": body,
    }
    return {"Records": [record]}


def scheduled_event(rule_arn: str, now: datetime) -> Event:
    """Return the event of a rule with a schedule."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [rule_arn],
        "detail": {},
    }
