"""The identity of processes."""

from __future__ import annotations

import os
import subprocess
import sys

from container.jobs.processes import ProcessIdentity, is_alive, process_name


def test_this_process_is_alive() -> None:
    identity = ProcessIdentity.current()
    assert identity.process.startswith(f"{os.getpid()}:")
    assert is_alive(identity.process)


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(process.pid)
    assert is_alive(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not is_alive(name)
    process.communicate()
    assert not is_alive(name)


def test_a_number_that_is_given_again_is_another_process() -> None:
    assert not is_alive(f"{os.getpid()}:1")


def test_what_is_not_a_process_is_not_alive() -> None:
    assert not is_alive("")
    assert not is_alive("x:1")
    assert not is_alive("999999999:")
