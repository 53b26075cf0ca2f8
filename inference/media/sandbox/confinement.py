"""The walls around the decoder process: what a hostile file that took it over cannot do.

Each wall is permanent and independent of the others: if a platform lacks one, the rest still hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from inference.media.sandbox.landlock import forbid_files
from inference.media.sandbox.linux import LIBC, raise_error, set_process_option, unshare
from inference.media.sandbox.seccomp import install_filter

# user: the account `nobody`, which owns no files or processes. network: no interface, not even loopback. folders: an
# empty root.
# privileges: no capabilities, and no program that gives some. landlock: no file, no TCP port, no signal to others.
# seccomp: only the system calls of computing.
Wall = Literal["user", "network", "folders", "privileges", "landlock", "seccomp"]

NOBODY = 65534  # of both users and groups, on every distribution
TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (mkdtemp makes a folder of our own there)
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
CAP_KILL = 5
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of each set


def confine(builders: Mapping[Wall, Callable[[], None]] | None = None) -> dict[Wall, str]:
    """Put up every wall that the platform has. Returns: the reason for each that is missing.

    builders: of the walls to put up, by default all.
    Everything to come must be imported and open already: files cannot be opened afterwards. Call it before threads
    are started: some walls are the calling thread's only.
    """
    missing: dict[Wall, str] = {}
    for wall, build in (BUILDERS if builders is None else builders).items():
        try:
            build()
        except OSError as err:
            missing[wall] = err.strerror or str(err)
    return missing


def confine_server() -> frozenset[Wall]:
    """Put up the walls that a process can share with those that it forks, and that take longest to put up.

    Returns: the walls, which `confine` needs not put up in them. The others it tries for itself.
    """
    return frozenset(SHARED_BUILDERS) - confine(SHARED_BUILDERS).keys()


def deny_inspection() -> None:
    """Deny other processes of this user the memory and the environment of this one, which hold credentials.

    It leaves no core dump, and only root can attach a debugger or a profiler.
    """
    set_process_option(PR_SET_DUMPABLE, 0)


def become_nobody() -> None:
    """Drop root's user and groups; its capabilities stay for the next walls. Raises: OSError if it cannot."""
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only root can start processes of other users")
    if not read_capabilities().permitted >> CAP_KILL & 1:
        raise OSError(errno.EPERM, "without CAP_KILL the server could not end another user's process")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    set_process_option(PR_SET_KEEPCAPS, 1)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    permitted = read_capabilities().permitted
    write_capabilities(Capabilities(permitted, permitted, 0))


def leave_network() -> None:
    """Enter a network of no interfaces: by root's rights, or those of the first process of a user namespace."""
    try:
        unshare(CLONE_NEWNET)
    except OSError:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)


def leave_network_as_server() -> None:
    """Enter a network of no interfaces, but as root no user namespace: in it, forks could not become `nobody`."""
    if os.geteuid() == 0:
        unshare(CLONE_NEWNET)
    else:
        leave_network()


def leave_folders() -> None:
    """Make an empty, deleted folder the root: nothing is in it, and nothing can be created."""
    path = make_folder()
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path.rmdir()
        os.fchdir(folder)
        os.chroot(".")
    finally:
        os.close(folder)


def make_folder() -> Path:
    """Return a new folder. Raises: OSError if all the usual places are read-only."""
    *others, last = TEMPORARY_FOLDERS
    for parent in others:
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="viseme-root-", dir=parent))
    return Path(tempfile.mkdtemp(prefix="viseme-root-", dir=last))


def drop_privileges() -> None:
    """Drop all capabilities; no program can return them."""
    write_capabilities(Capabilities(0, 0, 0))
    set_process_option(PR_SET_NO_NEW_PRIVS, 1)


class Capabilities(NamedTuple):
    """Sets of 64 bits."""

    effective: int
    permitted: int
    inheritable: int


def read_capabilities() -> Capabilities:
    words = ctypes.create_string_buffer(24)
    raise_error(LIBC.capget(capability_header(), words))
    low, high = struct.unpack("=3I", words.raw[:12]), struct.unpack("=3I", words.raw[12:])
    return Capabilities(*(one | other << 32 for one, other in zip(low, high, strict=True)))


def write_capabilities(sets: Capabilities) -> None:
    words = [*(one & 0xFFFFFFFF for one in sets), *(one >> 32 for one in sets)]
    raise_error(LIBC.capset(capability_header(), struct.pack("=6I", *words)))


def capability_header() -> ctypes.Array[ctypes.c_char]:
    """Return a struct __user_cap_header_struct for this thread."""
    return ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION, 0))


# In this order: each leaves what the next needs.
BUILDERS: Mapping[Wall, Callable[[], None]] = MappingProxyType(
    {
        "user": become_nobody,
        "network": leave_network,
        "folders": leave_folders,
        "privileges": drop_privileges,
        "landlock": forbid_files,
        "seccomp": install_filter,
    }
)
SHARED_BUILDERS: Mapping[Wall, Callable[[], None]] = MappingProxyType(
    {"network": leave_network_as_server, "folders": leave_folders}
)
