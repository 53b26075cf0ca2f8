from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest

from inference.media.sandbox.seccomp import (
    ALLOWED,
    BPF_AND,
    BPF_JUMP_IF_AT_LEAST,
    BPF_JUMP_IF_EQUAL,
    BPF_LOAD,
    BPF_RETURN,
    FCNTL_COMMANDS,
    PROCESSORS,
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    X32_CALLS,
    Instruction,
    install_filter,
    make_filter,
)

PID = 4242
DENIED = RET_ERRNO | errno.EPERM
F_SETOWN = 8
THREAD_FLAGS = 0x3D0F00  # of pthread_create
FORK_FLAGS = 0x1200011


def run(program: Sequence[Instruction], audit: int, number: int, *arguments: int) -> int:
    """Return what the kernel would, for a system call with these arguments."""
    seccomp_data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        if code == BPF_LOAD:
            (accumulator,) = struct.unpack_from("=I", seccomp_data, constant)
        elif code == BPF_AND:
            accumulator &= constant
        elif code == BPF_JUMP_IF_EQUAL:
            at += if_true if accumulator == constant else if_false
        elif code == BPF_JUMP_IF_AT_LEAST:
            at += if_true if accumulator >= constant else if_false
        else:
            assert code == BPF_RETURN
            return constant


@pytest.fixture(params=PROCESSORS)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(machine: str):
    program = make_filter(PROCESSORS[machine], PID)
    assert len(program) < 256  # the kernel takes 4096, but a jump at most 255
    return lambda number, *arguments: run(program, PROCESSORS[machine].audit, number, *arguments)


def test_listed_calls_are_allowed_and_no_others(machine: str, call):
    column = PROCESSORS[machine].column
    allowed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    assert len(allowed) == sum(numbers[column] is not None for numbers in ALLOWED.values())
    assert {number for number in range(463) if call(number, 99, 99) == RET_ALLOW} == allowed


def test_newer_calls_and_clone3_do_not_exist(call):
    assert {call(number) for number in (435, 463, 500, X32_CALLS - 1)} == {RET_ERRNO | errno.ENOSYS}
    assert call(X32_CALLS) == DENIED


def test_another_interface_ends_the_process(machine: str):
    program = make_filter(PROCESSORS[machine], PID)
    assert run(program, 0x40000003, ALLOWED["read"][0]) == RET_KILL_PROCESS  # AUDIT_ARCH_I386


@pytest.mark.parametrize(
    ("numbers", "arguments", "is_allowed"),
    [
        ((56, 220), (THREAD_FLAGS,), True),
        ((56, 220), (FORK_FLAGS,), False),
        ((56, 220), (THREAD_FLAGS | 0x10000000,), False),  # CLONE_NEWUSER
        ((72, 25), (3, FCNTL_COMMANDS[0]), True),
        ((72, 25), (3, F_SETOWN), False),
        ((234, 131), (PID, PID, 6), True),  # tgkill
        ((234, 131), (PID - 1, PID, 6), False),
        ((302, 261), (0, 7), True),  # prlimit64
        ((302, 261), (PID, 7), True),
        ((302, 261), (1, 7), False),
    ],
)
def test_some_calls_are_allowed_by_their_arguments(machine: str, call, numbers, arguments, is_allowed: bool):
    number = numbers[PROCESSORS[machine].column]
    assert call(number, *arguments) == (RET_ALLOW if is_allowed else DENIED)


def test_another_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no list of system calls for riscv64"):
        install_filter()
