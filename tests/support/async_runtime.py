"""SageMaker Runtime's asynchronous side over a local container: a stand-in for AWS.

Source: the operation InvokeEndpointAsync in botocore's service model (path, headers, status 202), and AWS's developer
guide on asynchronous inference: the input is read from S3 and sent to the container's /invocations; its answer is
written to the output folder as ID.out, that of a failed request to the failure folder.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlparse

import httpx

from support.quiet_http import serving

CONTAINER_TIMEOUT_S = 300.0


@contextmanager
def async_runtime(container_url: str, s3: Any, output: str, failure: str) -> Iterator[str]:
    """Yield the URL of the runtime. output, failure: S3 folders, as in an endpoint's configuration."""

    class Runtime(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            assert self.path.endswith("/async-invocations")
            given = {name.lower(): value for name, value in self.headers.items()}
            source = urlparse(given["x-amzn-sagemaker-inputlocation"])
            name = f"{uuid.uuid4()}.out"
            work = (source.netloc, source.path.lstrip("/"), given, name)
            threading.Thread(target=process, args=work).start()
            body = json.dumps({"InferenceId": name}).encode()
            self.send_response(202)
            self.send_header("X-Amzn-SageMaker-OutputLocation", output + name)
            self.send_header("X-Amzn-SageMaker-FailureLocation", failure + name)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def process(bucket: str, key: str, given: dict[str, str], name: str) -> None:
        contents = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        headers = {
            "content-type": given["x-amzn-sagemaker-content-type"],
            "accept": given["x-amzn-sagemaker-accept"],
        }
        url = f"{container_url}/invocations"
        reply = httpx.post(url, content=contents, headers=headers, timeout=CONTAINER_TIMEOUT_S, trust_env=False)
        folder = urlparse(output if reply.status_code == 200 else failure)
        s3.put_object(Bucket=folder.netloc, Key=folder.path.lstrip("/") + name, Body=reply.content)

    with serving(Runtime) as url:
        yield url
