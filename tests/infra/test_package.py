"""The README's command packs functions that Lambda can import. Run by the real AWS CLI, with moto's S3."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.aws_cli import require_cli

from deploy.dev.template import load_template

ROOT = Path(__file__).parents[2]
README = (ROOT / "infra" / "README.md").read_text("utf-8").replace("\\\n", "")
FUNCTIONS = ("InvokeEndpoint", "OnResult", "UploadUrl")


@pytest.fixture
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.mark.parametrize("major", [1, 2])
def test_the_packed_functions_can_be_imported(major: int, s3_url: str, tmp_path: Path):
    cli = require_cli(major)
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = os.environ | keys | {"AWS_ENDPOINT_URL": s3_url}
    s3 = boto3.client(
        "s3", "us-east-1", endpoint_url=s3_url, aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    s3.create_bucket(Bucket="code")
    packaged = tmp_path / "packaged.yaml"
    [line] = re.findall(r"^ *(aws cloudformation package .*)$", README, re.MULTILINE)
    command = shlex.split(line.replace("CODE_BUCKET", "code").replace("packaged.yaml", str(packaged)))
    run = subprocess.run(
        [str(cli), *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    resources = load_template(packaged)["Resources"]
    for name in FUNCTIONS:
        found = resources[name]["Properties"]
        code = tmp_path / name
        s3.download_file("code", found["CodeUri"].removeprefix("s3://code/"), f"{code}.zip")
        shutil.unpack_archive(f"{code}.zip", code)
        module, function = found["Handler"].rsplit(".", 1)
        # As Lambda's runtime does it: the folder first on the path, then the handler's module.
        script = f"import importlib; print(callable(importlib.import_module({module!r}).{function}))"
        packages = json.dumps([path for path in sys.path if path.endswith("site-packages")])
        start = f"import sys; sys.path[:0] = [{str(code)!r}]; sys.path.extend({packages}); {script}"
        imported = subprocess.run(
            [sys.executable, "-I", "-c", start], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert imported.stdout.strip() == "True", imported.stderr
