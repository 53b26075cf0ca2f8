"""AWS for the deployment tests: moto, or a script of expected calls that rejects any other."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.stub import Stubber
from moto import mock_aws
from moto.sagemaker.models import FakeEndpointConfig
from support.environments import environment
from support.service_models import shared_loader  # noqa: F401 - a fixture of every test here
from support.stock_layer import Layer

from deploy import endpoint, waiting
from deploy.aws import BotoAws
from deploy.package import build_archive

REGION = "us-east-1"
NOW = datetime(2026, 11, 20, 13, 15, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set fake credentials, so that no test can reach a real account."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", REGION)


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # moto's list of instance types is years old.
    monkeypatch.setattr(FakeEndpointConfig, "validate_instance_type", lambda self, instance_type: None)
    with mock_aws():
        yield


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing, and use the same version name every time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW

    monkeypatch.setattr(endpoint, "datetime", Clock)
    monkeypatch.setattr(endpoint, "WaitPolicy", lambda: waiting.WaitPolicy(poll_s=0, timeout_s=5, sleep=lambda _: None))


@pytest.fixture(autouse=True)
def sound_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every image as one that SageMaker accepts; test_image_manifest.py looks at them."""
    monkeypatch.setattr(endpoint, "check_image", lambda aws, uri, region: None)


class Script:
    """AWS as a list of expected calls in order, with exact parameters, and their answers."""

    def __init__(self) -> None:
        self.aws = BotoAws(REGION)
        self._stubs: dict[str, Stubber] = {}

    def _stub(self, service: str) -> Stubber:
        if service not in self._stubs:
            self._stubs[service] = Stubber(self.aws.client(service))
            self._stubs[service].activate()
        return self._stubs[service]

    def expect(self, service: str, operation: str, parameters: dict, answer: dict | None = None) -> None:
        self._stub(service).add_response(xform_name(operation), answer or {}, parameters)

    def refuse(
        self, service: str, operation: str, code: str, message: str = "", parameters: dict | None = None, **fields
    ) -> None:
        """Expect a call and refuse it. fields: further ones of the error, such as OriginalStatusCode."""
        self._stub(service).add_client_error(
            xform_name(operation), code, message, expected_params=parameters, modeled_fields=fields or None
        )

    def done(self) -> None:
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(endpoint, "BotoAws", lambda region: script.aws)
    return script


@pytest.fixture
def sdk_python() -> Path:
    """Return the Python with SageMaker's SDK, whose requirements conflict with ours."""
    return environment("sagemaker-sdk")


@pytest.fixture(scope="session")
def stock_python() -> Path:
    """Return the Python with the stock image's packages, pinned."""
    return environment("stock-image")


@pytest.fixture(scope="session")
def archive(weights_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.tar.gz"
    build_archive(path)
    return path


@pytest.fixture(scope="session")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt") / "model"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def bare(stock_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Layer:
    """Return an empty layer on top of the stock image's packages."""
    return Layer.on_top_of(stock_python, tmp_path_factory.mktemp("stock") / "layer")


@pytest.fixture(scope="session")
def stock(bare: Layer, unpacked: Path) -> tuple[Layer, dict[str, tuple[str, str]]]:
    """Install the archive's requirements with the existing versions as constraints; return also what existed before."""
    before = bare.installed()
    frozen = bare.site_packages.parents[2] / "frozen.txt"
    frozen.write_text("".join(f"{name}=={version}\n" for name, (version, _) in before.items()))
    command = [str(bare.python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    command += ["-r", str(unpacked / "code" / "requirements.txt"), "-c", str(frozen)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    return bare, before
