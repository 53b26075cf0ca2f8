"""Options of a run: the fields of a dataclass, and the same as options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


@dataclass(frozen=True)
class Option:
    """Marks a field as an option of the command line: `steps: Annotated[int, Option("training steps")] = 1600`."""

    description: str
    short: str | None = None  # such as "-o"
    choices: tuple[str, ...] | None = None


def parse_options(kind: type[Options], module: str, description: str, arguments: Sequence[str] | None) -> Options:
    """Parse a command line into a dataclass whose fields are marked with `Option`.

    Each field is --its-name, and required if it has no default. A field of type tuple[T, ...] takes one or more values.
    module: what `python -m` runs. arguments: those of the process if None.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description.splitlines()[0])
    types = get_type_hints(kind, include_extras=True)
    for one in fields(kind):  # type: ignore[arg-type]
        annotation, *extras = get_args(types[one.name])
        option = next(extra for extra in extras if isinstance(extra, Option))
        value_type, is_list = value_type_of(annotation)
        names = [option.short] if option.short else []
        parser.add_argument(
            *names,
            f"--{one.name.replace('_', '-')}",
            dest=one.name,
            type=value_type,
            nargs="+" if is_list else None,
            choices=option.choices,
            required=one.default is MISSING,
            default=None if one.default is MISSING else one.default,
            help=option.description,
        )
    values = vars(parser.parse_args(arguments))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def value_type_of(annotation: Any) -> tuple[Any, bool]:
    """Return the type of one value, and whether there may be several: of T, T | None or tuple[T, ...]."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    if get_origin(annotation) in (Union, UnionType):
        return next(one for one in get_args(annotation) if one is not type(None)), False
    return annotation, False
