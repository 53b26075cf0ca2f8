"""The documents: links resolve, commands exist with their options, Python imports work, figures agree."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from botocore import xform_name
from botocore.session import Session

from bench.case_commands import client_cases, command_cases
from bench.case_table import NOT_SCRIPTED, all_cases
from container.cli import LazyCommand, app

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_README_WORDS = 700
COLUMNS_OF_INPUTS = 4  # kind, what happens, test, case
# Commands of the AWS CLI that are written by hand, not derived from a model.
HAND_WRITTEN = {("s3",), ("cloudformation", "package"), ("cloudformation", "deploy"), ("ecr", "get-login-password")}
AWS_OPTIONS = {"--endpoint-url", "--region", "--query", "--output"}


def find_documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


DOCUMENTS = find_documents()
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose_of(path: Path) -> str:
    return FENCE.sub("", path.read_text("utf-8"))


def slug_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(path: Path) -> set[str]:
    return {slug_of(heading) for heading in re.findall(r"^#+ (.*)$", prose_of(path), re.MULTILINE)}


@each_document
def test_links_resolve(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(found), f"{path.name} links to {target}, which has {sorted(anchors_of(found))}"


def commands_of(path: Path) -> Iterator[list[str]]:
    """Yield the words of each command in the code blocks and inline code of a document."""
    text = path.read_text("utf-8")
    blocks = [block for language, block in FENCE.findall(text) if language in ("", "sh", "bash", "console")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]+)`", prose_of(path))
    for written in lines:
        line = re.sub(r"\s{2,}#.*|\s+\|.*$|\s+>.*$", "", written.removeprefix("$ ")).strip()
        if re.match(r"(viseme|make|aws|python -m) \S", line):
            try:
                yield shlex.split(line, comments=True)
            except ValueError:  # a quoted argument over several lines
                yield line.split()


def check_viseme(words: list[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("viseme", [], resilient_parsing=True)
    rest = words[1:]
    while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"{' '.join(words)}: no command {name}"
        command = command.load() if isinstance(command, LazyCommand) else command
    options = {option for param in command.get_params(context) for option in (*param.opts, *param.secondary_opts)}
    for word in rest:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in options, f"{' '.join(words)}: no option {word}"


def check_module(words: list[str]) -> None:
    """The module exists, and its options are written in its package: as arguments, or as fields of a recipe."""
    module = ROOT.joinpath(*words[2].split("."))
    source = module.with_suffix(".py")
    assert source.is_file(), f"{' '.join(words)}: no such module"
    text = "\n".join(path.read_text() for path in source.parent.glob("*.py"))
    for word in words[3:]:
        if re.match(r"--[a-z]", word):
            option = word.partition("=")[0]
            field = option.removeprefix("--").replace("-", "_")
            is_known = f'"{option}"' in text or re.search(rf"^    {field}: ", text, re.MULTILINE)
            assert is_known, f"{' '.join(words)}: no option {word}"


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in words[1:]:
        assert "=" in word or word in targets, f"{' '.join(words)}: no target {word}"


def check_aws(words: list[str]) -> None:
    """The AWS CLI derives its commands and options from the models that botocore has, too."""
    if len(words) < 3 or {tuple(words[1:2]), tuple(words[1:3])} & HAND_WRITTEN:
        return
    model = Session().get_service_model("s3" if words[1] == "s3api" else words[1])
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    assert words[2] in operations, f"{' '.join(words)}: no such operation"
    shape = model.operation_model(operations[words[2]]).input_shape
    known = {f"--{xform_name(name, '-')}" for name in (shape.members if shape else ())} | AWS_OPTIONS
    for word in words[3:]:
        if word.startswith("--"):
            assert word in known, f"{' '.join(words)}: no option {word}"


CHECKS = {"viseme": check_viseme, "make": check_make, "python": check_module, "aws": check_aws}


@each_document
def test_commands_exist(path: Path):
    for words in commands_of(path):
        CHECKS[words[0]](words)


# Installed in an environment of its own, whose test runs the page's code.
OTHER_ENVIRONMENTS = {"sagemaker": "tests/deploy/test_sagemaker_core.py"}


@each_document
def test_imports_work(path: Path):
    for language, block in FENCE.findall(path.read_text("utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in OTHER_ENVIRONMENTS:
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{path.name}: {node.module} has no {alias.name}"


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_figures_of_the_readme_are_those_of_the_benchmarks():
    figures = re.findall(r"\d+\.\d+(?: %)?|\d+ ms", section(prose_of(ROOT / "README.md"), "How good is it?"))
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert len(figures) >= 4
    for figure in figures:
        assert figure in benchmarks, f"{figure} is not in docs/benchmarks.md"


def test_every_kind_of_input_is_documented_with_a_test_that_holds_it():
    rows = [line.split(" | ") for line in prose_of(ROOT / "docs" / "inputs.md").splitlines() if line.startswith("| ")]
    kinds = [row for row in rows if row[0] not in ("| kind", "| ---")]
    assert all(len(row) == COLUMNS_OF_INPUTS and "](../tests/" in row[2] for row in kinds)
    documented = {number for row in kinds for number in re.findall(r"[AP]\d+", row[3])}
    tried = {case.number for case in (*all_cases(), *command_cases(ROOT, ROOT), *client_cases())}
    assert documented == tried | set(NOT_SCRIPTED)


def test_the_readme_is_short_and_has_images():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= MOST_README_WORDS
    assert len(re.findall(r"!\[[^\]]*\]\(docs/images/\w+\.png\)", text)) >= 3


def test_no_document_names_data_outside_the_project():
    for path in DOCUMENTS:
        assert "../shared" not in path.read_text("utf-8"), path
