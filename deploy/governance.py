"""What an organisation demands of its resources: tags, a VPC, a KMS key, containers without a network."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from deploy.errors import WrongRequest

MAX_TAGS = 50  # of SageMaker
MAX_OBJECT_TAGS = 10  # of S3
MAX_SUBNETS, MAX_SECURITY_GROUPS = 16, 5  # of SageMaker
TAG_KEY = re.compile(r"[\w .:/=+\-@]{1,128}")
TAG_VALUE = re.compile(r"[\w .:/=+\-@]{0,256}")
SUBNET = re.compile(r"subnet-[0-9a-zA-Z]+")
SECURITY_GROUP = re.compile(r"sg-[0-9a-zA-Z]+")
KMS_KEY = re.compile(r"[a-zA-Z0-9:/_-]{1,2048}")
NONE = "none"  # given in place of a subnet, security group or key: an update does not keep that of the running version


@dataclass(frozen=True)
class Governance:
    """The demands that apply to every resource of an endpoint.

    tags: keys and values. kms_key: an ID, ARN or alias; it encrypts the instances' volumes, asynchronous answers and
    the uploaded objects. is_isolated: the container can make no call over the network.
    """

    tags: tuple[tuple[str, str], ...] = ()
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None
    is_isolated: bool = False

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Governance:
        """Take the demands from the command line. Raises: WrongRequest."""
        subnets, groups = (() if given == [NONE] else given for given in (args.subnet, args.security_group))
        kms_key = None if args.kms_key == NONE else args.kms_key
        if bool(subnets) != bool(groups):
            raise WrongRequest("--subnet and --security-group: SageMaker takes both or neither")
        if kms_key is not None and not KMS_KEY.fullmatch(kms_key):
            raise WrongRequest(f"--kms-key {kms_key}: expected a key's ID, ARN or alias")
        return cls(
            tags=split_tags(args.tag),
            subnets=check_ids("--subnet", subnets, SUBNET, MAX_SUBNETS),
            security_groups=check_ids("--security-group", groups, SECURITY_GROUP, MAX_SECURITY_GROUPS),
            kms_key=kms_key,
            is_isolated=bool(args.network_isolation),
        )

    def tagging(self) -> dict[str, Any]:
        """Return the parameter of calls that take tags as a list of keys and values; empty without tags."""
        return {"Tags": [{"Key": key, "Value": value} for key, value in self.tags]} if self.tags else {}

    def model_parameters(self) -> dict[str, Any]:
        """Return the parameters of CreateModel."""
        found = self.tagging()
        if self.subnets:
            found["VpcConfig"] = {"SecurityGroupIds": list(self.security_groups), "Subnets": list(self.subnets)}
        if self.is_isolated:
            found["EnableNetworkIsolation"] = True
        return found

    def object_parameters(self) -> dict[str, str]:
        """Return the parameters of PutObject. An object takes ten tags; with more it gets none."""
        found: dict[str, str] = {}
        if self.kms_key:
            found |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}
        if 0 < len(self.tags) <= MAX_OBJECT_TAGS:
            found["Tagging"] = urlencode(self.tags)
        return found


def add_governance_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what organisations demand",
        "with --update, what is not given stays as it is; the value `none` removes VPC or key",
    )
    group.add_argument(
        "--tag", action="append", default=[], metavar="KEY=VALUE", help="tag of every resource created; repeatable"
    )
    group.add_argument(
        "--subnet", action="append", default=[], metavar="ID", help="VPC subnet of the container; repeatable"
    )
    group.add_argument(
        "--security-group", action="append", default=[], metavar="ID", help="of the container in its VPC; repeatable"
    )
    group.add_argument(
        "--kms-key",
        metavar="KEY",
        help="encrypts volumes, asynchronous answers and uploaded objects; local NVMe disks, as of ml.g5, have a key "
        "of their own",
    )
    group.add_argument(
        "--network-isolation",
        action=argparse.BooleanOptionalAction,
        help="the container makes no call over the network; the archive gets all packages and models",
    )


def split_tags(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Split each KEY=VALUE. Raises: WrongRequest if AWS would not take the tags."""
    found: dict[str, str] = {}
    for text in texts:
        key, is_set, value = text.partition("=")
        if not is_set or not TAG_KEY.fullmatch(key) or not TAG_VALUE.fullmatch(value):
            raise WrongRequest(f"--tag {text}: expected KEY=VALUE, of letters, digits, spaces and _.:/+-@")
        if key.lower().startswith("aws:"):
            raise WrongRequest(f"--tag {text}: AWS keeps keys that begin with aws: for itself")
        if key in found:
            raise WrongRequest(f"--tag {text}: the key {key} is given twice")
        found[key] = value
    if len(found) > MAX_TAGS:
        raise WrongRequest(f"--tag: {len(found)} tags; expected at most {MAX_TAGS}")
    return tuple(found.items())


def check_ids(option: str, given: Sequence[str], pattern: re.Pattern[str], maximum: int) -> tuple[str, ...]:
    """Return the IDs. Raises: WrongRequest if one has the wrong form, or there are too many."""
    for one in given:
        if not pattern.fullmatch(one):
            raise WrongRequest(f"{option} {one}: expected an ID such as {pattern.pattern.partition('[')[0]}0123abcd")
    if len(given) > maximum:
        raise WrongRequest(f"{option}: {len(given)} given; SageMaker takes at most {maximum}")
    return tuple(given)
