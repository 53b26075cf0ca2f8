"""Runs the product on one input of `bench.cases`: a process that loads the models once and can be ended in time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.attack_server import descendants_of

RUN = "import sys; from container.cli import main; sys.exit(main(sys.argv[1:]))"
LIMIT_S = 180.0
NOT_ENDED = "did not end within"


@dataclass(frozen=True)
class Outcome:
    """What the product did with an input.

    error: class and message of the exception, "" if there was none. output: the written video. exit_code and printed:
    of a command, or of the part of a client's output that is about one request. size: (width, height).
    """

    error: str = ""
    text: str = ""
    n_frames: int = 0
    fps: float = 0.0
    duration_s: float = 0.0
    size: tuple[int, int] = (0, 0)
    n_without_face: int = 0
    n_passed_on: int = 0
    warnings: tuple[str, ...] = ()
    output: Path | None = None
    exit_code: int = 0
    printed: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.error:
            return self.error
        if self.printed:
            return " / ".join(self.printed.split("\n"))[:300]
        faces = f", {self.n_without_face} without face" if self.n_without_face else ""
        passed = f", {self.n_passed_on} passed on" if self.n_passed_on else ""
        shape = f" {self.size[0]}x{self.size[1]}" if self.output else ""
        notes = f", warnings {list(self.warnings)}" if self.warnings else ""
        times = f"{self.n_frames} frames, {self.fps:g} fps, {self.duration_s:g} s"
        return f"{self.text!r} {times}{shape}{faces}{passed}{notes}"


@dataclass(frozen=True)
class Job:
    """One call of the product. kind: read, sync, burn or build. options: of `ReadOptions` or `SyncOptions`."""

    kind: str
    source: Path
    output: Path
    audio: Path | None = None
    options: tuple[tuple[str, Any], ...] = ()


class CaseWorker:
    """A process with the models of reading and syncing. A job that does not end in time costs the process."""

    def __init__(self, limit_s: float = LIMIT_S, serve: Callable[[Connection], None] | None = None) -> None:
        """serve: runs in the process, and answers each `Job` by an `Outcome`."""
        self.limit_s, self._serve = limit_s, serve or serve_jobs
        self._process: Any = None
        self._pipe: Connection

    def run(self, job: Job) -> Outcome:
        """Run a job; an exception of the product is part of the outcome."""
        if self._process is None:
            self._start()
        started = time.monotonic()
        try:
            self._pipe.send(job)
            if not self._pipe.poll(self.limit_s):
                self.close()
                return Outcome(f"{NOT_ENDED} {self.limit_s:g} s", seconds=self.limit_s)
            outcome: Outcome = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            return Outcome("the process of the product ended", seconds=time.monotonic() - started)
        return replace(outcome, seconds=time.monotonic() - started)

    def close(self) -> None:
        """End the process and its children."""
        if self._process is None:
            return
        children = descendants_of(self._process.pid)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process = None
        end_processes(children)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._serve, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()


def end_processes(pids: list[int]) -> None:
    """End processes that may be gone already."""
    for pid in pids:
        with contextlib.suppress(OSError):  # gone with its parent
            os.kill(pid, signal.SIGKILL)


def serve_jobs(pipe: Connection) -> None:
    """Answer jobs until the pipe closes."""
    product = Product()
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.send(run_job(product, pipe.recv()))


def run_job(product: Product, job: Job) -> Outcome:
    """Run a job. Exceptions that are not the product's own are marked: a caller would see an internal error."""
    try:
        return product.run(job)
    except Exception as err:  # noqa: BLE001 whatever happens is the outcome
        is_own = type(err).__module__.startswith("inference")
        where = "" if is_own else f" (internal error: {traceback.format_exc()[-300:]})"
        return Outcome(f"{type(err).__name__}: {err}{where}")


class Product:
    """The engines, each loaded when it is first needed."""

    def __init__(self) -> None:
        from inference.settings import Settings

        self._settings = Settings.from_env()
        self._reader: Any = None
        self._syncer: Any = None

    def run(self, job: Job) -> Outcome:
        """Run a job. Raises: whatever the product raises."""
        return {"read": self.read, "burn": self.burn, "sync": self.sync, "build": self.build}[job.kind](job)

    def read(self, job: Job) -> Outcome:
        """Read lips."""
        result = self._read(job)
        return Outcome(
            text=result.text,
            n_frames=result.num_frames,
            fps=result.fps,
            duration_s=result.duration_s,
            n_without_face=result.frames_without_face,
            warnings=tuple(result.warnings),
        )

    def burn(self, job: Job) -> Outcome:
        """Read lips, and write a captioned copy."""
        from container.visuals.burn_captions import burn_captions

        transcript = self._read(job)
        warnings: list[str] = []
        path = burn_captions(job.source, transcript, job.output, self._settings.media_limits, warnings.append)
        return Outcome(text=transcript.text, n_frames=transcript.num_frames, output=path, warnings=tuple(warnings))

    def sync(self, job: Job) -> Outcome:
        """Lip-sync a face to audio."""
        from inference.lip_sync import LipSyncer, SyncOptions

        self._syncer = self._syncer or LipSyncer(settings=self._settings)
        assert job.audio is not None
        result = self._syncer.sync(job.source, job.audio, SyncOptions(**dict(job.options)), job.output)
        return Outcome(
            n_frames=result.num_frames,
            fps=result.fps,
            duration_s=result.duration_s,
            size=(result.width, result.height),
            n_without_face=result.frames_without_face,
            n_passed_on=result.frames_passed_on,
            warnings=tuple(result.warnings),
            output=job.output,
        )

    def build(self, job: Job) -> Outcome:
        """Build an avatar with the starter's networks as its checkpoint."""
        from inference.avatar.build import AvatarSource, build_package
        from inference.avatar.starter import LOOK_AHEAD_WINDOWS, starter_folder
        from inference.faces.load import load_landmarker

        starter = starter_folder(self._settings.data_dir)
        landmarker = load_landmarker("mediapipe", self._settings.weight_sources)
        network, encoder = starter / "network.safetensors", starter / "audio_encoder.safetensors"
        source = AvatarSource(job.source, network, encoder, look_ahead=LOOK_AHEAD_WINDOWS)
        manifest = build_package(source, job.output.with_suffix(""), landmarker, limits=self._settings.media_limits)
        return Outcome(n_frames=manifest.frames, size=(manifest.width, manifest.height))

    def _read(self, job: Job) -> Any:
        from inference.lip_reading import LipReader, ReadOptions

        self._reader = self._reader or LipReader(settings=self._settings)
        return self._reader.read(job.source, ReadOptions(**dict(job.options)))


def run_command(arguments: list[str | bytes], limit_s: float = LIMIT_S) -> Outcome:
    """Run `viseme` as a user does: its exit code, and what it prints."""
    command = [sys.executable, "-c", RUN, *arguments]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Outcome(f"{NOT_ENDED} {limit_s:g} s", seconds=limit_s)
    printed = (done.stdout + done.stderr).decode(errors="replace").strip()
    return Outcome(exit_code=done.returncode, printed=printed or "(nothing)", seconds=time.monotonic() - started)
