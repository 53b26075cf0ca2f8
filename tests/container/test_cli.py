from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from container.cli import COMMANDS, LazyCommand, app, main

SCRIPT = Path(sys.executable).parent / "viseme"
HEAVY = ("torch", "openvino", "av", "cv2", "transformers")
# Run command lines in one process; print for each its output and the heavy libraries that it was the first to import.
RECORD_IMPORTS = """
import contextlib, io, json, os, sys
from container.cli import main

lines, heavy = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))
results = {}
for name, (arguments, environment) in lines.items():
    before, output = set(sys.modules), io.StringIO()
    os.environ.update(environment)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.suppress(SystemExit):
        main(arguments)
    for variable in environment:
        del os.environ[variable]
    results[name] = output.getvalue(), sorted(heavy & (set(sys.modules) - before))
print(json.dumps(results))
"""


def command_paths() -> Iterator[str]:
    """Yield every command, group and subcommand: `read`, `avatar`, `avatar build`."""
    for name, (target, summary) in COMMANDS.items():
        yield name
        yield from (f"{name} {child}" for child in getattr(LazyCommand(name, target, summary).load(), "commands", {}))


LIGHT_LINES = {  # command lines that run no engine, and words of their output
    **{f"{path} --help": "Usage: viseme" for path in command_paths()},
    **{f"{path} --no-such-option": "No such option" for path in command_paths()},
    "doctor --url a --endpoint-name b": "expected one of them",
    "read a.mp4 --device tpu": "'auto', 'cpu', 'cuda'",
    "read a.mp4 --face left": "--face 'left'",
    "read a.mp4 b.mp4 --format srt": "--output-dir",
    "sync a.mp4 b.wav -o c.mp4 --face left": "--face 'left'",
    "avatar build a.mp4 --checkpoint a.pth -o b --mode loud": "--mode 'loud'",
    "avatar import a -o b --mode loud": "--mode 'loud'",
    "render BIN -o a.mp4 --size big": "--size 'big'",
    "render BIN -o a.mp4 --hide now": "--hide 'now'",
    "eval none.csv": "none.csv",
    "jobs list --url a": "--url 'a'",
    "weights list": "starter",
}
GROUPS = ("avatar", "jobs", "weights")  # have no options of their own
COMPLETED = [path for path in command_paths() if path not in GROUPS]


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment
    )


def complete(line: str) -> list[str]:
    """The completions that bash would get for the last word of a line."""
    words = line.split(" ")
    run = run_script(_VISEME_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_console_script_runs_as_installed(weights_cache: Path, talking_film: bytes, tmp_path: Path):
    (tmp_path / "talk.mp4").write_bytes(talking_film)
    run = run_script("read", str(tmp_path / "talk.mp4"))
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == 1
    assert run.stderr == ""


def test_an_internal_error_exits_1(
    weights_cache: Path,
    talking_film: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "talk.mp4").write_bytes(talking_film)
    monkeypatch.setattr("inference.lip_reading.LipReader.read", lambda *a, **k: 1 / 0)
    assert main(["read", str(tmp_path / "talk.mp4")]) == 1
    assert capsys.readouterr().out == ""


def test_the_help_lists_the_commands_in_the_order_of_use(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line.strip("│ ").split(" ")[0] for line in lines if line.startswith("│")]
    assert [word for word in words if word in COMMANDS] == [
        "read",
        "sync",
        "visemes",
        "avatar",
        "serve",
        "worker",
        "jobs",
        "dev",
        "doctor",
        "render",
        "eval",
        "weights",
    ]
    for _, summary in COMMANDS.values():
        assert summary.split()[0] in " ".join(lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_help_is_the_first_sentence_of_the_commands_own(name: str):
    target, summary = COMMANDS[name]
    command = LazyCommand(name, target, summary).load()
    assert command.help.split("\n\n")[0].replace("\n", " ") == summary


@pytest.mark.parametrize("name", COMMANDS)
def test_devices_and_precisions_are_the_same_choices_everywhere(name: str):
    def parameters(command: object) -> list[object]:
        children = getattr(command, "commands", {}).values()
        return [*command.params, *(one for child in children for one in parameters(child))]

    choices = {"device": "auto cpu cuda", "precision": "auto f32 f16 bf16 int8"}
    for parameter in parameters(LazyCommand(name, *COMMANDS[name]).load()):
        if parameter.name in choices and name != "weights":  # which stores in a precision, and never in `auto`
            assert parameter.type_descriptor.choices == tuple(choices[parameter.name].split())


@pytest.mark.parametrize(
    ("name", "children"), [("read", ()), ("sync", ()), ("eval", ()), ("avatar", ("speak", "info"))]
)
def test_commands_that_run_models_have_an_option_for_threads(name: str, children: tuple[str, ...]):
    command = LazyCommand(name, *COMMANDS[name]).load()
    for one in [command.commands[child] for child in children] or [command]:
        assert any("--threads" in parameter.opts for parameter in one.params)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_overview_and_the_version_load_no_heavy_library(argument: str):
    check = f"import sys; from container.cli import main; assert main([{argument!r}]) == 0; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint((*HEAVY, "numpy", "starlette"))
    assert not [
        name for name in loaded if name.startswith("container.commands.") and name != "container.commands.console"
    ]


@pytest.fixture(scope="module")
def light_results() -> dict[str, tuple[str, list[str]]]:
    """The output of each light command line, and the heavy libraries that it imported."""
    lines = {line: (line.split(), {}) for line in LIGHT_LINES}
    for path in COMPLETED:
        words = f"viseme {path} --"
        environment = {"_VISEME_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        lines[f"{path} --<TAB>"] = ([], environment)
    # `weights list` is last, because it alone may import one of them.
    lines["weights list"] = lines.pop("weights list")
    run = subprocess.run(
        [sys.executable, "-c", RECORD_IMPORTS, json.dumps(lines), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("line", LIGHT_LINES)
def test_help_usage_errors_and_lists_import_no_engine(line: str, light_results: dict[str, tuple[str, list[str]]]):
    output, imported = light_results[line]
    assert LIGHT_LINES[line] in output
    # The settings import the package inference.media, which imports PyAV (40 ms).
    assert set(imported) <= ({"av"} if line == "weights list" else set())


@pytest.mark.parametrize("path", COMPLETED)
def test_completion_imports_no_engine(path: str, light_results: dict[str, tuple[str, list[str]]]):
    output, imported = light_results[f"{path} --<TAB>"]
    assert "--" in output
    assert not imported


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "viseme"
    assert version[0].isdigit()


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert "Usage: viseme" in out + err
    assert "viseme: " not in err


def test_a_misspelt_command_is_corrected(capsys: pytest.CaptureFixture[str]):
    assert main(["reed"]) == 2
    assert capsys.readouterr().err == "viseme: No such command 'reed'. Did you mean 'read', 'render'?\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("viseme re", {"read", "render"}),
        ("viseme weights c", {"convert"}),
        ("viseme avatar ", {"build", "import", "info", "livekit", "say", "speak"}),
        ("viseme sync --ref", {"--reference"}),
        ("viseme read --device ", {"auto", "cpu", "cuda"}),
        ("viseme weights convert --to o", {"onnx", "openvino"}),
    ],
)
def test_shells_complete_commands_options_and_choices(line: str, expected: set[str]):
    assert set(complete(line)) == expected


def test_the_completion_script_is_printed():
    run = run_script(_VISEME_COMPLETE="source_bash")
    assert run.returncode == 0
    assert "complete -o default -F _viseme_completion viseme" in run.stdout


def test_a_closed_pipe_is_no_error():
    run = subprocess.run(
        f"set -o pipefail; {SCRIPT} weights list | head -c 1",
        check=False,
        shell=True,
        executable="/bin/bash",
        capture_output=True,
    )
    assert run.returncode == 0
    assert run.stderr == b""


def test_every_command_is_of_this_app():
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)
