"""Records every call that a command makes to AWS, as JSON. A test runs it in the environment of SageMaker's SDK.

Arguments: the output file, the module, then the module's own arguments. Nothing leaves the machine: each call is
answered here as if it succeeded.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session

from deploy.smoke_test import canned_answer

Call = dict[str, Any]


class Recorder:
    """Replaces the network in every botocore session."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def attach(self, session: Any) -> Any:
        session.register("before-parameter-build", self.record)
        session.register("before-call", self.answer)
        return session

    def record(self, params: Call, model: Any, **_: Any) -> None:
        self.calls.append({"operation": model.name, "parameters": dict(params)})

    def answer(self, model: Any, **_: Any) -> Any:
        """Answer in place of AWS."""
        name = model.name
        if name == "DescribeEndpoint" and not any(one["operation"] == "CreateEndpoint" for one in self.calls):
            error = {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint."}}
            return SimpleNamespace(status_code=400), error
        config = next((one for one in self.calls if one["operation"] == "CreateEndpointConfig"), None)
        found = {
            "DescribeEndpoint": {
                "EndpointStatus": "InService",
                "EndpointConfigName": config and config["parameters"]["EndpointConfigName"],
            },
            "CreateModel": {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/x"},
            "InvokeEndpoint": {"Body": io.BytesIO(json.dumps(canned_answer()).encode())},
            "CreateEndpoint": {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"},
        }
        return SimpleNamespace(status_code=200), found.get(name, {})


class Clock(datetime):
    """A fixed clock, so that both commands create the same version."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 11, 20, 13, 15, 0, tzinfo=UTC)


def main() -> int:
    recorder = Recorder()
    make_session = botocore.session.get_session
    botocore.session.get_session = lambda *args: recorder.attach(make_session(*args))
    module = importlib.import_module(sys.argv[2])
    module.datetime = Clock  # type: ignore[attr-defined]
    status: int = module.main(sys.argv[3:])
    Path(sys.argv[1]).write_text(json.dumps(recorder.calls, default=lambda body: f"{len(body)} bytes"))
    return status


if __name__ == "__main__":
    sys.exit(main())
