"""Messages between the parent and the decoder process: JSON packets with file descriptors.

    parent -> child                     child -> parent
    {do: start, slot_bytes, memory_bytes} + frame buffer
                                        {is: started, pid} + the process, by a descriptor
                                        {is: ready, missing}: walls that the platform lacks
    {do: open, name, limits} + file     {is: opened, video} | {is: error}
    {do: read, fps}                     {is: clip, slot, sizes, shown, warnings} ... {is: end, warnings} | {is: error}
    {do: free}    after each clip or block of audio
    {do: sound, name, limits} + file
                                        {is: samples, slot, n_samples, form} ... {is: closed, warnings} | {is: error}

After an error the file is closed. A hostile file may take over the child, so the parent never unpickles the child's
messages, and checks them.
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
MAX_TEXT = 2000  # characters of an error message: escaped, it must fit into a packet
INTERNAL = "internal"


def send(sock: socket.socket, message: Message, *files: int) -> None:
    """Send a message with file descriptors.

    Raises: OSError if the other side is gone, TimeoutError if it does not read.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    sock.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, max_files: int = 0) -> tuple[Message, list[int]]:
    """Return the next message and its file descriptors, which the caller has to close.

    Raises: EOFError if the other side is gone, ValueError if the message is invalid, TimeoutError.
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
    """Encode a VisemeError by class and message, any other error without details: they stay in the child."""
    if isinstance(err, errors.VisemeError):
        return {"is": "error", "error": type(err).__name__, "message": str(err)[:MAX_TEXT]}
    return {"is": "error", "error": INTERNAL, "message": ""}


def unpack_error(message: Message, name: str) -> Exception:
    """Return the error of `inference.errors` that the message names, or a RuntimeError."""
    found = getattr(errors, str(message.get("error")), None)
    if isinstance(found, type) and issubclass(found, errors.VisemeError):
        return found(str(message.get("message"))[:MAX_TEXT])
    return RuntimeError(f"{name}: internal error in the decoder; see the log")
