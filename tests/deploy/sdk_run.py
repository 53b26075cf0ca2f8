"""Run by a test in the environment of SageMaker's SDK: every call that a command makes to AWS, as JSON.

Arguments: the file for them, the module, then its own. Nothing leaves the machine: each call is answered here, as if
all went well.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session

Call = dict[str, Any]


class Recorder:
    """Stands where the network is, in every session that is made."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def listen(self, session: Any) -> Any:
        session.register("before-parameter-build", self.note)
        session.register("before-call", self.answer)
        return session

    def note(self, params: Call, model: Any, **_: Any) -> None:
        self.calls.append({"operation": model.name, "parameters": dict(params)})

    def answer(self, model: Any, **_: Any) -> Any:
        """In place of what AWS would answer."""
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
            "CreateEndpoint": {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"},
        }
        return SimpleNamespace(status_code=200), found.get(name, {})


class Clock(datetime):
    """The same version whichever way."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 11, 20, 13, 15, 0, tzinfo=UTC)


def main() -> int:
    recorder = Recorder()
    make_session = botocore.session.get_session
    botocore.session.get_session = lambda *given: recorder.listen(make_session(*given))
    module = importlib.import_module(sys.argv[2])
    module.datetime = Clock  # type: ignore[attr-defined]
    status: int = module.main(sys.argv[3:])
    Path(sys.argv[1]).write_text(json.dumps(recorder.calls))
    return status


if __name__ == "__main__":
    sys.exit(main())
