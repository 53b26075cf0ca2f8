"""SageMaker Runtime's own routes, so that the AWS CLI and SDKs talk to a local server as to an endpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from container.app import Server


def aws_routes(server: Server) -> list[Route]:
    """`POST /endpoints/NAME/invocations`, whatever the name."""

    async def invoke(request: Request) -> Response:
        response = await server.serve("invocations", request)
        return as_model_error(response) if response.status_code >= 400 else response

    return [Route("/endpoints/{name}/invocations", invoke, methods=["POST"])]


def as_model_error(response: Response) -> Response:
    """A container's error as SageMaker Runtime passes it on: 424 with the original inside."""
    original = bytes(response.body).decode()
    body = {
        "Message": f'Received client error ({response.status_code}) from model with message "{original}".',
        "OriginalStatusCode": response.status_code,
        "OriginalMessage": original,
        "LogStreamArn": "",
    }
    headers = {"x-amzn-errortype": "ModelError", "content-type": "application/json"}
    return type(response)(json.dumps(body), 424, headers=headers | {"x-request-id": response.headers["x-request-id"]})
