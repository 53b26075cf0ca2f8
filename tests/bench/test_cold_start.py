from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from bench.cold_start import cpu_seconds, measure_command, print_results

BURN_S = 0.3
BURN = f"import time\nwhile time.process_time() < {BURN_S}: pass"
IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}], check=True)"


@pytest.mark.parametrize("code", [BURN, IN_A_CHILD])
def test_the_cpu_time_of_children_counts(code: str):
    assert measure_command((sys.executable, "-c", code), dict(os.environ)) >= BURN_S


def test_a_failing_command_ends_the_measurement_with_its_output():
    with pytest.raises(SystemExit, match="exit code 3\nwhy"):
        measure_command((sys.executable, "-c", "import sys; sys.stderr.write('why'); sys.exit(3)"), dict(os.environ))


@pytest.mark.parametrize("code", [BURN, IN_A_CHILD])
def test_the_cpu_time_of_a_running_process_counts_children_that_ended(code: str):
    command = (sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = cpu_seconds(psutil.Process(process.pid))
        process.communicate(b"\n")
    assert BURN_S - 0.02 <= found < 10 * BURN_S  # counted in hundredths


def test_ratios_are_those_of_their_round(capsys: pytest.CaptureFixture[str]):
    rounds = [{"ov": ov, "pass": 0.1, "help": 0.4, "read": read} for ov, read in ((1, 3), (2, 4), (1, 5))]
    print_results(rounds)
    title, *_, of_help, of_read = capsys.readouterr().out.splitlines()
    assert title.startswith("median of 3 rounds")
    assert of_help.split() == ["help", "0.40", "s", "4.0", "(4.0..4.0)"]
    assert of_read.split() == ["read", "4.00", "s", "3.0", "(2.0..5.0)"]
