"""The decoding child: `python -m inference.media.child_main`, its socket in place of stdin.

Imports what decoding needs, gives up what it does not, and answers `MediaChild` in the parent (see
`wire` for the words). One file at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypeVar

import av.error
import numpy as np

from inference.errors import MediaTooLarge, UnsupportedMedia, VisemeError
from inference.media.frames import Clip, Frame
from inference.media.limits import MediaLimits
from inference.media.open import Media, open_file
from inference.media.ring import N_SLOTS, Ring
from inference.media.sound import Samples, SoundForm, read_pieces
from inference.media.wire import Message, pack_error, receive, send

SOCKET_FD = 0
MAX_OPEN_FILES = 16  # three streams, the file, and room for a traceback's sources
BLOCK_SAMPLES = 1 << 20  # of sound sent at a time: a minute
OOM_FIRST = "1000"  # the kernel's highest score: the child goes before the process that holds the models
T = TypeVar("T")
log = logging.getLogger(__name__)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    sock = socket.socket(fileno=SOCKET_FD)
    threading.Thread(target=die_with_parent, args=(sock,), daemon=True).start()
    try:
        start, (ring_file,) = receive(sock, max_files=1)
        ring = Ring(ring_file, start["slot_bytes"])
        os.close(ring_file)
        give_up_rights(start["memory_bytes"])
        send(sock, {"is": "ready"})
        Server(sock, ring, start["memory_bytes"]).run()
    except (EOFError, BrokenPipeError):
        return  # the parent is gone


def give_up_rights(memory_bytes: int) -> None:
    with contextlib.suppress(OSError):  # a sandbox may hold /proc back; then the kernel chooses
        Path("/proc/self/oom_score_adj").write_text(OOM_FIRST)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowest, lowest))


def die_with_parent(sock: socket.socket) -> None:
    """Also in the middle of a decoder's endless loop.

    Not by PR_SET_PDEATHSIG: that fires when the thread ends which started us, and threads come and go.
    """
    poll = select.poll()
    poll.register(sock, 0)  # hanging up is always reported
    poll.poll()
    os._exit(0)


class Server:
    """Answers the parent until it is gone."""

    def __init__(self, sock: socket.socket, ring: Ring, memory_bytes: int) -> None:
        self._sock = sock
        self._ring = ring
        self._memory_bytes = memory_bytes
        self._max_frame_pixels = 0  # of the file that is open

    def run(self) -> None:
        """Raises: EOFError, BrokenPipeError when the parent is gone."""
        while True:
            request, files = self._next_wish()
            send(self._sock, self._answer(request, files[0]))

    def _answer(self, request: Message, file: int) -> Message:
        """Open the file and do as asked until it is to be closed. Returns: the last word on it."""
        name, limits = request["name"], MediaLimits(**request["limits"])
        try:
            with os.fdopen(file, "rb") as opened:
                if request["do"] == "sound":
                    form = SoundForm(request["rate"]) if request["rate"] is not None else None
                    self._send_sound(read_pieces(opened, name, form, limits))
                else:
                    self._serve_pictures(opened, name, limits)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as err:  # noqa: BLE001 (whatever it was, the parent hears of it)
            return pack_error(self._in_our_words(err, name))
        return {"is": "closed"}

    def _serve_pictures(self, file: IO[bytes], name: str, limits: MediaLimits) -> None:
        self._max_frame_pixels = limits.max_frame_pixels
        with open_file(file, name, limits) as media:
            send(self._sock, {"is": "opened", "video": asdict(media.video)})
            while (wish := self._next_wish()[0])["do"] == "read":
                self._send_clips(media, wish["fps"])
                send(self._sock, {"is": "end"})

    def _next_wish(self) -> tuple[Message, list[int]]:
        """What the parent wants, past the last slots that it freed."""
        while True:
            wish, files = receive(self._sock, max_files=1)
            if wish["do"] != "free":
                return wish, files

    def _send_clips(self, media: Media, fps: float) -> None:
        for slot, clip in self._in_slots(media.read_clips(fps)):
            frames, shown = unique_frames(clip)
            self._check_sizes(frames, media.name)
            self._ring.write(slot, frames)
            sizes = [frame.shape[:2] for frame in frames]
            send(self._sock, {"is": "clip", "slot": slot, "sizes": sizes, "shown": shown})

    def _send_sound(self, pieces: Iterable[tuple[SoundForm, Samples]]) -> None:
        for slot, (form, block) in self._in_slots(in_blocks(pieces)):
            self._ring.write(slot, [block.view(np.uint8)])
            send(self._sock, {"is": "samples", "slot": slot, "n_samples": len(block), "form": asdict(form)})

    def _in_slots(self, items: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Each with the slot to put it in, once that is free."""
        n_free, slot = N_SLOTS, 0
        for item in items:
            while n_free == 0:
                receive(self._sock)  # the parent waits for what we send: all it can say is "free"
                n_free += 1
            yield slot, item
            n_free, slot = n_free - 1, (slot + 1) % N_SLOTS

    def _check_sizes(self, frames: list[Frame], name: str) -> None:
        """Pictures can pass the limit when their pixels are made square; the ring is made for the limit."""
        for frame in frames:
            height, width = frame.shape[:2]
            if height * width > self._max_frame_pixels:
                raise MediaTooLarge(
                    f"{name}: a picture of {width}x{height} square pixels; "
                    f"at most {self._max_frame_pixels} pixels expected"
                )

    def _in_our_words(self, err: Exception, name: str) -> Exception:
        if isinstance(err, VisemeError):
            return err
        if isinstance(err, (MemoryError, BlockingIOError)):  # EAGAIN: no room for a thread's stack
            return MediaTooLarge(f"{name}: takes over {self._memory_bytes >> 20} MiB to decode; that is the limit")
        if isinstance(err, av.error.FFmpegError):
            return UnsupportedMedia(f"{name}: cannot be decoded ({err.strerror})")
        log.error("decoding %s failed", name, exc_info=err)
        return err


def in_blocks(pieces: Iterable[tuple[SoundForm, Samples]]) -> Iterator[tuple[SoundForm, Samples]]:
    """The same samples, a million at a time: decoders give a thousand."""
    held: list[Samples] = []
    form = SoundForm(0)
    for form, piece in pieces:
        if len(piece):
            held.append(piece)
        if sum(map(len, held)) >= BLOCK_SAMPLES:
            yield form, np.concatenate(held)
            held = []
    if held:
        yield form, np.concatenate(held)


def unique_frames(clip: Clip) -> tuple[list[Frame], list[int]]:
    """The clip's frames, each once, and for each tick the index of its frame.

    Frames that repeat are neighbours.
    """
    frames: list[Frame] = []
    shown = []
    for frame in clip.frames:
        if not frames or frames[-1] is not frame:
            frames.append(frame)
        shown.append(len(frames) - 1)
    return frames, shown


if __name__ == "__main__":
    main()
