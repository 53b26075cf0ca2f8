"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *arguments: int) -> int:
    """Make a system call by its number. Raises: OSError."""
    LIBC.syscall.restype = ctypes.c_long
    return raise_error(LIBC.syscall(ctypes.c_long(number), *(ctypes.c_ulong(argument) for argument in arguments)))


def unshare(flags: int) -> None:
    """Leave namespaces that are shared with the parent. Raises: OSError."""
    raise_error(LIBC.unshare(ctypes.c_int(flags)))


def set_process_option(option: int, value: int) -> None:
    """Call prctl with one value. Raises: OSError."""
    raise_error(LIBC.prctl(ctypes.c_int(option), *(ctypes.c_ulong(argument) for argument in (value, 0, 0, 0))))


def raise_error(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
