"""Build Viseme's image as SageMaker needs it, push it to ECR, check what arrived, and print its URI.

The image is built by Docker on this machine, for linux/amd64. Progress goes to stderr, the URI alone to stdout.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploy.aws import Answer, Aws, BotoAws, DryRunAws
from deploy.command import run_command
from deploy.errors import CallFailed, DeployError, WrongRequest
from deploy.image_manifest import EcrImage, ImageManifest, canned_image, read_manifest
from deploy.region import REGION_HELP, choose_region
from deploy.waiting import write_stderr

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "container" / "Dockerfile"
PLATFORM = "linux/amd64"  # of SageMaker's instances; on a Mac Docker would build for arm64
# Build arguments of the Dockerfile.
VARIANTS = {"gpu": {"WITH_TORCH": "yes"}, "cpu": {"WITH_TORCH": "no"}}
REPOSITORY_PATTERN = re.compile(r"(?=.{2,256}$)[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*")  # of ECR
TAG_PATTERN = re.compile(r"\w[\w.-]{0,127}", re.ASCII)  # of Docker
CANNED_REGISTRY = "000000000000.dkr.ecr.{region}.amazonaws.com"  # in a dry run


@dataclass(frozen=True)
class ImageBuild:
    """What to build. arguments: the Dockerfile's; pip_conf: pip's settings, which stay out of the image."""

    repository: str
    tag: str
    arguments: dict[str, str] = field(default_factory=dict)
    pip_conf: Path | None = None

    def command(self, uri: str) -> list[str]:
        """Return Docker's command, which builds the image and pushes it.

        One manifest of Docker's media type: without the attestations that would make it an index, and without OCI's
        types. Source: `docker buildx build` in Docker's documentation, and BuildKit's exporter "image".
        """
        options = ["--platform", PLATFORM, "--provenance=false", "--sbom=false"]
        options += ["--output", f"type=image,name={uri},push=true,oci-mediatypes=false"]
        for name, value in self.arguments.items():
            options += ["--build-arg", f"{name}={value}"]
        if self.pip_conf:
            options += ["--secret", f"id=pip,src={self.pip_conf}"]
        return ["docker", "buildx", "build", *options, "--file", str(DOCKERFILE), str(ROOT)]


class Docker:
    """Docker's command line on this machine."""

    def check(self) -> None:
        """Raise DeployError if Docker or its plugin buildx is missing."""
        run_docker(["docker", "buildx", "version"])

    def log_in(self, registry: str, user: str, password: str) -> None:
        """Log in to a registry. The password goes through stdin: other users can read command lines."""
        run_docker(["docker", "login", "--username", user, "--password-stdin", registry], password)

    def build(self, command: list[str]) -> None:
        run_docker(command)


class DryRunDocker(Docker):
    """Prints the commands as JSON lines and runs none."""

    def check(self) -> None: ...

    def log_in(self, registry: str, user: str, password: str) -> None:  # noqa: ARG002 - it is not printed
        print_command(["docker", "login", "--username", user, "--password-stdin", registry])

    def build(self, command: list[str]) -> None:
        print_command(command)


def print_command(command: list[str]) -> None:
    sys.stdout.write(json.dumps({"command": command}) + "\n")


def run_docker(command: list[str], stdin: str = "") -> None:
    """Run Docker; its output goes to stderr. Raises: DeployError if it is missing or fails."""
    shown = shlex.join(command[:3])
    try:
        run = subprocess.run(command, input=stdin, text=True, stdout=sys.stderr.fileno(), check=False)
    except OSError as err:
        raise DeployError(f"{shown}: {err.strerror or err}; install Docker with its plugin buildx") from err
    if run.returncode:
        hint = "; install Docker's plugin buildx" if command[2:] == ["version"] else ""
        raise DeployError(f"{shown}: exit code {run.returncode}; its output is above{hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = make_parser().parse_args(arguments)
    return run_command("deploy.image", lambda: run(args), "stopped; what was pushed stays")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__, allow_abbrev=False)
    parser.add_argument("--variant", choices=tuple(VARIANTS), default="gpu", help="cpu: without torch; default: gpu")
    parser.add_argument("--repository", default="viseme", metavar="NAME", help="created if missing; default: viseme")
    parser.add_argument("--tag", help="default: the UTC time and the variant, such as 20261120131500-gpu")
    parser.add_argument("--region", help=REGION_HELP)
    parser.add_argument("--profile", help="of the AWS configuration; default: AWS_PROFILE, else default")
    parser.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of container/Dockerfile, such as BASE_IMAGE=...; repeatable",
    )
    parser.add_argument(
        "--pip-conf", type=Path, metavar="FILE", help="pip's settings during the build, such as an index"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the calls and commands as JSON lines, run none")
    return parser


def run(args: argparse.Namespace) -> None:
    build = make_build(args, datetime.now(UTC))
    if args.profile:
        os.environ["AWS_PROFILE"] = args.profile  # read by boto3, and by ECR's credential helper for Docker
    region = choose_region(args.region)
    aws: Aws = DryRunAws(sys.stdout, make_canned_answers(region, build.repository)) if args.dry_run else BotoAws(region)
    docker = DryRunDocker() if args.dry_run else Docker()
    docker.check()
    repository = ensure_repository(aws, build.repository)
    uri = f"{repository}:{build.tag}"
    log_in(aws, docker, repository)
    write_stderr(f"{uri}: building for {PLATFORM}")
    docker.build(build.command(uri))
    manifest = check_pushed(aws, uri)
    size = f", {manifest.n_bytes / 1e9:.2f} GB compressed" if manifest.n_bytes else ""
    write_stderr(f"{uri}: pushed{size}; deploy it with python -m deploy.endpoint --image-uri")
    sys.stdout.write(f"{uri}\n")


def make_build(args: argparse.Namespace, now: datetime) -> ImageBuild:
    """Return what the arguments describe. Raises: WrongRequest."""
    tag = args.tag or f"{now:%Y%m%d%H%M%S}-{args.variant}"
    if not REPOSITORY_PATTERN.fullmatch(args.repository):
        raise WrongRequest(f"--repository {args.repository}: expected lower-case words such as team/viseme")
    if not TAG_PATTERN.fullmatch(tag):
        raise WrongRequest(f"--tag {tag}: expected up to 128 letters, digits, dots and hyphens")
    if args.pip_conf and not args.pip_conf.is_file():
        raise WrongRequest(f"--pip-conf {args.pip_conf}: no such file")
    given = dict(split_argument(text) for text in args.build_arg)
    return ImageBuild(args.repository, tag, VARIANTS[args.variant] | given, args.pip_conf)


def split_argument(text: str) -> tuple[str, str]:
    name, is_set, value = text.partition("=")
    if not name or not is_set:
        raise WrongRequest(f"--build-arg {text}: expected NAME=VALUE")
    return name, value


def make_canned_answers(region: str, repository: str) -> dict[str, Answer]:
    """Return what AWS is assumed to answer in a dry run: the repository is missing, the image arrives as it should."""
    registry = CANNED_REGISTRY.format(region=region)
    missing = {"Code": "RepositoryNotFoundException", "Message": "the repository is assumed to be missing"}
    token = base64.b64encode(b"AWS:known-after-the-call").decode()
    return {
        "DescribeRepositories": {"Error": missing},
        "CreateRepository": {"repository": {"repositoryUri": f"{registry}/{repository}"}},
        "GetAuthorizationToken": {"authorizationData": [{"authorizationToken": token}]},
        "BatchGetImage": canned_image(),
    }


def ensure_repository(aws: Aws, name: str) -> str:
    """Return the repository's URI. If it does not exist, create it: private, encrypted, scanned on push."""
    try:
        found = aws.call("ecr", "DescribeRepositories", repositoryNames=[name])["repositories"][0]
    except CallFailed as err:
        if err.code != "RepositoryNotFoundException":
            raise
        found = aws.call(
            "ecr",
            "CreateRepository",
            repositoryName=name,
            imageTagMutability="IMMUTABLE",  # an endpoint that scales out must get the image that it was made with
            imageScanningConfiguration={"scanOnPush": True},
            tags=[{"Key": "viseme", "Value": "image"}],
        )["repository"]
    return str(found["repositoryUri"])


def log_in(aws: Aws, docker: Docker, repository: str) -> None:
    """Log Docker in to the registry, for twelve hours. Raises: DeployError if AWS's token is of another form."""
    [data] = aws.call("ecr", "GetAuthorizationToken")["authorizationData"]
    try:
        user, _, password = base64.b64decode(data["authorizationToken"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as err:
        raise DeployError("ecr GetAuthorizationToken: the token is not base64; expected USER:PASSWORD") from err
    docker.log_in(repository.partition("/")[0], user, password)


def check_pushed(aws: Aws, uri: str) -> ImageManifest:
    """Return the manifest that arrived in ECR. Raises: DeployError if SageMaker would refuse it."""
    image = EcrImage.parse(uri)
    if image is None:
        raise DeployError(f"{uri}: not the URI of an image in ECR")
    manifest = read_manifest(aws, image)
    if manifest.fault:
        raise DeployError(f"{uri}: {manifest.fault}")
    return manifest


if __name__ == "__main__":
    sys.exit(main())
