"""Try the product on inputs that people really have, and print each outcome beside the expected one.

    python -m bench.cases SCRIPTS [--only A13 codecs/ ...] [--keep FOLDER]

SCRIPTS is the folder of the case scripts, which make most of the inputs with ffmpeg; `case_inputs.sh` makes the rest.
Each line tells the kind's number, the job, the input, what is expected, and what happened. The last line is the total.
Exits with status 1 if an outcome is not as expected, and with 0 if ffmpeg or the folder is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.attack_server import checkout_env
from bench.case_commands import ClientCase, CommandCase, client_cases, command_cases
from bench.case_runs import CaseWorker, Job, Outcome, run_command
from bench.case_table import NOT_SCRIPTED, Case, all_cases

ROOT = Path(__file__).parents[1]
OWN_SCRIPT = "case_inputs"
BASH = "/bin/bash"
EXIT_TERMINATED = 128 + signal.SIGTERM
SCRIPT_LIMIT_S = 600.0

AnyCase = Case | CommandCase | ClientCase
C = TypeVar("C", Case, CommandCase, ClientCase)


@dataclass
class Report:
    """Prints a line for each outcome, and counts them."""

    n_cases: int = 0
    n_unexpected: int = 0

    def add(self, case: AnyCase, outcome: Outcome, inputs: Path) -> None:
        """Print one outcome beside the expected one."""
        found = (find_fault(check.find_fault, outcome, inputs) for check in case.checks)
        faults = list(dict.fromkeys(fault for fault in found if fault))
        self.n_cases += 1
        self.n_unexpected += bool(faults)
        expected = ", ".join(check.expected for check in case.checks)
        verdict = "NOT OK" if faults else "ok    "
        print(f"{verdict} {case.number:4}{case.title:44} expected: {expected}")
        print(f"       {outcome.seconds:6.1f} s, found: {'; '.join(faults) if faults else outcome}", flush=True)


def find_fault(check: Callable[[Outcome, Path], str], outcome: Outcome, inputs: Path) -> str:
    """Run a check; one that cannot be made, as a file is not what it should be, is a fault."""
    try:
        return check(outcome, inputs)
    except Exception as err:  # noqa: BLE001 the checks decode whatever was written
        return f"{type(err).__name__}: {err}"


def main() -> None:
    """Print the outcomes; exit with status 1 if one is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", type=Path, nargs="?")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NUMBER|INPUT", help="numbers, or parts of inputs' paths"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep inputs and outputs; inputs there are used again"
    )
    args = parser.parse_args()
    if args.scripts is None or not any(args.scripts.glob("*.sh")):
        print(f"skipped: {args.scripts or 'no folder'}: expected a folder of case scripts")
        return
    if shutil.which("ffmpeg") is None:
        print("skipped: ffmpeg is not installed")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that nothing is left behind then, too
    with work_folder(args.keep) as folder:
        report = run_all(args.scripts.resolve(), folder, args.only)
    for number, reason in NOT_SCRIPTED.items():
        print(f"not tried: {number}, {reason}")
    print(f"{report.n_cases - report.n_unexpected} of {report.n_cases} as expected")
    raise SystemExit(report.n_unexpected > 0)


@contextmanager
def work_folder(kept: Path | None) -> Iterator[Path]:
    """Provide a folder for inputs and outputs: a temporary one, or the one to keep."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="viseme-cases-") as name:
        yield Path(name)


def run_all(scripts: Path, folder: Path, only: list[str]) -> Report:
    """Make the inputs, and run every case that is chosen."""
    inputs, outputs, report = folder / "in", folder / "out", Report()
    own = checkout_env(ROOT, folder)  # the caches of the product, too, are in the folder
    os.environ.clear()
    os.environ.update(own)
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    engine_cases = chosen(all_cases(), only)
    commands = chosen(command_cases(inputs, outputs), only)
    clients = chosen(client_cases(), only)
    needed = {name for group in (engine_cases, commands, clients) for one in group for name in one.scripts}
    make_inputs(scripts, inputs, sorted(needed))
    commands = chosen(command_cases(inputs, outputs), only)  # again: some take all files of a folder
    run_engines(engine_cases, inputs, outputs, report)
    for case in commands:
        case.prepare()
        report.add(case, run_command(list(case.arguments)), inputs)
    if clients:
        from bench.case_clients import run_clients

        found = run_clients(ROOT, scripts, inputs)
        for client in clients:
            report.add(client, found.get(client.title, Outcome(error="the client did not get so far")), inputs)
    return report


def chosen(cases: Iterable[C], only: list[str]) -> list[C]:
    """Return the cases whose number is listed, or whose title has a listed part."""
    return [
        one
        for one in cases
        if not only or one.number in only or any(part in one.title for part in only if len(part) > 3)
    ]


def make_inputs(scripts: Path, inputs: Path, names: list[str]) -> None:
    """Run the scripts whose inputs are not there. A script that fails leaves its inputs out, and says so."""
    env = os.environ | {"CASES": str(scripts), "PY": sys.executable, "PYTHONPATH": str(ROOT)}
    for name in names:
        folder = inputs / name
        if folder.is_dir():
            continue
        script = ROOT / "bench/case_inputs.sh" if name == OWN_SCRIPT else scripts / f"{name}.sh"
        done = subprocess.run(
            [BASH, str(script), str(folder)],
            env=env,
            capture_output=True,
            text=True,
            timeout=SCRIPT_LIMIT_S,
            check=False,
        )
        print(
            f"made {name}: {len(list(folder.iterdir()))} files" + (f"; {done.stderr[-300:]}" if done.returncode else "")
        )


def run_engines(cases: list[Case], inputs: Path, outputs: Path, report: Report) -> None:
    """Run the cases of the engines in one process."""
    worker = CaseWorker()
    try:
        for i, case in enumerate(cases):
            output = outputs / f"{i:03}-{case.number}-{Path(case.source).stem}.mp4"
            options = tuple(case.options.items())
            job = Job(case.job, inputs / case.source, output, inputs / case.audio, options)
            report.add(case, worker.run(job), inputs)
    finally:
        worker.close()


if __name__ == "__main__":
    main()
