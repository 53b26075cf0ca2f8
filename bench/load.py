"""Load a machine with callers of every kind, step by step, and say where it saturates and what a video costs.

    python -m bench.load [--minutes 10] [--workers 1 2]

For each number of workers the services of infra/compose.yaml run on this machine (`bench.stack`): a server with so many
workers for requests, and as many that run jobs. The plan loads them in steps of equal length; callers run on the same
cores:

  read N   N callers post a clip of three seconds again and again, each when the last answer is there
  live N   N sessions of the starter avatar speak without a pause
  sync N   N jobs of lip sync, of a second each, are always in the queue or run
  mixed    4 readers, 2 sessions and 2 jobs at once

Prints for each step what was done a second, how long it took, and what was rejected, late or failed. Then where more
callers no longer bring more, what breaks first, and what an hour of video costs by the CPU time that it took, on
instances whose price an hour is in bench/prices.csv. A GPU takes a part of the work from the CPU that was not measured.
Serverless is billed by the time of requests: that of requests alone on this machine is taken, as AWS does not document
how many CPUs a serverless endpoint has. Last, how many queries of the Grafana dashboard the stack's Prometheus answers
with data of this load.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import csv
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import websockets

from bench.cold_start import cpu_seconds, render_video, write_speech
from bench.dashboard import largest_values
from bench.live import make_noise
from bench.stack import Stack, StackOptions, running_stack
from container.live.frame_messages import unpack_frame

PRICES = Path(__file__).with_name("prices.csv")
UNKNOWN = "unknown"
CLIP_S, SPEECH_S = 3.0, 1.0  # of a clip that is read, and of the audio of a job
FPS = 25
LIVE_SPEECH_S = 60.0  # pushed at a time
TIMEOUT_S = 120.0
SATURATION = 1.1  # twice the callers bring at least this many times as much, or the machine is saturated
P95 = 19  # of 20 quantiles
SCRAPE_INTERVAL_S = 5  # shorter than in infra, as a step takes less than a minute


class Step(NamedTuple):
    """One step of the plan: how many callers of each kind load the machine at once."""

    name: str
    n_readers: int = 0
    n_sessions: int = 0
    n_jobs: int = 0


PLAN = (
    Step("read 1", n_readers=1),
    Step("read 2", n_readers=2),
    Step("read 4", n_readers=4),
    Step("read 8", n_readers=8),
    Step("read 16", n_readers=16),
    Step("live 1", n_sessions=1),
    Step("live 2", n_sessions=2),
    Step("live 4", n_sessions=4),
    Step("live 8", n_sessions=8),
    Step("sync 1", n_jobs=1),
    Step("sync 2", n_jobs=2),
    Step("mixed", n_readers=4, n_sessions=2, n_jobs=2),
)


@dataclass
class Findings:
    """What callers saw in one step. Times in seconds; each is appended to by several threads."""

    reads_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    frame_times: list[list[float]] = field(default_factory=list)  # of each session
    syncs_s: list[float] = field(default_factory=list)  # of jobs, from their start in a worker
    took_s: float = 0.0
    cpu_s: float = 0.0
    n_late: float = 0.0
    n_restarts: float = 0.0

    @property
    def reads_per_s(self) -> float:
        return len(self.reads_s) / self.took_s

    @property
    def read_p95_s(self) -> float:
        return statistics.quantiles(self.reads_s, n=20)[P95 - 1] if len(self.reads_s) > 1 else sum(self.reads_s)

    @property
    def n_synced(self) -> int:
        return len(self.syncs_s)

    @property
    def slowest_fps(self) -> float:
        """Frames per second of the slowest session, without its first second."""
        rates = [
            (len(times) - FPS - 1) / (times[-1] - times[FPS]) for times in self.frame_times if len(times) > 2 * FPS
        ]
        return min(rates, default=0.0)

    @property
    def video_s(self) -> float:
        """Seconds of video that were read, synced or spoken."""
        spoken_s = sum(map(len, self.frame_times)) / FPS
        return len(self.reads_s) * CLIP_S + self.n_synced * SPEECH_S + spoken_s

    def failures(self) -> list[str]:
        """Return what was not as it should be, in words."""
        found = [f"{n} answers {status}" for status, n in sorted(self.statuses.items()) if status != "200"]
        if self.frame_times and self.slowest_fps < FPS - 0.5:
            found.append(f"{self.slowest_fps:.1f} fps")
        if self.n_late:
            found.append(f"{self.n_late:.0f} frames late")
        if self.n_restarts:
            found.append(f"{self.n_restarts:.0f} workers restarted")
        return found


@dataclass(frozen=True)
class Media:
    """What callers send: a clip that is read, and the body of a job of lip sync."""

    clip: bytes
    sync_body: bytes

    @classmethod
    def make(cls, folder: Path) -> Media:
        """Render a person who says one sentence, and write a second of a tone."""
        clip = render_video(folder / "clip.mp4").read_bytes()
        audio = write_speech(folder / "speech.wav").read_bytes()
        body = {"task": "lipsync", "face": encode(clip), "audio": encode(audio)}
        return cls(clip, json.dumps(body).encode())


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


class Callers:
    """Callers of a stack, in threads, until the step is over."""

    def __init__(self, stack: Stack, media: Media) -> None:
        self._stack, self._media = stack, media
        self._is_over = threading.Event()
        self.findings = Findings()

    def run(self, step: Step, seconds: float) -> Findings:
        """Load the stack for so long; what has begun by then ends, and counts."""
        before, metrics, started = self._cpu_s(), self._metrics(), time.perf_counter()
        calls = [self._read] * step.n_readers + [self._speak] * step.n_sessions + [self._sync] * step.n_jobs
        with ThreadPoolExecutor(len(calls)) as threads:
            running = [threads.submit(call) for call in calls]
            self._is_over.wait(seconds)
            self._is_over.set()
            for one in running:
                one.result()
        found, after = self.findings, self._metrics()
        found.took_s, found.cpu_s = time.perf_counter() - started, self._cpu_s() - before
        found.n_late = after["viseme_live_late_frames_total"] - metrics["viseme_live_late_frames_total"]
        found.n_restarts = after["viseme_worker_restarts"] - metrics["viseme_worker_restarts"]
        return found

    def _read(self) -> None:
        with httpx.Client(base_url=self._stack.url, timeout=TIMEOUT_S) as client:
            while not self._is_over.is_set():
                started = time.perf_counter()
                response = client.post("/invocations", content=self._media.clip, headers={"content-type": "video/mp4"})
                self.findings.statuses[str(response.status_code)] += 1
                if response.status_code == 200:
                    self.findings.reads_s.append(time.perf_counter() - started)
                else:
                    time.sleep(0.5)  # as the answer asks for

    def _sync(self) -> None:
        with httpx.Client(base_url=self._stack.url, timeout=TIMEOUT_S) as client:
            while not self._is_over.is_set():
                response = client.post(
                    "/v1/jobs", content=self._media.sync_body, headers={"content-type": "application/json"}
                )
                if response.status_code != 202:
                    self.findings.statuses[str(response.status_code)] += 1
                    time.sleep(0.5)
                    continue
                job = wait_for_job(client, response.json()["id"])
                is_done = job["state"] == "succeeded"
                self.findings.statuses["200" if is_done else job["state"]] += 1
                if is_done:
                    self.findings.syncs_s.append(seconds_between(job["started_at"], job["finished_at"]))

    def _speak(self) -> None:
        self.findings.frame_times.append(asyncio.run(self._run_session()))

    async def _run_session(self) -> list[float]:
        """Speak until the step is over. Returns: the arrival time of each frame."""
        times: list[float] = []
        url = f"{self._stack.url.replace('http', 'ws', 1)}/v1/avatars/starter/session"
        async with websockets.connect(url, proxy=None, compression=None, open_timeout=TIMEOUT_S) as socket:
            await socket.send(make_noise(LIVE_SPEECH_S))
            while not self._is_over.is_set():
                message = await asyncio.wait_for(socket.recv(), TIMEOUT_S)
                if isinstance(message, bytes):
                    unpack_frame(message)
                    times.append(time.perf_counter())
                    if len(times) % (LIVE_SPEECH_S * FPS / 2) == 0:
                        await socket.send(make_noise(LIVE_SPEECH_S / 2))
                elif json.loads(message)["type"] == "error":
                    self.findings.statuses["error"] += 1
        return times

    def _cpu_s(self) -> float:
        processes = (self._stack.server, *self._stack.workers)
        return sum(cpu_seconds(psutil.Process(process.pid)) for process in processes)

    def _metrics(self) -> dict[str, float]:
        lines = httpx.get(f"{self._stack.url}/metrics", timeout=TIMEOUT_S).text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}


def wait_for_job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Return the record of a job that has ended, or its last one, whose state is "timeout"."""
    give_up = time.monotonic() + 10 * TIMEOUT_S
    while True:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["state"] not in ("queued", "starting", "processing"):
            return job
        if time.monotonic() > give_up:
            return job | {"state": "timeout"}
        time.sleep(0.2)


def seconds_between(first: str, second: str) -> float:
    """Return the seconds between two times in ISO 8601."""
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


class Price(NamedTuple):
    """What an instance costs: dollars an hour, or None if unknown. n_cpus: None for serverless."""

    instance: str
    n_cpus: int | None
    usd_per_hour: float | None
    date: str
    source: str


def read_prices() -> list[Price]:
    """Read bench/prices.csv."""
    with PRICES.open(newline="", encoding="utf-8") as file:
        return [
            Price(
                row["instance"],
                int(row["vcpus"]) if row["vcpus"] else None,
                None if row["usd_per_hour"] == UNKNOWN else float(row["usd_per_hour"]),
                row["date"],
                row["source"],
            )
            for row in csv.DictReader(file)
        ]


class Work(NamedTuple):
    """What a second of video takes. request_s: of a request alone on the machine; None if no request was made."""

    cpu_s: float
    request_s: float | None


def work_of(found: Mapping[str, Findings]) -> dict[str, Work]:
    """Return what reading, lip sync and speaking take, as far as the steps ran."""
    alone = {"read": ("read 1", "reads_s", CLIP_S), "synced": ("sync 1", "syncs_s", SPEECH_S)}
    work = {}
    for kind, step in {"read": "read 4", "synced": "sync 2", "spoken": "live 2"}.items():
        if step not in found or not found[step].video_s:
            continue
        name, times, video_s = alone.get(kind, ("", "", 1.0))
        seconds = getattr(found[name], times) if name in found else []
        request_s = statistics.median(seconds) / video_s if seconds else None
        work[kind] = Work(found[step].cpu_s / found[step].video_s, request_s)
    return work


def usd_per_video_hour(price: Price, work: Work) -> float | None:
    """Return what an hour of video costs; None if unknown, or not possible.

    An instance: if all of its CPUs are in use. Serverless: if a request takes as long there as here.
    """
    if price.usd_per_hour is None:
        return None
    if price.n_cpus is None:
        return None if work.request_s is None else price.usd_per_hour * work.request_s
    return price.usd_per_hour * work.cpu_s / price.n_cpus


def saturated_at(rates: Sequence[tuple[str, float]]) -> str:
    """Return the first step after which more callers bring hardly more."""
    for (name, rate), (_, following) in pairwise(rates):
        if following < SATURATION * rate:
            return name
    return f"not by {rates[-1][0]}"


def run_plan(n_workers: int, media: Media, seconds: float, plan: Sequence[Step]) -> dict[str, Findings]:
    """Run every step, and print a row for each. Returns: what was found, by step."""
    found: dict[str, Findings] = {}
    print(f"\n{n_workers} worker(s) for requests, and as many for jobs; steps of {seconds:.0f} s")
    print(f"{'step':8} {'clips/s':>8} {'p95 s':>7} {'fps':>6} {'jobs':>5} {'CPU s per s of video':>21}  what was wrong")
    with loaded_stack(n_workers, media) as stack:
        started_at = time.time()
        for step in plan:
            one = found[step.name] = Callers(stack, media).run(step, seconds)
            cost = f"{one.cpu_s / one.video_s:.2f}" if one.video_s else "-"
            print(
                f"{step.name:8} {one.reads_per_s:8.2f} {one.read_p95_s:7.2f} {one.slowest_fps:6.1f} {one.n_synced:5} "
                f"{cost:>21}  {', '.join(one.failures()) or '-'}",
                flush=True,
            )
        print_dashboard(stack, started_at)
    return found


@contextlib.contextmanager
def loaded_stack(n_workers: int, media: Media) -> Iterator[Stack]:
    """Run a stack whose networks are compiled and whose avatar is drawn."""
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(n_workers)}
    options = StackOptions(n_workers=n_workers, scrape_interval_s=SCRAPE_INTERVAL_S, server_settings=settings)
    with running_stack(options) as stack:
        for n_callers in (1, n_workers):  # the first alone: it draws the avatar
            Callers(stack, media).run(Step("warm up", n_callers, 1, n_callers), 1)
        yield stack


def print_dashboard(stack: Stack, started_at: float) -> None:
    """Print what the queries of the dashboard found since that time."""
    if stack.prometheus_url is None:
        print("dashboard: Prometheus is not installed (Debian's package prometheus)")
        return
    values = dict(largest_values(stack.prometheus_url, started_at, time.time()))
    ours = {query: value for query, value in values.items() if query.is_ours}
    empty = [query.title for query, value in ours.items() if value is None]
    print(
        f"dashboard: {len(ours) - len(empty)} of {len(ours)} queries have data"
        f"{' but for ' + ', '.join(empty) if empty else ''}; {len(values) - len(ours)} are of other exporters"
    )
    print("largest: " + ", ".join(f"{query.title} {value:.4g}" for query, value in ours.items() if value is not None))


def report(found: Mapping[str, Findings]) -> None:
    """Print where the machine saturates, what breaks first, and what video costs."""
    reads = [(name, one.reads_per_s) for name, one in found.items() if name.startswith("read")]
    if reads:
        print(f"reading saturates at: {saturated_at(reads)}")
    broken = [(name, one.failures()) for name, one in found.items() if one.failures()]
    print(f"breaks first: {f'{broken[0][0]}: {broken[0][1][0]}' if broken else 'nothing'}")
    work = work_of(found)
    print(f"{'$ for an hour of video':24}" + "".join(f"{kind:>10}" for kind in work) + "  price an hour, read, source")
    for price in read_prices():
        costs = [usd_per_video_hour(price, one) for one in work.values()]
        source = f"{price.usd_per_hour:.2f}, {price.date}, {price.source}" if price.usd_per_hour else UNKNOWN
        print(f"{price.instance:24}" + "".join(f"{shown_cost(cost):>10}" for cost in costs) + f"  {source}")


def shown_cost(usd: float | None) -> str:
    return UNKNOWN if usd is None else f"{usd:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load in all (10)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in PLAN], help="only these steps of the plan")
    args = parser.parse_args(arguments)
    plan = [step for step in PLAN if args.steps is None or step.name in args.steps]
    seconds = args.minutes * 60 / (len(plan) * len(args.workers))
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        media = Media.make(Path(folder))
        for found in map(partial(run_plan, media=media, seconds=seconds, plan=plan), args.workers):
            report(found)


if __name__ == "__main__":
    main()
