"""The sandboxed decoder process, forked by `fork_server`, with its socket as stdin.

It puts walls around itself (see `confinement`), answers `SandboxedDecoder` in the parent (see `messages`), and decodes
one file.
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
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from typing import IO, TypeVar

import av.error
import av.subtitles.codeccontext  # PyAV imports these when a file needs them, and no module can be opened by then
import av.subtitles.stream
import av.subtitles.subtitle
import numpy as np

from inference.errors import MediaTooLarge, UnsupportedMedia, VisemeError
from inference.media.audio import decode_blocks
from inference.media.audio_convert import AudioFormat, Samples
from inference.media.files import size_of
from inference.media.frames import CHUNK_BYTES, Clip, Frame
from inference.media.limits import MediaLimits
from inference.media.open import open_file
from inference.media.sandbox.allocation_watch import AllocationWatch
from inference.media.sandbox.budget import ResourceBudget
from inference.media.sandbox.confinement import BUILDERS, Wall, confine
from inference.media.sandbox.messages import Message, pack_error, receive, send
from inference.media.sandbox.shared_memory import N_SLOTS, SharedFrameBuffer
from inference.media.video import Media

SOCKET_FD = 0
MAX_OPEN_FILES = 16  # three streams, the frame buffer and the media file
BLOCK_SAMPLES = 1 << 20  # audio samples per message: one minute at 16 kHz
T = TypeVar("T")
logger = logging.getLogger("viseme.media")


def main(walls: Collection[Wall] = ()) -> None:
    """Decode one file. walls: that this process has already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent handles it
    sock = socket.socket(fileno=SOCKET_FD)
    try:
        start, (buffer_fd,) = receive(sock, max_files=1)
        buffer = SharedFrameBuffer(buffer_fd, start["slot_bytes"])
        os.close(buffer_fd)
        set_limits(start["memory_bytes"])
        introduce(sock)
        missing = confine({wall: build for wall, build in BUILDERS.items() if wall not in walls})
        threading.Thread(target=exit_with_parent, args=(sock,), daemon=True).start()
        send(sock, {"is": "ready", "missing": missing})
        watch = AllocationWatch()
        watch.install()
        DecoderServer(sock, buffer, watch).run()
    except (EOFError, ConnectionError):
        return  # the parent is gone


def introduce(sock: socket.socket) -> None:
    """Send the process ID, and a descriptor by which the parent can end this process, if the system has such."""
    own = []
    with contextlib.suppress(OSError):
        own.append(os.pidfd_open(os.getpid()))
    send(sock, {"is": "started", "pid": os.getpid()}, *own)
    for fd in own:
        os.close(fd)


def set_limits(memory_bytes: int) -> None:
    """Limit memory, files and core dumps."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowest, lowest))


def exit_with_parent(sock: socket.socket) -> None:
    """Exit as soon as the parent closes its socket, even in the middle of a decoder's endless loop.

    PR_SET_PDEATHSIG would not do: it fires when the thread that started this process ends, which may happen any time.
    """
    poll = select.poll()
    poll.register(sock, 0)  # a hang-up is always reported
    poll.poll()
    os._exit(0)


class DecoderServer:
    """Answers the parent's requests about one file."""

    def __init__(self, sock: socket.socket, buffer: SharedFrameBuffer, watch: AllocationWatch) -> None:
        self._sock = sock
        self._buffer = buffer
        self._watch = watch
        self._max_frame_pixels = 0  # of the open file

    def run(self) -> None:
        """Serve a file, and wait for the end. Raises: EOFError, ConnectionError once the parent has closed it."""
        request, files = self._next_request()
        send(self._sock, self._serve_file(request, files[0]))
        self._next_request()

    def _serve_file(self, request: Message, file: int) -> Message:
        """Open the file and serve requests until it is closed. Returns: the final response."""
        name, limits = request["name"], MediaLimits(**request["limits"])
        budget, warnings = ResourceBudget(os.fstat(file).st_size), list[str]()
        try:
            with os.fdopen(file, "rb") as opened:
                if request["do"] == "sound":
                    self._send_audio(decode_blocks(opened, name, None, limits, warnings), budget)
                else:
                    self._serve_frames(opened, name, limits, budget)
        except (EOFError, ConnectionError):
            raise
        except Exception as err:  # noqa: BLE001 (any error is reported to the parent)
            return describe_error(self._watch.reason_of(err), name, budget.memory_bytes)
        finally:
            budget.close()
        return {"is": "closed", "warnings": warnings}

    def _serve_frames(self, file: IO[bytes], name: str, limits: MediaLimits, budget: ResourceBudget) -> None:
        self._max_frame_pixels = limits.max_frame_pixels
        with open_file(file, name, limits) as media:
            n_pixels = media.video.width * media.video.height
            budget.set_video(media.video.codec, n_pixels, media.sample_bits, is_wide=media.is_wide)
            self._watch.set_frame_size(n_pixels)
            send(self._sock, {"is": "opened", "video": asdict(media.video)})
            while (request := self._next_request()[0])["do"] == "read":
                try:
                    self._send_clips(media, request["fps"], budget)
                except UnsupportedMedia as err:
                    if media.video.is_still:
                        check_memory(media, size_of(file), budget.memory_bytes, err)
                    raise
                send(self._sock, {"is": "end", "warnings": media.warnings})

    def _next_request(self) -> tuple[Message, list[int]]:
        """Return the next request, skipping the parent's last freed slots."""
        while True:
            request, files = receive(self._sock, max_files=1)
            if request["do"] != "free":
                return request, files

    def _send_clips(self, media: Media, fps: float, budget: ResourceBudget) -> None:
        written: dict[int, list[weakref.ref[Frame]]] = {}  # by slot; weak, so that a frame of 8K takes no memory
        n_clips = 0  # not by enumerate, which would keep the last clip in memory
        for slot, clip in self._in_slots(media.read_clips(fps), is_large):
            n_clips += 1  # noqa: SIM113 - see above
            self._watch.check()
            budget.count(n_frames=media.counter.n_frames, n_pixels=media.counter.n_pixels, n_clips=n_clips)
            frames, shown = unique_frames(clip)
            self._check_sizes(frames, media.name)
            if not are_same(written.get(slot, []), frames):  # a frame may be shown for many clips
                self._buffer.write(slot, frames)
                written[slot] = [weakref.ref(frame) for frame in frames]
            sizes = [frame.shape[:2] for frame in frames]
            del clip, frames  # a frame of 8K takes 100 MB
            clip_message = {"is": "clip", "slot": slot, "sizes": sizes, "shown": shown, "warnings": media.warnings}
            send(self._sock, clip_message)
        self._watch.check()

    def _send_audio(self, blocks: Iterable[tuple[AudioFormat, Samples]], budget: ResourceBudget) -> None:
        n_samples = 0
        for slot, (audio_format, block) in self._in_slots(join_blocks(blocks)):
            n_samples += len(block)
            budget.count(n_samples=n_samples)
            self._buffer.write(slot, [block.view(np.uint8)])
            send(self._sock, {"is": "samples", "slot": slot, "n_samples": len(block), "form": asdict(audio_format)})

    def _in_slots(self, items: Iterable[T], is_large: Callable[[T], bool] = lambda _: False) -> Iterator[tuple[int, T]]:
        """Yield each item with a slot to put it in, as soon as that slot is free.

        is_large: whether an item waits for all slots and gets the first, so that the others take no memory.
        """
        n_free, slot = N_SLOTS, 0
        for item in items:
            n_needed = N_SLOTS if is_large(item) else 1
            while n_free < n_needed:
                receive(self._sock)  # the parent waits for our next message: it can only send "free"
                n_free += 1
            if n_needed == N_SLOTS:
                slot = 0
            yield slot, item
            del item
            n_free, slot = n_free - 1, (slot + 1) % N_SLOTS

    def _check_sizes(self, frames: list[Frame], name: str) -> None:
        """Check the limit again: frames can exceed it once their pixels are square, and the buffer is sized by it."""
        for frame in frames:
            height, width = frame.shape[:2]
            if height * width > self._max_frame_pixels:
                raise MediaTooLarge(
                    f"{name}: a frame of {width}x{height} square pixels; "
                    f"at most {self._max_frame_pixels} pixels expected"
                )


def check_memory(media: Media, n_bytes: int, memory_bytes: int, err: Exception) -> None:
    """Find an image's lack of memory: its decoder only reports that the packet is invalid.

    Raises: MediaTooLarge, from `err`, if the packet, its copy and the frame come near the limit.
    """
    bytes_per_pixel = 3 + (8 if media.sample_bits > 8 else 4)  # BGR, and RGBA before the conversion
    needed = 2 * n_bytes + bytes_per_pixel * media.video.width * media.video.height
    if needed > memory_bytes * 3 // 4:
        raise MediaTooLarge(
            f"{media.name}: takes about {needed >> 20} MiB to decode; "
            f"at most {memory_bytes >> 20} MiB, with the decoder's own, expected"
        ) from err


def describe_error(err: Exception, name: str, memory_bytes: int) -> Message:
    """Return the response to an error. exhausted: whether memory ran out."""
    found = translate_error(err, name, memory_bytes)
    return pack_error(found) | {"exhausted": isinstance(found, MediaTooLarge) and found is not err}


def translate_error(err: Exception, name: str, memory_bytes: int) -> Exception:
    if isinstance(err, VisemeError):
        return err
    if isinstance(err, (MemoryError, BlockingIOError)):  # EAGAIN: no room for a thread's stack
        return MediaTooLarge(f"{name}: takes over {memory_bytes >> 20} MiB to decode; that is the limit")
    if isinstance(err, av.error.FFmpegError):
        return UnsupportedMedia(f"{name}: cannot be decoded ({err.strerror})")
    logger.error("decoding %s failed", name, exc_info=err)
    return err


def is_large(clip: Clip) -> bool:
    return clip.frames[0].nbytes > CHUNK_BYTES


def join_blocks(blocks: Iterable[tuple[AudioFormat, Samples]]) -> Iterator[tuple[AudioFormat, Samples]]:
    """Join the decoder's blocks of about a thousand samples into blocks of a million."""
    pending: list[Samples] = []
    n_pending = 0
    audio_format = AudioFormat(0)
    for audio_format, block in blocks:
        if len(block):
            pending.append(block)
            n_pending += len(block)
        if n_pending >= BLOCK_SAMPLES:
            yield audio_format, np.concatenate(pending)
            pending, n_pending = [], 0
    if pending:
        yield audio_format, np.concatenate(pending)


def are_same(written: list[weakref.ref[Frame]], frames: list[Frame]) -> bool:
    return len(written) == len(frames) and all(ref() is frame for ref, frame in zip(written, frames, strict=True))


def unique_frames(clip: Clip) -> tuple[list[Frame], list[int]]:
    """Return each frame of the clip once, and for each tick the index of its frame.

    Repeated frames are adjacent.
    """
    frames: list[Frame] = []
    shown = []
    for frame in clip.frames:
        if not frames or frames[-1] is not frame:
            frames.append(frame)
        shown.append(len(frames) - 1)
    return frames, shown
