"""Landlock without an exception: no file, no TCP port, no signal to a process outside. Source: linux/landlock.h."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from inference.media.sandbox.linux import system_call

# The same numbers on every architecture.
CREATE_RULESET = 444
RESTRICT_SELF = 446
CREATE_RULESET_VERSION = 1
# Versions of the interface add file accesses: 2 REFER, 3 TRUNCATE, 5 IOCTL_DEV.
N_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
TCP_SINCE = 4
TCP_ACCESSES = 0b11  # bind, connect
SCOPES_SINCE = 6
SCOPES = 0b11  # abstract Unix sockets, signals


def forbid_files() -> None:
    """Forbid what the kernel's Landlock can; files that are open stay. Needs no_new_privs. Raises: OSError."""
    ruleset = create_ruleset(landlock_version())
    try:
        system_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def landlock_version() -> int:
    """Return the version of the kernel's interface. Raises: OSError if the kernel has none, or it is off."""
    try:
        return system_call(CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    except OSError as err:
        if err.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(err.errno, "the kernel has no Landlock") from err
        raise


def create_ruleset(version: int) -> int:
    """Return the descriptor of a ruleset that handles everything and allows nothing."""
    files = (1 << N_FILE_ACCESSES.get(version, max(N_FILE_ACCESSES.values()))) - 1
    ports = TCP_ACCESSES if version >= TCP_SINCE else 0
    scopes = SCOPES if version >= SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", files, ports, scopes)
    memory = ctypes.create_string_buffer(attributes, len(attributes))
    return system_call(CREATE_RULESET, ctypes.addressof(memory), len(attributes), 0)
