"""Rules for every function."""

from __future__ import annotations

import ast
import sys

import boto3
import pytest
from support.lambda_functions import LAMBDAS, load

FUNCTIONS = sorted(path.parent.name for path in LAMBDAS.glob("*/handler.py"))


SOURCES = sorted(LAMBDAS.rglob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_imports_only_what_lambda_provides(source):
    provided = set(sys.stdlib_module_names) | {"boto3", "botocore", "jobs"}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= provided
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in provided
            assert node.level == 0  # a handler is a module of its own: it has no package above it


@pytest.mark.parametrize("function", FUNCTIONS)
def test_its_import_has_no_effects(function, monkeypatch):
    monkeypatch.delenv("ENDPOINT_NAME", raising=False)
    for name in ("client", "resource"):
        monkeypatch.setattr(boto3, name, lambda *_, **__: pytest.fail("a client at import"))
    assert callable(load(function).handler)
