"""Rules for every function."""

from __future__ import annotations

import ast
import sys

import boto3
import pytest
from support.lambda_functions import LAMBDAS, load

FUNCTIONS = sorted(path.parent.name for path in LAMBDAS.glob("*/handler.py"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_imports_only_what_lambda_provides(function):
    provided = set(sys.stdlib_module_names) | {"boto3", "botocore"}
    for node in ast.walk(ast.parse((LAMBDAS / function / "handler.py").read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= provided
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in provided
            assert node.level == 0  # each folder is uploaded on its own


@pytest.mark.parametrize("function", FUNCTIONS)
def test_its_import_has_no_effects(function, monkeypatch):
    monkeypatch.delenv("ENDPOINT_NAME", raising=False)
    for name in ("client", "resource"):
        monkeypatch.setattr(boto3, name, lambda *_, **__: pytest.fail("a client at import"))
    assert callable(load(function).handler)
