"""A seccomp filter that leaves a process the system calls of computing: memory, threads, time, and files open already.

Every other call fails with EPERM: opening files and sockets, new processes and programs, other processes' memory and
signals, namespaces, keys, BPF, io_uring. Written for the kernel's own interface: no library is needed.
Source: linux/seccomp.h, linux/bpf_common.h, asm/unistd_64.h (x86_64), asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inference.media.sandbox.linux import system_call

# Numbers of the allowed system calls: x86_64, aarch64 (None if it has no such call).
ALLOWED: Mapping[str, tuple[int, int | None]] = MappingProxyType(
    {
        # files and sockets that are open
        "read": (0, 63),
        "write": (1, 64),
        "readv": (19, 65),
        "writev": (20, 66),
        "pread64": (17, 67),
        "pwrite64": (18, 68),
        "lseek": (8, 62),
        "close": (3, 57),
        "fstat": (5, 80),
        "newfstatat": (262, 79),  # how glibc calls fstat; there are no folders to look into
        "recvfrom": (45, 207),
        "recvmsg": (47, 212),
        "sendto": (44, 206),
        "sendmsg": (46, 211),
        "poll": (7, None),
        "ppoll": (271, 73),
        # memory
        "brk": (12, 214),
        "mmap": (9, 222),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "mprotect": (10, 226),
        "madvise": (28, 233),
        # threads
        "futex": (202, 98),
        "set_robust_list": (273, 99),
        "get_robust_list": (274, 100),
        "rseq": (334, 293),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "getcpu": (309, 168),
        "exit": (60, 93),
        "exit_group": (231, 94),
        # its own signals
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "sigaltstack": (131, 132),
        "restart_syscall": (219, 128),
        # time, random numbers, and what a process may know of itself
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "clock_nanosleep": (230, 115),
        "nanosleep": (35, 101),
        "gettimeofday": (96, 169),
        "time": (201, None),
        "times": (100, 153),
        "getrandom": (318, 278),
        "getpid": (39, 172),
        "getppid": (110, 173),
        "gettid": (186, 178),
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getrusage": (98, 165),
        "getrlimit": (97, 163),
        "sysinfo": (99, 179),
        "uname": (63, 160),
    }
)
CLONE = (56, 220)
CLONE3 = (435, 435)
FCNTL = (72, 25)
PRLIMIT64 = (302, 261)
TGKILL = (234, 131)
SECCOMP = (317, 277)
FIRST_UNKNOWN = 463  # newer calls than this list was checked against: "not implemented", so that libc falls back
X32_CALLS = 0x40000000  # x86_64 only: numbers from here on are another interface to the same calls

CLONE_THREAD = 0x00010000
CLONE_NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME
# No F_SETOWN and F_SETSIG: with them a descriptor can send signals to other processes.
FCNTL_COMMANDS = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1  # all threads of the process
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
BPF_LOAD, BPF_AND, BPF_RETURN = 0x20, 0x54, 0x06  # a word at an offset, a constant, a constant
BPF_JUMP_IF_EQUAL, BPF_JUMP_IF_AT_LEAST = 0x15, 0x35

Instruction = tuple[int, int, int, int]  # code, instructions to skip if true and if false, constant


@dataclass(frozen=True)
class Processor:
    """What the filter has to know of a processor."""

    audit: int  # AUDIT_ARCH_* of linux/audit.h
    column: int  # in the tables of numbers


PROCESSORS = MappingProxyType(
    {"x86_64": Processor(0xC000003E, 0), "aarch64": Processor(0xC00000B7, 1)},
)


def install_filter() -> None:
    """Install the filter for all threads, for good. Raises: OSError if the platform has none."""
    processor = PROCESSORS.get(platform.machine())
    if processor is None or sys.byteorder != "little" or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    code = b"".join(struct.pack("=HBBI", *one) for one in make_filter(processor, os.getpid()))
    program = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(program)))
    number = SECCOMP[processor.column]
    if system_call(number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.addressof(header)):
        raise OSError(errno.EBUSY, "a thread has another filter")


def make_filter(processor: Processor, pid: int) -> list[Instruction]:
    """Return the filter of the process `pid` as a BPF program."""
    column = processor.column
    allowed = [numbers[column] for numbers in ALLOWED.values()]
    return [
        (BPF_LOAD, 0, 0, ARCHITECTURE_AT),
        (BPF_JUMP_IF_EQUAL, 1, 0, processor.audit),
        (BPF_RETURN, 0, 0, RET_KILL_PROCESS),  # 32-bit calls of a 64-bit process: no library used here makes them
        (BPF_LOAD, 0, 0, NUMBER_AT),
        (BPF_JUMP_IF_AT_LEAST, 0, 1, X32_CALLS),
        (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM),
        (BPF_JUMP_IF_AT_LEAST, 1, 0, FIRST_UNKNOWN),
        (BPF_JUMP_IF_EQUAL, 0, 1, CLONE3[column]),  # its flags are out of a filter's reach; libc falls back to clone
        (BPF_RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),
        *(one for number in allowed if number is not None for one in allow(number)),
        *allow_argument(CLONE[column], 0, (CLONE_THREAD,), mask=CLONE_THREAD | CLONE_NEW_NAMESPACES),
        *allow_argument(FCNTL[column], 1, FCNTL_COMMANDS),
        *allow_argument(PRLIMIT64[column], 0, (0, pid)),
        *allow_argument(TGKILL[column], 0, (pid,)),  # abort()
        (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM),
    ]


def allow(number: int) -> list[Instruction]:
    return [(BPF_JUMP_IF_EQUAL, 0, 1, number), (BPF_RETURN, 0, 0, RET_ALLOW)]


def allow_argument(number: int, index: int, values: Iterable[int], mask: int = 0xFFFFFFFF) -> list[Instruction]:
    """Allow a call if the masked low word of an argument has one of the values; else it fails with EPERM."""
    check = [
        (BPF_LOAD, 0, 0, ARGUMENTS_AT + 8 * index),
        (BPF_AND, 0, 0, mask),
        *(one for value in values for one in allow(value)),
        (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM),
    ]
    return [(BPF_JUMP_IF_EQUAL, 0, len(check), number), *check]
