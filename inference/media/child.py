"""Untrusted media decoded in another process: the parent's side.

What a hostile file does to FFmpeg, it does to a child that holds no models, no credentials and no
connection but ours, in bounded memory and time. For Linux only: memfd, SCM_RIGHTS, RLIMIT_AS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import numpy as np

from inference.errors import InvalidRequest, MediaTooLarge, NotReady, OutOfMemory, UnsupportedMedia, VisemeError
from inference.media.frames import Clip
from inference.media.limits import MediaLimits
from inference.media.open import Source, VideoInfo, open_bytes
from inference.media.ring import Ring, slot_bytes_for
from inference.media.sound import AAC_RATES, MOST_CHANNELS, Samples, SoundForm, join_samples, without_form
from inference.media.voice import SAMPLE_BYTES, Voice, keep_voice
from inference.media.wire import Message, receive, send, unpack_error

# Address space, which counts the interpreter and its libraries (0.2 GB) and the ring (0.3 GB for 8K).
# All in all an 8K H.264 film takes 1.4 GB.
MEMORY_BYTES = 4 << 30
TIME_S = 1800.0  # waited for one file, all in all
STALL_S = 30.0  # waited for one answer
START_S = 60.0  # for the child to start: 0.3 s, but a machine that starts many of them is slow
DEATH_S = 5.0  # between the end of a child's socket and the end of its process
log = logging.getLogger(__name__)


class MediaChild:
    """A warm child process that decodes one file at a time; its `open` is a door like `open_media`.

    Not for several threads at once: one child per worker. A child that dies, hangs or is left in the
    middle of a file is killed, and the next file gets a new one. To be closed, or used as a context
    manager.
    """

    def __init__(
        self,
        limits: MediaLimits | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        time_s: float = TIME_S,
        stall_s: float = STALL_S,
    ) -> None:
        """Start a child; `warm_up` waits until it is there.

        limits: for what is opened without any; no others may allow larger pictures.
        memory_bytes: the child's address space. time_s: how long one file may keep us waiting, all in
        all; what its consumer does meanwhile does not count. stall_s: how long any one answer may.
        Raises: NotReady where no process can be started.
        """
        self._limits = limits or MediaLimits()
        self._memory_bytes = memory_bytes
        self._time_s = time_s
        self._stall_s = stall_s
        self._is_closed = False
        self._open: ChildMedia | None = None
        self._link: Link | None = None
        self._ring = Ring.create(slot_bytes_for(self._limits.max_frame_pixels))
        try:
            self._link = Link(self._ring, memory_bytes)
        except NotReady:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The child's; None while there is none."""
        return self._link.pid if self._link else None

    def warm_up(self) -> None:
        """Wait until a child is ready. Raises: NotReady where it does not start."""
        self._find_link()

    @contextmanager
    def open(self, source: Source, limits: MediaLimits | None = None) -> Iterator[ChildMedia]:
        """Open a video or picture that nobody vouches for; see `open_media`.

        Raises: as `open_media` does. Besides, here and while frames are read: MediaTooLarge where
        decoding takes more memory or time than the child has, UnsupportedMedia where the decoder
        crashes, OutOfMemory where the machine kills it, NotReady where none can be started.
        InvalidRequest for limits on a picture above those the child was made for.
        """
        limits = limits or self._limits
        if limits.max_frame_pixels > self._limits.max_frame_pixels:
            raise InvalidRequest(
                f"pictures of up to {limits.max_frame_pixels} pixels; "
                f"this decoder was made for {self._limits.max_frame_pixels}"
            )
        self._check_free()
        with open_bytes(source, limits) as (file, name), as_descriptor(source, file) as fd:
            media = ChildMedia(self._find_link(), self._ring, name, self._time_s, self._stall_s)
            self._open = media
            try:
                media.open(fd, limits)
            except BaseException:
                self._leave(media)
                raise
        try:
            yield media
        finally:
            self._leave(media)

    def read_sound(self, source: Source, rate: int, limits: MediaLimits | None = None) -> Samples:
        """All of a file's sound: (N,) int16, mono, `rate` samples a second; see `sound.read_sound`.

        Raises: as that does, and as `open`.
        """
        with self._sound_of(source, SoundForm(rate), limits) as (pieces, name):
            return join_samples(without_form(pieces), name)

    def read_voice(self, source: Source, limits: MediaLimits | None = None) -> Voice:
        """All of a file's sound, as good as it came; see `voice.read_voice`. Raises: as that does, and as `open`."""
        with self._sound_of(source, None, limits) as (pieces, name):
            return keep_voice(pieces, name)

    @contextmanager
    def _sound_of(
        self, source: Source, form: SoundForm | None, limits: MediaLimits | None
    ) -> Iterator[tuple[Iterator[tuple[SoundForm, Samples]], str]]:
        limits = limits or self._limits
        self._check_free()
        with open_bytes(source, limits) as (file, name), as_descriptor(source, file) as fd:
            media = ChildMedia(self._find_link(), self._ring, name, self._time_s, self._stall_s)
            self._open = media
            try:
                yield media.read_sound(fd, form, limits), name
            finally:
                self._leave(media)

    def _check_free(self) -> None:
        if self._open is not None:
            raise RuntimeError(f"{self._open.name} is open: a decoder reads one file at a time")

    def close(self) -> None:
        """End the child and give its memory back. Harmless when done twice."""
        if not self._is_closed:
            self._is_closed = True
            self._stop()
            self._ring.close()

    def __enter__(self) -> MediaChild:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _find_link(self) -> Link:
        """To a child that is ready: the one there is, or a new one."""
        if self._is_closed:
            raise RuntimeError("the decoder is closed")
        if self._link is not None and not self._link.is_alive():
            self._stop()  # it died between two files: nobody's fault
        if self._link is None:
            self._link = Link(self._ring, self._memory_bytes)
        try:
            self._link.wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self._link

    def _leave(self, media: ChildMedia) -> None:
        """Have the child let go of the file, or end it and warm up another."""
        self._open = None
        if self._is_closed:
            return
        media.close()
        if media.state == "closed":
            self._ring.trim()
            return
        log.warning("decoder %s ended in the middle of a file; starting another", self.pid)
        self._stop()
        media.state = "closed"
        self._ring.trim()
        with contextlib.suppress(NotReady):  # the next file tries again, and is told
            self._link = Link(self._ring, self._memory_bytes)

    def _stop(self) -> None:
        if self._link is not None:
            self._link.kill()
            self._link = None


class ChildMedia:
    """A file that is open in the child. Made by `MediaChild.open`; reads its pictures once."""

    video: VideoInfo

    def __init__(self, link: Link, ring: Ring, name: str, time_s: float, stall_s: float) -> None:
        self.name = name
        # closed: the child has no file. idle: it has, and waits for a wish. busy: it owes an answer.
        self.state: Literal["closed", "idle", "busy"] = "closed"
        self._link = link
        self._ring = ring
        self._time_s = time_s
        self._stall_s = stall_s
        self._waited_s = 0.0

    def open(self, fd: int, limits: MediaLimits) -> None:
        self._ask({"do": "open", "name": self.name, "limits": asdict(limits)}, fd)
        answer = self._hear()
        try:
            self.video = VideoInfo(**answer["video"])
        except (KeyError, TypeError) as err:
            raise self._nonsense() from err
        self.state = "idle"

    def read_clips(self, fps: float) -> Iterator[Clip]:
        """Decode to clips at exactly `fps` frames a second, upright, BGR; as `Media.read_clips` does.

        The frames are the caller's own. The child works ahead by three clips at most.
        Raises: as `MediaChild.open`.
        """
        if self.state != "idle":
            raise ValueError(f"{self.name} is {self.state}; its pictures can't be read")
        self._ask({"do": "read", "fps": fps})
        while (answer := self._hear()).get("is") != "end":
            clip = self._copy_out(answer, fps)
            self._ask({"do": "free"})
            yield clip
        self.state = "idle"

    def read_sound(self, fd: int, form: SoundForm | None, limits: MediaLimits) -> Iterator[tuple[SoundForm, Samples]]:
        """The file's sound, piece by piece; the child has let go of it at the end."""
        rate = None if form is None else form.rate
        self._ask({"do": "sound", "name": self.name, "rate": rate, "limits": asdict(limits)}, fd)
        n_read = 0
        while (answer := self._hear()).get("is") == "samples":
            try:
                form = self._check_form(SoundForm(**answer["form"]), form)
                n_read += self._check_count(answer["n_samples"])
                if n_read > limits.max_duration_s * form.rate * form.n_channels:
                    raise self._nonsense()
                piece = self._ring.read_bytes(answer["slot"], answer["n_samples"] * SAMPLE_BYTES).view(np.int16)
            except (KeyError, TypeError, ValueError) as err:
                raise self._nonsense() from err
            self._ask({"do": "free"})
            yield form, piece
        if answer.get("is") != "closed":
            raise self._nonsense()
        self.state = "closed"

    def _check_form(self, found: SoundForm, expected: SoundForm | None) -> SoundForm:
        if found != expected and expected is not None:
            raise self._nonsense()
        if expected is None and (found.rate not in AAC_RATES or found.n_channels not in range(1, MOST_CHANNELS + 1)):
            raise self._nonsense()
        return found

    def _check_count(self, n_samples: object) -> int:
        if not isinstance(n_samples, int) or n_samples < 1:
            raise self._nonsense()
        return n_samples

    def close(self) -> None:
        """Have the child close the file, where it listens; `state` tells."""
        if self.state != "idle":
            return
        with contextlib.suppress(VisemeError, RuntimeError):  # the frames are read: what goes wrong now costs a child
            self._ask({"do": "close"})
            if self._hear().get("is") == "closed":
                self.state = "closed"

    def _copy_out(self, answer: Message, fps: float) -> Clip:
        try:
            frames = self._ring.read(answer["slot"], answer["sizes"])
            return Clip(tuple(frames[i] for i in answer["shown"]), fps)
        except (KeyError, IndexError, TypeError, ValueError) as err:
            raise self._nonsense() from err

    def _ask(self, wish: Message, *files: int) -> None:
        self.state = "busy"
        try:
            self._link.send(wish, *files)
        except TimeoutError as err:
            raise self._too_slow(self._stall_s) from err
        except OSError as err:
            raise self._explain_death() from err

    def _hear(self) -> Message:
        """The child's answer. Raises: what the child raised, or what became of it."""
        if self.state != "busy":  # a generator that outlived its file
            raise ValueError(f"{self.name}: read after it was closed")
        left_s = self._time_s - self._waited_s
        start = time.monotonic()
        try:
            answer = self._link.receive(max(min(self._stall_s, left_s), 0.0))
        except TimeoutError as err:
            raise self._too_slow(left_s) from err
        except EOFError as err:
            raise self._explain_death() from err
        except ValueError as err:
            raise self._nonsense() from err
        finally:
            self._waited_s += time.monotonic() - start
        if answer.get("is") == "error":
            self.state = "closed"
            raise unpack_error(answer, self.name)
        return answer

    def _too_slow(self, left_s: float) -> MediaTooLarge:
        if left_s < self._stall_s:
            return MediaTooLarge(f"{self.name}: decoding takes over {self._time_s:g} s in all; that is the limit")
        return MediaTooLarge(f"{self.name}: the decoder is silent for {self._stall_s:g} s; that is the limit")

    def _explain_death(self) -> VisemeError:
        code = self._link.wait_for_end()
        if code == -signal.SIGKILL:
            return OutOfMemory(
                f"{self.name}: the decoder was killed while it read this, as by a machine that runs out of memory"
            )
        return UnsupportedMedia(f"{self.name}: the decoder crashed on it ({describe_exit(code)})")

    def _nonsense(self) -> UnsupportedMedia:
        self.state = "busy"
        return UnsupportedMedia(f"{self.name}: the decoder lost its way in it")


class Link:
    """A child process and the socket to it."""

    def __init__(self, ring: Ring, memory_bytes: int) -> None:
        """Start a child without waiting for it. Raises: NotReady."""
        self._is_ready = False
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = start_child(theirs)
            except OSError as err:
                self._sock.close()
                raise NotReady(f"no decoder can be started: {err.strerror or err}") from err
        with contextlib.suppress(OSError):  # dead already: `wait_until_ready` says so
            self.send({"do": "start", "slot_bytes": ring.slot_bytes, "memory_bytes": memory_bytes}, ring.fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self.receive(START_S)
        except TimeoutError as err:
            raise NotReady(f"the decoder did not start within {START_S:g} s") from err
        except (EOFError, ValueError) as err:
            raise NotReady(f"the decoder did not start ({describe_exit(self.wait_for_end())})") from err
        self._is_ready = True

    def send(self, message: Message, *files: int) -> None:
        """Raises: OSError where the child is gone, TimeoutError where its queue is full."""
        self._sock.settimeout(STALL_S)
        send(self._sock, message, *files)

    def receive(self, timeout_s: float) -> Message:
        """Raises: TimeoutError, EOFError, ValueError for what is no message."""
        self._sock.settimeout(max(timeout_s, 1e-3))  # 0 would mean: do not wait at all, and say so otherwise
        message, _ = receive(self._sock)
        return message

    def wait_for_end(self) -> int:
        """The exit code; negative for a signal. A child that shut its socket but lives is killed."""
        try:
            return self._process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._sock.close()


def start_child(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """A fresh interpreter (never a fork: this process has threads), its socket in place of stdin.

    Nothing of our environment goes along, since it holds credentials, but where modules are found.
    """
    environment = {
        "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
        "OPENBLAS_NUM_THREADS": "1",  # numpy only copies there; its threads would take address space
        "MALLOC_ARENA_MAX": "2",  # glibc reserves 64 MB of address space for each
        # Freed frames stay in the heap: to take their pages anew, clip for clip, costs 40 % more CPU time.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-X", "utf8", "-m", "inference.media.child_main"],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=None if is_open(2) else subprocess.DEVNULL,  # else the next file to be opened would take its place
        cwd="/",
        env=environment,
    )


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def as_descriptor(source: Source, file: IO[bytes]) -> Iterator[int]:
    """The file, or the bytes in memory, as something to hand over."""
    if not isinstance(source, bytes):
        yield file.fileno()
        return
    fd = os.memfd_create("viseme-media", os.MFD_CLOEXEC)
    with os.fdopen(fd, "r+b") as copy:
        copy.write(source)
        copy.flush()
        copy.seek(0)
        yield fd
