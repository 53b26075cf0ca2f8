"""Messages between the parent and the decoding child: JSON in packets, files beside them.

    parent -> child                     child -> parent
    {do: start, slot_bytes, memory_bytes} + ring
                                        {is: ready}
    {do: open, name, limits} + file     {is: opened, video} | {is: error}
    {do: read, fps}                     {is: clip, slot, sizes, shown} ... {is: end} | {is: error}
    {do: free}    after each clip or piece of sound
    {do: close}                         {is: closed}
    {do: sound, name, rate, limits} + file
                                        {is: samples, slot, n_samples} ... {is: closed} | {is: error}

After an error the file is closed already. The child may be taken over by what it decodes, so the
parent never unpickles what it says, and checks it.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

from inference import errors

Message = dict[str, Any]

PACKET_BYTES = 64 << 10
MAX_TEXT = 2000  # characters of an error's message: it must fit into a packet, escaped
INTERNAL = "internal"


def send(sock: socket.socket, message: Message, *files: int) -> None:
    """Raises: OSError where the other side is gone, TimeoutError where it does not listen."""
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    sock.sendmsg([json.dumps(message).encode()], beside, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, max_files: int = 0) -> tuple[Message, list[int]]:
    """The next message, and the files that came with it, now ours to close.

    Raises: EOFError where the other side is gone, ValueError where it talks nonsense, TimeoutError.
    """
    try:
        packet, files, _, _ = socket.recv_fds(sock, PACKET_BYTES, max_files, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as err:
        raise EOFError from err
    if not packet:
        raise EOFError
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict):
        return message, files
    for file in files:
        os.close(file)
    raise ValueError(f"{packet[:40]!r}; expected a message")


def pack_error(err: BaseException) -> Message:
    """Ours by class and message; of others not even the name leaves the child."""
    if isinstance(err, errors.VisemeError):
        return {"is": "error", "error": type(err).__name__, "message": str(err)[:MAX_TEXT]}
    return {"is": "error", "error": INTERNAL, "message": ""}


def unpack_error(message: Message, name: str) -> Exception:
    """The error of `inference.errors` that the message names, or a RuntimeError."""
    found = getattr(errors, str(message.get("error")), None)
    if isinstance(found, type) and issubclass(found, errors.VisemeError):
        return found(str(message.get("message"))[:MAX_TEXT])
    return RuntimeError(f"{name}: the decoder failed by a fault of ours; the log says more")
