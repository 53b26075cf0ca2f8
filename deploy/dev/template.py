"""A CloudFormation template: its short forms, parameters, conditions and intrinsic functions.

Source: the AWS CloudFormation user guide, "Intrinsic function reference" and "Pseudo parameters reference".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deploy.errors import WrongRequest

Properties = dict[str, Any]

NO_VALUE = object()  # of AWS::NoValue: the property or the element is left out
SUBSTITUTION = re.compile(r"\$\{([^!}][^}]*)\}")  # "${!Literal}" is kept as "${Literal}"
LITERAL = re.compile(r"\$\{!([^}]*)\}")


class ShortFormLoader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """YAML with CloudFormation's short forms: !Ref a -> {"Ref": "a"}."""


def construct_short_form(loader: ShortFormLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    return {name: value.split(".", 1) if suffix == "GetAtt" else value}


ShortFormLoader.add_multi_constructor("!", construct_short_form)


def load_template(path: Path) -> dict[str, Any]:
    """Read a template with its short forms. It is ours: only safe YAML types are constructed."""
    found: dict[str, Any] = yaml.load(path.read_text("utf-8"), ShortFormLoader)  # noqa: S506 - a SafeLoader
    return found


class StackResource(NamedTuple):
    """A resource of a template with its values filled in. kind: such as AWS::S3::Bucket."""

    name: str
    kind: str
    properties: Properties


@dataclass(frozen=True)
class ResourceValues:
    """What `Ref` and `Fn::GetAtt` return of a resource. attributes: by name."""

    ref: str
    attributes: Mapping[str, str]


class StackTemplate:
    """A template with parameters, of which the rest has its default."""

    def __init__(
        self,
        document: Mapping[str, Any],
        parameters: Mapping[str, str],
        pseudo: Mapping[str, str],
        values_of: Callable[[str, str], ResourceValues],
    ) -> None:
        """pseudo: such as AWS::Region. values_of: of a resource by its logical name and its type.

        Raises: WrongRequest if a parameter has another form than the template demands.
        """
        self._document, self._pseudo, self._values_of = document, pseudo, values_of
        self._parameters = {
            name: parse_parameter(name, parameters.get(name, declared.get("Default")), declared)
            for name, declared in document["Parameters"].items()
        }

    def resources(self) -> Iterator[StackResource]:
        """Yield the resources whose conditions hold, in the template's order."""
        shared = self.resolve(self._document.get("Globals", {}).get("Function", {}))
        for name, declared in self._document["Resources"].items():
            if not self._holds(declared.get("Condition")):
                continue
            properties = self.resolve(declared.get("Properties", {}))
            if declared["Type"] == "AWS::Serverless::Function":
                properties = merge(shared, properties)
            yield StackResource(name, declared["Type"], properties)

    def output(self, name: str) -> str:
        """Return the value of an output."""
        found: str = self.resolve(self._document["Outputs"][name]["Value"])
        return found

    def resolve(self, value: Any) -> Any:
        """Return a value of the template with its intrinsic functions evaluated."""
        if isinstance(value, list):
            found = (self.resolve(one) for one in value)
            return [one for one in found if one is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(name, argument)
        pairs = ((name, self.resolve(one)) for name, one in value.items())
        return {name: one for name, one in pairs if one is not NO_VALUE}

    def _call(self, function: str, argument: Any) -> Any:
        match function:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                return self._attribute(*argument)
            case "Fn::Sub":
                return self._substitute(argument)
            case "Fn::If":
                condition, then, otherwise = argument
                return self.resolve(then if self._holds(condition) else otherwise)
            case "Fn::Join":
                separator, parts = argument
                return separator.join(self.resolve(parts))
        raise NotImplementedError(f"{function}: the template uses a function that is not implemented here")

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._parameters:
            return self._parameters[name]
        return self._values(name).ref

    def _attribute(self, name: str, attribute: str) -> str:
        return self._values(name).attributes[attribute]

    def _values(self, name: str) -> ResourceValues:
        declared = self._document["Resources"].get(name)
        return self._values_of(name, declared["Type"] if declared else "")

    def _substitute(self, text: str) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, dot, attribute = match[1].partition(".")
            return str(self._attribute(name, attribute) if dot else self._ref(name))

        return LITERAL.sub(r"${\1}", SUBSTITUTION.sub(value_of, text))

    def _holds(self, condition: str | None) -> bool:
        return condition is None or self._evaluate(self._document["Conditions"][condition])

    def _evaluate(self, condition: Any) -> bool:
        [(function, argument)] = condition.items()
        match function:
            case "Condition":
                return self._holds(argument)
            case "Fn::Equals":
                first, second = self.resolve(argument)
                return bool(first == second)
            case "Fn::Not":
                return not self._evaluate(argument[0])
        raise NotImplementedError(f"{function}: the template has a condition that is not implemented here")


def parse_parameter(name: str, value: Any, declared: Mapping[str, Any]) -> Any:
    """Return a parameter's value by its type. Raises: WrongRequest if it does not match its pattern."""
    pattern = declared.get("AllowedPattern")
    text = "" if value is None else str(value)
    items = text.split(",") if declared["Type"] == "CommaDelimitedList" else [text]
    if pattern and not all(re.fullmatch(pattern, item) for item in items):
        expected = declared.get("ConstraintDescription", pattern)
        raise WrongRequest(f"{name} {text!r}: expected {expected}")
    return items if declared["Type"] == "CommaDelimitedList" else text


def merge(shared: Properties, own: Properties) -> Properties:
    """Return a function's properties with those of `Globals`; maps are merged, its own values win."""
    merged = dict(shared)
    for name, value in own.items():
        is_map = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if is_map else value
    return merged
