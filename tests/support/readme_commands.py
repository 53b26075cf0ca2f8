"""The commands in the shell blocks of a document, and the rule for each: how it is run, or why it is not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELL_FENCES = ("", "sh", "bash", "console", "shell")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile("[▶◀│─]")
COMMENT = re.compile(r"\s{2,}# .*$")  # at least two spaces: '#' occurs in arguments


@dataclass(frozen=True)
class Block:
    """A block of commands, which share files and an endpoint."""

    document: str
    line: int
    commands: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.commands)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: str, text: str) -> list[Block]:
    """Return the shell blocks of a Markdown document, without diagrams drawn in text."""
    blocks = []
    for match in FENCE.finditer(text):
        if match[2] in SHELL_FENCES and not PICTURE.search(match[3]):
            line = text.count("\n", 0, match.start()) + 1
            blocks.append(Block(document, line, tuple(commands_of(match[3]))))
    return blocks


def commands_of(text: str) -> Iterator[str]:
    """Yield the commands; lines continued by a backslash or an open quote are joined."""
    command = ""
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        command = f"{command}\n{line}" if command else COMMENT.sub("", line).strip()
        if is_complete(command):
            if command and not command.startswith("# "):
                yield command
            command = ""


def is_complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # an open quote
        return False
    return True


def read_blocks(root: Path, documents: tuple[str, ...]) -> list[Block]:
    return [block for name in documents for block in blocks_of(name, (root / name).read_text("utf-8"))]


# Why a command is not run here. The first pattern that matches counts; a command that matches no pattern of these two
# tables fails the test.
NOT_RUN: tuple[tuple[str, str], ...] = (
    (r"make (demo|setup)\b", "installs an environment, for minutes; tests/test_docs.py compares the targets"),
    (r"make \S+", "a target of the Makefile, which tests/test_docs.py compares"),
    (r"\. \.venv/bin/activate", "the environment is the one that runs the tests"),
    (r"pip install ", "installs into the environment that runs the tests; test_readme_commands.py compares the extras"),
    (r"docker |.*\| docker ", "needs a Docker daemon and a registry"),
    (r"python -m deploy\.image\b", "needs Docker or buildah and a registry; has its own tests"),
    (
        r"sam deploy ",
        "asks questions, and moto lacks resources of the template; see `make check-stack`",
    ),
    (r"aws cloudformation ", "moto lacks some of the template's resources"),
    (
        r"aws (s3 cp|s3 ls|lambda|logs|sqs|sns) .*\b(BUCKET|CODE_BUCKET|QUEUE_ARN)\b",
        "names what the stack creates",
    ),
    (r"deploy/first_real_run\.sh ", "run by tests/deploy/test_readme.py with stand-ins of the programs that it calls"),
    (r"python -m deploy\.huggingface_model ", "needs SageMaker's SDK 2; run by tests/deploy/test_huggingface_model.py"),
    (r"python -m deploy\.lipcoordnet ", "has its own tests"),
    (r"python -m deploy\.\w+ \.\.\. ", "incomplete: '...' stands for the arguments above; the options are parsed"),
    (r"python -m deploy\.package .*--weights hub", "fetches from the Hub; run by tests/deploy/test_package.py"),
    (r"python -m deploy\.(package|endpoint) .*--(weights|checkpoint|landmarks) ", "needs the reader's models; parsed"),
    (r"viseme doctor\b", "has its own tests, against a container with planted faults"),
    (r"viseme (serve|jobs|work)\b", "runs until it is stopped; started by the tests of the server"),
    (r"curl localhost:8080/", "needs port 8080, which may be in use; the tests of the server send the same request"),
    (r"viseme: ", "output of a command"),
    (r"\{", "a request"),
)

# Commands that are run word for word.
RUN: tuple[str, ...] = (
    r"echo '",
    r"viseme (read|sync|render|avatar|weights list) ?",
    r"python -m deploy\.(endpoint|invoke|package) ",
    r"aws (sagemaker-runtime|lambda invoke|iam|sts|s3) ",
)


def reason_not_to_run(command: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN if re.match(pattern, command)), None)


def is_run(command: str) -> bool:
    return reason_not_to_run(command) is None and any(re.match(pattern, command) for pattern in RUN)
