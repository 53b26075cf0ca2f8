"""Sandboxed decoding of untrusted media: the parent's side.

A hostile file can only harm a child process that holds no models, no credentials and no connection but the one to this
process, in bounded memory and time. Walls keep it from files, the network and other processes; see `confinement`. Linux
only: memfd, SCM_RIGHTS, RLIMIT_AS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from types import TracebackType
from typing import IO, Literal, Self

import numpy as np

from inference.errors import InvalidRequest, MediaTooLarge, NotReady, OutOfMemory, UnsupportedMedia, VisemeError
from inference.media.audio_convert import AAC_RATES, MAX_CHANNELS, AudioFormat, Samples
from inference.media.audio_spool import SAMPLE_BYTES, AudioSpool, spool_blocks
from inference.media.files import Source, open_bytes
from inference.media.frames import Clip
from inference.media.limits import MediaLimits
from inference.media.media_warnings import AUDIO_WARNINGS, VIDEO_WARNINGS
from inference.media.sandbox.budget import CPU_S
from inference.media.sandbox.confinement import Wall
from inference.media.sandbox.forked_process import ForkServer
from inference.media.sandbox.messages import Message, receive, send, unpack_error
from inference.media.sandbox.shared_memory import SharedFrameBuffer, slot_bytes_for
from inference.media.video import VideoInfo
from inference.tracing import span

# Address space: it includes the interpreter and its libraries (0.2 GB) and the frame buffer (0.3 GB for 8K).
# Decoding an 8K H.264 video takes 1.4 GB in total.
MEMORY_BYTES = 4 << 30
FILE_TIMEOUT_S = 1800.0  # waiting for one file, in total
RESPONSE_TIMEOUT_S = 30.0  # waiting for one response
START_TIMEOUT_S = 60.0  # starting the child takes 0.3 s, but longer on a machine that starts many of them
EXIT_TIMEOUT_S = 5.0  # between the end of a child's socket and the end of its process
logger = logging.getLogger("viseme.media")


class SandboxedDecoder:
    """Child processes that decode one file each, one at a time; `open` can replace `open_media`.

    Not for several threads at once: use one per worker. The child for the next file is started when the last file is
    closed, so that it is warm. Close the decoder, or use it as a context manager.
    """

    def __init__(
        self,
        limits: MediaLimits | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        file_timeout_s: float = FILE_TIMEOUT_S,
        response_timeout_s: float = RESPONSE_TIMEOUT_S,
    ) -> None:
        """Start a child; `warm_up` waits until it is ready.

        limits: for files opened without limits; no others may allow larger frames.
        memory_bytes: the child's address space. file_timeout_s: limit on the total wait for one file; time that the
        consumer spends does not count. response_timeout_s: limit on the wait for one response.
        Raises: NotReady if no process can be started.
        """
        self._limits = limits or MediaLimits()
        self._memory_bytes = memory_bytes
        self._file_timeout_s = file_timeout_s
        self._response_timeout_s = response_timeout_s
        self._is_closed = False
        self._open: SandboxedMedia | None = None
        self._server: ForkServer | None = None
        self._process: DecoderProcess | None = None
        self._buffer = SharedFrameBuffer.create(slot_bytes_for(self._limits.max_frame_pixels))
        try:
            self._start_process()
        except NotReady:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The child's process ID; None if there is no child."""
        return self._process.pid if self._process else None

    def warm_up(self) -> None:
        """Wait until a child is ready. Raises: NotReady if it does not start."""
        self._ready_process()

    @contextmanager
    def open(self, source: Source, limits: MediaLimits | None = None) -> Iterator[SandboxedMedia]:
        """Open an untrusted video or image; see `open_media`.

        Raises: as `open_media`. Also, here and while frames are read: MediaTooLarge if decoding takes more memory or
        time than the child has, UnsupportedMedia if the decoder crashes, OutOfMemory if the system kills it, NotReady
        if none can be started, InvalidRequest if `limits` allow larger frames than this decoder was made for.
        """
        limits = limits or self._limits
        if limits.max_frame_pixels > self._limits.max_frame_pixels:
            raise InvalidRequest(
                f"limit of {limits.max_frame_pixels} pixels per frame; "
                f"this decoder was made for {self._limits.max_frame_pixels}"
            )
        self._check_free()
        with open_bytes(source, limits) as (file, name), as_descriptor(source, file) as fd:
            media = SandboxedMedia(
                self._ready_process(), self._buffer, name, self._file_timeout_s, self._response_timeout_s
            )
            self._open = media
            try:
                media.open(fd, limits)
            except BaseException:
                self._release(media)
                raise
        try:
            with span("decode"):
                yield media
        finally:
            self._release(media)

    def spool_audio(self, source: Source, limits: MediaLimits | None = None) -> AudioSpool:
        """Decode a file's audio losslessly; see `audio_spool.spool_audio`. Raises: as that function and `open`."""
        limits = limits or self._limits
        self._check_free()
        with open_bytes(source, limits) as (file, name), as_descriptor(source, file) as fd:
            media = SandboxedMedia(
                self._ready_process(), self._buffer, name, self._file_timeout_s, self._response_timeout_s
            )
            self._open = media
            try:
                warnings: list[str] = []
                return spool_blocks(media.read_audio(fd, limits, warnings), name, warnings)
            finally:
                self._release(media)

    def _check_free(self) -> None:
        if self._open is not None:
            raise RuntimeError(f"{self._open.name} is open: a decoder reads one file at a time")

    def close(self) -> None:
        """End the child and free its memory. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._kill()
            self._end_server()
            self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ready_process(self) -> DecoderProcess:
        """Return a child that is ready: the current one or a new one."""
        if self._is_closed:
            raise RuntimeError("the decoder is closed")
        if self._process is not None and not self._process.is_alive():
            self._kill()  # it died between two files: no file is to blame
        process = self._process or self._start_process()
        try:
            process.wait_until_ready()
        except BaseException:
            self._kill()
            raise
        return process

    def _start_process(self) -> DecoderProcess:
        """Start a child without waiting for it. Raises: NotReady."""
        try:
            if self._server is not None and not self._server.is_alive():
                self._end_server()
            self._server = self._server or ForkServer()
            self._process = DecoderProcess(self._server, self._buffer, self._memory_bytes)
        except OSError as err:
            raise NotReady(f"no decoder can be started: {err.strerror or err}") from err
        return self._process

    def _release(self, media: SandboxedMedia) -> None:
        """End the child, and start one for the next file: one that a file has taken over must not see another."""
        self._open = None
        if self._is_closed:
            return
        if media.state == "exhausted":
            logger.info("decoder %s ran out of memory", self.pid)
        elif media.state == "busy":
            logger.warning("decoder %s ended in the middle of a file", self.pid)
        self._kill()
        if media.is_suspect:  # its process may have tried an address: the next ones get others
            self._end_server()
        media.state = "closed"
        self._buffer.clear()
        with contextlib.suppress(NotReady):  # the next file tries again, and reports the error
            self._start_process()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class SandboxedMedia:
    """A file that is open in the child. Made by `SandboxedDecoder.open`; its frames can be read once."""

    video: VideoInfo

    def __init__(
        self,
        process: DecoderProcess,
        buffer: SharedFrameBuffer,
        name: str,
        file_timeout_s: float,
        response_timeout_s: float,
    ) -> None:
        self.name = name
        self.warnings: tuple[str, ...] = ()  # about the frames read so far
        # closed: the child has no file. idle: it has one and waits for a request. busy: it owes a response.
        # exhausted: it has no file, but ran out of memory.
        self.state: Literal["closed", "idle", "busy", "exhausted"] = "closed"
        self.is_suspect = False  # its process crashed, or did not keep to the protocol
        self._process = process
        self._buffer = buffer
        self._file_timeout_s = file_timeout_s
        self._response_timeout_s = response_timeout_s
        self._waited_s = 0.0

    def open(self, fd: int, limits: MediaLimits) -> None:
        self._send({"do": "open", "name": self.name, "limits": asdict(limits)}, fd)
        response = self._receive()
        try:
            self.video = VideoInfo(**response["video"])
        except (KeyError, TypeError) as err:
            raise self._protocol_error() from err
        self.state = "idle"

    def read_clips(self, fps: float) -> Iterator[Clip]:
        """Decode to clips at exactly `fps` frames a second, upright, BGR, as `Media.read_clips` does.

        The caller owns the frames. The child works ahead by three clips at most.
        Raises: as `SandboxedDecoder.open`.
        """
        if self.state != "idle":
            raise ValueError(f"{self.name} is {self.state}; its frames cannot be read")
        self._send({"do": "read", "fps": fps})
        while (response := self._receive()).get("is") != "end":
            self.warnings = known_warnings(response, VIDEO_WARNINGS)
            clip = self._copy_clip(response, fps)
            self._send({"do": "free"})
            yield clip
        self.warnings = known_warnings(response, VIDEO_WARNINGS)
        self.state = "idle"

    def read_audio(self, fd: int, limits: MediaLimits, warnings: list[str]) -> Iterator[tuple[AudioFormat, Samples]]:
        """Decode a file's audio block by block, each (n,) int16; the child has closed the file at the end.

        warnings: those of the child are added at the end.
        """
        audio_format: AudioFormat | None = None
        self._send({"do": "sound", "name": self.name, "limits": asdict(limits)}, fd)
        n_read = 0
        while (response := self._receive()).get("is") == "samples":
            try:
                audio_format = self._check_format(AudioFormat(**response["form"]), audio_format)
                n_read += self._check_count(response["n_samples"])
                if n_read > limits.max_duration_s * audio_format.rate * audio_format.n_channels:
                    raise self._protocol_error()
                block = self._buffer.read_bytes(response["slot"], response["n_samples"] * SAMPLE_BYTES).view(np.int16)
            except (KeyError, TypeError, ValueError) as err:
                raise self._protocol_error() from err
            self._send({"do": "free"})
            yield audio_format, block
        if response.get("is") != "closed":
            raise self._protocol_error()
        warnings.extend(known_warnings(response, AUDIO_WARNINGS))
        self.state = "closed"

    def _check_format(self, found: AudioFormat, expected: AudioFormat | None) -> AudioFormat:
        if found != expected and expected is not None:
            raise self._protocol_error()
        if expected is None and (found.rate not in AAC_RATES or found.n_channels not in range(1, MAX_CHANNELS + 1)):
            raise self._protocol_error()
        return found

    def _check_count(self, n_samples: object) -> int:
        if not isinstance(n_samples, int) or n_samples < 1:
            raise self._protocol_error()
        return n_samples

    def _copy_clip(self, response: Message, fps: float) -> Clip:
        try:
            frames = self._buffer.read(response["slot"], response["sizes"])
            return Clip(tuple(frames[i] for i in response["shown"]), fps)
        except (KeyError, IndexError, TypeError, ValueError) as err:
            raise self._protocol_error() from err

    def _send(self, request: Message, *files: int) -> None:
        self.state = "busy"
        try:
            self._process.send(request, *files)
        except TimeoutError as err:
            raise self._timeout_error(self._response_timeout_s) from err
        except OSError as err:
            raise self._exit_error() from err

    def _receive(self) -> Message:
        """Return the child's response. Raises: the error that the child reports, or that describes its end."""
        if self.state != "busy":  # a generator that outlived its file
            raise ValueError(f"{self.name}: read after it was closed")
        left_s = self._file_timeout_s - self._waited_s
        start = time.monotonic()
        try:
            response = self._process.receive(max(min(self._response_timeout_s, left_s), 0.0))
        except TimeoutError as err:
            raise self._timeout_error(left_s) from err
        except EOFError as err:
            raise self._exit_error() from err
        except ValueError as err:
            raise self._protocol_error() from err
        finally:
            self._waited_s += time.monotonic() - start
        if response.get("is") == "error":
            self.state = "exhausted" if response.get("exhausted") else "closed"
            raise unpack_error(response, self.name)
        return response

    def _timeout_error(self, left_s: float) -> MediaTooLarge:
        if left_s < self._response_timeout_s:
            return MediaTooLarge(
                f"{self.name}: decoding takes over {self._file_timeout_s:g} s in total; that is the limit"
            )
        return MediaTooLarge(
            f"{self.name}: the decoder did not respond for {self._response_timeout_s:g} s; that is the limit"
        )

    def _exit_error(self) -> VisemeError:
        code = self._process.wait_for_exit()
        if code == -signal.SIGKILL:
            return OutOfMemory(
                f"{self.name}: the decoder was killed while reading it; the machine may have run out of memory"
            )
        if code == -signal.SIGXCPU:
            return MediaTooLarge(
                f"{self.name}: decoding takes {CPU_S:g} s of CPU time more than expected for its frames and samples; "
                "that is the limit"
            )
        self.is_suspect = True
        return UnsupportedMedia(f"{self.name}: the decoder crashed on it ({describe_exit(code)})")

    def _protocol_error(self) -> UnsupportedMedia:
        self.state, self.is_suspect = "busy", True
        return UnsupportedMedia(f"{self.name}: the decoder sent an invalid response; the file may be damaged")


class DecoderProcess:
    """A child process and the socket to it."""

    def __init__(self, server: ForkServer, buffer: SharedFrameBuffer, memory_bytes: int) -> None:
        """Start a child without waiting for it."""
        self._is_ready = False
        self._server = server
        self._sock, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with child_end:
            self._process = server.fork(child_end)
        with contextlib.suppress(OSError):  # dead already: `wait_until_ready` reports it
            self.send({"do": "start", "slot_bytes": buffer.slot_bytes, "memory_bytes": memory_bytes}, buffer.fd)

    @property
    def pid(self) -> int:
        """Its process ID. Raises: NotReady if it does not start."""
        self.wait_until_ready()
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        if self._is_ready:
            return
        self._sock.settimeout(START_TIMEOUT_S)
        try:
            started, files = receive(self._sock, max_files=1)
            self._process.identify(int(started["pid"]), files[0] if files else None)
            response, _ = receive(self._sock)
        except TimeoutError as err:
            raise NotReady(f"the decoder did not start within {START_TIMEOUT_S:g} s") from err
        except (EOFError, ValueError) as err:
            raise NotReady(f"the decoder did not start ({describe_exit(self.wait_for_exit())})") from err
        log_missing_walls(describe_walls(response.get("missing", {})))
        self._is_ready = True

    def send(self, message: Message, *files: int) -> None:
        """Send a message with file descriptors.

        Raises: OSError if the child is gone, TimeoutError if its queue is full.
        """
        self._sock.settimeout(RESPONSE_TIMEOUT_S)
        send(self._sock, message, *files)

    def receive(self, timeout_s: float) -> Message:
        """Return the next message. Raises: TimeoutError, EOFError, ValueError if it is not a valid message."""
        self._sock.settimeout(max(timeout_s, 1e-3))  # 0 would make the socket non-blocking, with another error
        message, _ = receive(self._sock)
        return message

    def wait_for_exit(self) -> int:
        """Return the exit code, negative for a signal. A child that closed its socket but lives is killed."""
        try:
            return self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        self._sock.close()  # ends it, too, unless it is stopped
        self._process.kill()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # the server does not fork, or does not report
            self._server.close()
            self._process.wait()


def known_warnings(response: Message, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the warnings of a response, of these only: a file may have taken over the child."""
    found = response.get("warnings")
    return tuple(one for one in known if isinstance(found, list) and one in found)


def describe_walls(missing: Mapping[Wall, str]) -> str:
    return "; ".join(f"{wall}: {reason}" for wall, reason in missing.items())


@cache  # once in a process
def log_missing_walls(missing: str) -> None:
    """Log what the platform lacks: a warning without seccomp, which is a wall by itself."""
    if missing:
        level = logging.WARNING if "seccomp" in missing else logging.INFO
        logger.log(level, "decoders of media run without these walls: %s", missing)


def describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def as_descriptor(source: Source, file: IO[bytes]) -> Iterator[int]:
    """Yield a file descriptor for the file, or for a memory file that holds the bytes."""
    if not isinstance(source, bytes):
        yield file.fileno()
        return
    fd = os.memfd_create("viseme-media", os.MFD_CLOEXEC)
    with os.fdopen(fd, "r+b") as copy:
        copy.write(source)
        copy.flush()
        copy.seek(0)
        yield fd
