"""Speech synthesis by the program espeak-ng (https://github.com/espeak-ng/espeak-ng), in a bounded process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import resource
import shutil
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from container.speech.requests import SpeechRequest, describe_options
from inference.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MediaTooLarge,
    Overloaded,
    SpeechUnavailable,
    WorkerDied,
)
from inference.settings import present_variables

PROGRAM = "espeak-ng"
VOICES = {"en": "en-gb", "fr": "fr-fr", "zh": "cmn"}  # espeak-ng's names of languages, if they differ from ours
MAX_SPEECH_S = 300
MAX_SPEECH_BYTES = MAX_SPEECH_S * 22_050 * 2  # 16-bit mono at espeak-ng's rate
TIMEOUT_S = 30.0  # seconds for one text; 2000 characters take under a second
MAX_RUNNING = 2  # processes
MAX_WAITING = 16  # texts
READ_BYTES = 64 << 10
MAX_STDERR_CHARACTERS = 200
LIMITS = {
    resource.RLIMIT_AS: 512 << 20,
    resource.RLIMIT_CPU: int(TIMEOUT_S),
    resource.RLIMIT_FSIZE: 128 << 20,  # the client of PulseAudio, with which espeak-ng is linked, maps a file of 64 MiB
    resource.RLIMIT_CORE: 0,
}
PASSED_VARIABLES = ("PATH", "ESPEAK_DATA_PATH")  # nothing else of the environment, such as credentials


class Synthesizer(Protocol):
    """What speaks texts."""

    @property
    def is_available(self) -> bool: ...

    def describe(self) -> dict[str, Any]:
        """Return what a request may contain, as JSON values."""

    def check(self, request: SpeechRequest) -> None:
        """Check that a request can be spoken. Raises: SpeechUnavailable, InvalidRequest."""

    async def synthesize(self, request: SpeechRequest) -> bytes:
        """Return the speech as a WAV file, 16-bit mono. Raises: as `check`, and for what `SpeechSynthesizer` names."""


class SpeechSynthesizer:
    """Runs espeak-ng, a few processes at a time."""

    def __init__(self, program: str = PROGRAM, timeout_s: float = TIMEOUT_S) -> None:
        """program: a name that is searched for in PATH, or a path."""
        self._program, self._timeout_s = program, timeout_s
        self._running = asyncio.Semaphore(MAX_RUNNING)
        self._n_admitted = 0

    @property
    def is_available(self) -> bool:
        return shutil.which(self._program) is not None

    def describe(self) -> dict[str, Any]:
        return {"synthesizer": PROGRAM, "voices": []} | describe_options()

    def check(self, request: SpeechRequest) -> None:
        if not self.is_available:
            raise SpeechUnavailable("espeak-ng is not installed on this server; expected it in PATH, or send audio")
        if request.voice is not None:
            raise InvalidRequest(
                f'"voice": found {request.voice}; expected none, as espeak-ng has one for each language'
            )

    async def synthesize(self, request: SpeechRequest) -> bytes:
        """Return the speech as a WAV file, 16-bit mono.

        Raises: SpeechUnavailable if espeak-ng is not installed, Overloaded if too many texts wait, DeadlineExceeded,
        MediaTooLarge if the speech is too long, WorkerDied if espeak-ng fails, InvalidRequest if it names a voice.
        """
        self.check(request)
        return rewrite_wav(await self.run(["--stdout", *arguments_of(request)], request.text))

    async def run(self, arguments: Sequence[str], text: str) -> bytes:
        """Return what espeak-ng writes for a text. Raises: as `synthesize`."""
        path = shutil.which(self._program)
        if path is None:
            raise SpeechUnavailable("espeak-ng is not installed on this server; expected it in PATH, or send audio")
        async with self._admit():
            try:
                async with asyncio.timeout(self._timeout_s):
                    command = [path, "--stdin", "-b", "1", *arguments]
                    return await run_program(command, escape_phonemes(text).encode())
            except TimeoutError as err:
                raise DeadlineExceeded(f"speech synthesis: not done after {self._timeout_s:g} s") from err

    @asynccontextmanager
    async def _admit(self) -> AsyncIterator[None]:
        if self._n_admitted >= MAX_RUNNING + MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} texts wait to be spoken, which is the limit; try again later")
        self._n_admitted += 1
        try:
            async with self._running:
                yield
        finally:
            self._n_admitted -= 1


def arguments_of(request: SpeechRequest) -> list[str]:
    """Return espeak-ng's rate and voice; the text is not an argument, so that it cannot be an option."""
    return ["-s", str(request.rate), "-v", VOICES.get(request.language, request.language)]


def escape_phonemes(text: str) -> str:
    """Separate double brackets, between which espeak-ng expects names of phonemes instead of words."""
    return text.replace("[[", "[ [").replace("[[", "[ [")


async def run_program(command: list[str], text: bytes) -> bytes:
    """Return what a program writes for a text. It is killed if this is canceled.

    Its limits are set while it waits for the text. Raises: MediaTooLarge, WorkerDied.
    """
    environment = present_variables(PASSED_VARIABLES) | {"LANG": "C.UTF-8"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    try:
        limit_resources(process.pid)
        _, output, errors = await asyncio.gather(write_text(process, text), read_output(process), read_errors(process))
        status = await process.wait()
    finally:
        await end_process(process)
    if len(output) > MAX_SPEECH_BYTES:
        raise MediaTooLarge(f'"text": its speech is longer than {MAX_SPEECH_S} s; expected less text')
    if status != 0:
        raise WorkerDied(f"{PROGRAM} ended with {status}: {errors or 'without a message'}")
    return output


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs, and read its pipes to their ends: until then, they stay open."""
    kill(process)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        while await pipe.read(READ_BYTES):
            pass
    await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def limit_resources(pid: int) -> None:
    """Bound the memory, CPU time and files of a process."""
    with contextlib.suppress(ProcessLookupError):  # it has ended: its status says why
        for kind, limit in LIMITS.items():
            _, hard = resource.prlimit(pid, kind)
            lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.prlimit(pid, kind, (lowest, lowest))


async def write_text(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it reads no more: its status says why
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()


async def read_output(process: asyncio.subprocess.Process) -> bytes:
    """Return the output. If it is over its limit, kill the process and return somewhat more than that."""
    assert process.stdout is not None
    output = bytearray()
    while piece := await process.stdout.read(READ_BYTES):
        if len(output) <= MAX_SPEECH_BYTES:
            output += piece
        else:
            kill(process)
    return bytes(output)


async def read_errors(process: asyncio.subprocess.Process) -> str:
    """Return the start of the messages, and discard the rest."""
    assert process.stderr is not None
    start = b""
    while piece := await process.stderr.read(READ_BYTES):
        start = (start + piece)[:MAX_STDERR_CHARACTERS]
    return start.decode("utf-8", "replace").strip()


def rewrite_wav(output: bytes) -> bytes:
    """Return a WAV file with its true length: espeak-ng writes its header before it knows that.

    Raises: WorkerDied if the output is no WAV file of 16-bit samples, or an empty one.
    """
    try:
        with wave.open(io.BytesIO(output)) as file:
            n_channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(MAX_SPEECH_BYTES // (n_channels * width))
    except (wave.Error, EOFError) as err:
        raise WorkerDied(f"{PROGRAM} wrote {len(output)} bytes that are no WAV file") from err
    if width != 2 or not samples:
        raise WorkerDied(f"{PROGRAM} wrote {len(samples)} bytes of {8 * width}-bit samples; expected 16-bit samples")
    found = io.BytesIO()
    with wave.open(found, "wb") as copy:
        copy.setparams((n_channels, width, rate, 0, "NONE", ""))
        copy.writeframes(samples)
    return found.getvalue()
