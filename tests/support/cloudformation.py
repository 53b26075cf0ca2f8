"""Reads a CloudFormation template with its short forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class Tags(yaml.SafeLoader):
    """CloudFormation's short forms: !Ref a -> {"Ref": "a"}."""


def read_tag(loader: Tags, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    return {name: value.split(".", 1) if suffix == "GetAtt" else value}


Tags.add_multi_constructor("!", read_tag)


def load_template(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text("utf-8"), Tags)
    return found
