"""`python -m deploy.image`: ECR by moto, Docker by an executable that records what it is asked for.

The names of Docker's options are those of `docker buildx build`, `docker login` and BuildKit's exporter "image" in
Docker's documentation. No image is built here: `python -m bench.image_check` builds the Dockerfile.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import boto3
import pytest

from deploy import image
from deploy.image_manifest import DOCKER_MANIFEST, OCI_INDEX

REGION = "us-east-1"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"  # of moto's account
# Records arguments and stdin of each call as a JSON line. PUSHES: media type of the manifest that a build pushes.
DOCKER = """#!{python}
import json, os, sys
with open({record!r}, "a") as file:
    stdin = "" if sys.argv[1] == "buildx" else sys.stdin.read()
    file.write(json.dumps([sys.argv[1:], stdin]) + "\\n")
print("output of Docker")
sys.exit(int(os.environ.get("FAILS", "0")) if os.environ.get("FAILS_AT") in sys.argv else 0)
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the executable first on PATH; return the file it writes to."""
    record = tmp_path / "calls.jsonl"
    executable = tmp_path / "bin" / "docker"
    executable.parent.mkdir()
    executable.write_text(DOCKER.format(python=sys.executable, record=str(record)))
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{executable.parent}:{os.environ['PATH']}")
    return record


def calls(record: Path) -> list[tuple[list[str], str]]:
    return [(words, stdin) for words, stdin in map(json.loads, record.read_text().splitlines())]


@pytest.fixture
def pushes(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes the next build push a manifest of this media type into moto's ECR."""
    run_docker = image.run_docker

    def arm(media_type: str) -> None:
        def run_and_push(command: list[str], stdin: str = "") -> None:
            run_docker(command, stdin)
            if command[1:3] == ["buildx", "build"]:
                uri = command[command.index("--output") + 1].split(",")[1].removeprefix("name=")
                name, _, tag = uri.partition("/")[2].rpartition(":")
                text = json.dumps(
                    {
                        "mediaType": media_type,
                        "config": {"digest": tag},
                        "layers": [{"digest": tag, "size": 2_500_000_000}],
                    }
                )
                boto3.client("ecr", region_name=REGION).put_image(
                    repositoryName=name, imageManifest=text, imageManifestMediaType=media_type, imageTag=tag
                )

        monkeypatch.setattr(image, "run_docker", run_and_push)

    return arm


@pytest.mark.usefixtures("moto")
def test_it_builds_pushes_and_prints_the_uri(docker: Path, pushes, capfd: pytest.CaptureFixture[str]):
    pushes(DOCKER_MANIFEST)
    assert image.main(["--region", REGION, "--tag", "1.0", "--variant", "cpu"]) == 0
    out, err = capfd.readouterr()
    uri = f"{REGISTRY}/viseme:1.0"
    assert out == f"{uri}\n"
    assert "output of Docker" in err
    assert "2.50 GB compressed" in err
    [version, login, build] = calls(docker)
    assert version[0] == ["buildx", "version"]
    assert login[0] == ["login", "--username", "AWS", "--password-stdin", REGISTRY]
    assert build[0] == [
        *("buildx", "build", "--platform", "linux/amd64", "--provenance=false", "--sbom=false"),
        *("--output", f"type=image,name={uri},push=true,oci-mediatypes=false", "--build-arg", "WITH_TORCH=no"),
        *("--file", str(image.ROOT / "container" / "Dockerfile"), str(image.ROOT)),
    ]


@pytest.mark.usefixtures("moto")
def test_the_password_goes_through_stdin(docker: Path, pushes):
    """moto's token is base64 of AWS:ACCOUNT-auth-token, as AWS's is of AWS:PASSWORD."""
    pushes(DOCKER_MANIFEST)
    assert image.main(["--region", REGION]) == 0
    [(_, _), (_, password), (_, _)] = calls(docker)
    assert password == "123456789012-auth-token"
    assert all(password not in word for words, _ in calls(docker) for word in words)


@pytest.mark.usefixtures("moto")
def test_the_repository_is_created_once(docker: Path, pushes):
    pushes(DOCKER_MANIFEST)
    for tag in ("1", "2"):
        assert image.main(["--region", REGION, "--repository", "team/lips", "--tag", tag]) == 0
    ecr = boto3.client("ecr", region_name=REGION)
    [found] = ecr.describe_repositories()["repositories"]
    assert found["repositoryName"] == "team/lips"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]


@pytest.mark.usefixtures("moto")
def test_a_manifest_that_sagemaker_refuses_fails(docker: Path, pushes, capfd: pytest.CaptureFixture[str]):
    """Such as from a Docker that ignores oci-mediatypes."""
    pushes(OCI_INDEX)
    assert image.main(["--region", REGION, "--tag", "1.0"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert f"its manifest is {OCI_INDEX}, which SageMaker refuses" in err


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize(("step", "n_calls"), [("version", 1), ("login", 2), ("build", 3)])
def test_a_failure_of_docker_ends_it(docker: Path, monkeypatch, capfd, step: str, n_calls: int):
    monkeypatch.setenv("FAILS", "17")
    monkeypatch.setenv("FAILS_AT", step)
    assert image.main(["--region", REGION]) == 1
    assert len(calls(docker)) == n_calls
    assert "exit code 17" in capfd.readouterr().err
    repositories = boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"]
    assert bool(repositories) == (step != "version")  # nothing is created for nothing


@pytest.mark.usefixtures("moto")
def test_without_docker_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert image.main(["--region", REGION]) == 1
    assert "install Docker with its plugin buildx" in capfd.readouterr().err


def test_a_dry_run_prints_calls_and_commands(docker: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    conf = tmp_path / "pip.conf"
    conf.touch()
    arguments = ["--region", "eu-west-1", "--dry-run", "--tag", "1", "--build-arg", "BASE_IMAGE=mine:1"]
    assert image.main([*arguments, "--pip-conf", str(conf)]) == 0
    *lines, uri = capfd.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one.get("operation") or one["command"][1] for one in found] == [
        *("DescribeRepositories", "CreateRepository", "GetAuthorizationToken", "login", "buildx", "BatchGetImage")
    ]
    build = found[4]["command"]
    assert build[9:13] == ["--build-arg", "WITH_TORCH=yes", "--build-arg", "BASE_IMAGE=mine:1"]
    assert build[build.index("--secret") + 1] == f"id=pip,src={conf}"
    assert uri == "000000000000.dkr.ecr.eu-west-1.amazonaws.com/viseme:1"
    assert not docker.exists()


def test_the_region_of_the_profile(tmp_path: Path, docker: Path, monkeypatch, capfd):
    config = tmp_path / "config"
    config.write_text("[profile lips]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "")  # so that it is restored
    assert image.main(["--profile", "lips", "--dry-run"]) == 0
    assert ".ap-south-1." in capfd.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repository", "Viseme"], "--repository Viseme: expected lower-case words"),
        (["--tag", "a b"], "--tag a b: expected"),
        (["--build-arg", "BASE_IMAGE"], "--build-arg BASE_IMAGE: expected NAME=VALUE"),
        (["--pip-conf", "/nowhere/pip.conf"], "--pip-conf /nowhere/pip.conf: no such file"),
    ],
)
def test_wrong_arguments(docker: Path, capfd, arguments: list[str], message: str):
    assert image.main(["--region", REGION, *arguments]) == 2
    assert message in capfd.readouterr().err
    assert not docker.exists()
