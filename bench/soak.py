"""Run one live session for an hour: whether it keeps to the clock, and whether the server's memory stays flat.

    python -m bench.soak [--minutes 60] [--avatar FOLDER] [--without-unet]

Opens a WebSocket session with a server that keeps real time. The avatar speaks all the time, with short pauses: half of
the utterances are sent at once, half as fast as they are spoken, and a third is interrupted. Without --avatar it is the
starter. --without-unet leaves out its U-Net, which takes most of the time, on a machine that does other work, too: the
mouth stays shut, and all else is measured. Prints a line a minute, and one JSON object at the end:

  drift_ms        by how much the frames moved against the clock: the 5th percentile of a minute's delays, in the minute
                  that differs the most from the first one. On a busy machine most frames may be late for moments;
                  those that are on time show the drift
  last_frame_ms   the delay of the last frame, beyond that of the frame that came the soonest
  audio_ms        by how much the audio that was received is longer or shorter than the video, at most
  late, missing   frames that came over 40 ms later than the soonest one, and frames that never came
  memory_mib      anonymous memory of the server: at the start, after a tenth of the time, when caches of images are
                  full, and at the end; and the growth between the last two

Exits with status 1 if the drift, the delay of the last frame or the difference of audio is over 40 ms, or the growth
over 16 MiB: in an hour, 190 bytes a frame. Anything that is kept for each frame, even its numbers, takes more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import websockets

from bench.interrupts import make_speech
from bench.live import ServerProcess, provide_avatar, running_server
from bench.live_server import NAME
from container.live.frame_messages import FrameMessage, unpack_frame

MAX_DRIFT_MS, MAX_GROWTH_MIB = 40.0, 16.0
FRAME_MS = 40
BYTES_PER_MS = 2 * 16  # of int16 audio at 16 kHz
ON_TIME = 5  # percentile of the delays in a minute
UTTERANCE_S, PAUSE_S = (3.0, 9.0), (0.3, 1.5)
CHUNK_S = 0.1  # of audio that is sent as fast as it is spoken
INTERRUPTED = 1 / 3  # of the utterances
SPOKEN_TIMEOUT_S = 60.0  # beyond the length of an utterance, on a machine that is busy
SEED = 28


@dataclass
class ReceivedFrames:
    """What is kept of the frames of a session: numbers, eight bytes each."""

    delays_ms: list[float] = field(default_factory=list)  # arrival minus media time; their differences count
    n_speaking: int = 0
    n_missing: int = 0
    n_interrupted: int = 0  # of the missing ones: an interrupt drops a frame that waits, with its audio
    max_audio_ms: float = 0.0
    _next: int = 0  # number of the next frame
    _generation: int = 0
    _audio_end_ms: float = 0.0

    def add(self, frame: FrameMessage, at_s: float) -> None:
        """Add a frame. at_s: its arrival, by any clock."""
        n_missing = frame.frame - self._next
        if n_missing < 0:
            raise ValueError(f"frame {frame.frame} came again or too late; expected {self._next} or a later one")
        if frame.generation != self._generation:
            self._generation = frame.generation
            self.n_interrupted += n_missing
            self._audio_end_ms += n_missing * FRAME_MS
        self.n_missing += n_missing
        self._next = frame.frame + 1
        self.n_speaking += frame.is_speaking
        self._audio_end_ms += len(frame.pcm) / BYTES_PER_MS
        self.max_audio_ms = max(self.max_audio_ms, abs(self._audio_end_ms - frame.pts_ms - FRAME_MS))
        self.delays_ms.append(at_s * 1000 - frame.pts_ms)


@dataclass(frozen=True)
class Minute:
    """Numbers of frames received so far, and the server's anonymous memory, at the end of a minute."""

    n_frames: int
    memory_mib: float


def main() -> None:
    """Print one JSON object; exit with status 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--avatar", type=Path, help="folder of a package")
    parser.add_argument("--without-unet", action="store_true", help="leave out the U-Net")
    args = parser.parse_args()
    if args.minutes < 2:
        parser.error(f"--minutes {args.minutes}: expected at least 2")
    with tempfile.TemporaryDirectory() as folder:
        provide_avatar(Path(folder), args.avatar)
        with running_server(Path(folder), is_paced=True, has_unet=not args.without_unet) as server:
            received, minutes = asyncio.run(run_session(server, args.minutes))
    results = summarize(received, minutes)
    print(json.dumps(results, indent=1))
    raise SystemExit(is_over_a_limit(results))


async def run_session(server: ServerProcess, n_minutes: int) -> tuple[ReceivedFrames, list[Minute]]:
    """Run a session. Returns its frames, and its minutes: the first one is the start."""
    received, spoken = ReceivedFrames(), asyncio.Event()
    url = f"ws://127.0.0.1:{server.port}/v1/avatars/{NAME}/session"
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        minutes = [await measure_minute(server, received)]
        tasks = [asyncio.create_task(receive(socket, received, spoken)), asyncio.create_task(speak(socket, spoken))]
        started = time.monotonic()
        for n in range(1, n_minutes + 1):
            wait_s = started + 60 * n - time.monotonic()
            failed, _ = await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in failed:
                task.result()  # raises what ended it
            minutes.append(await measure_minute(server, received))
            print_minute(n, received, minutes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return received, minutes


async def receive(socket: Any, received: ReceivedFrames, spoken: asyncio.Event) -> None:
    """Add the frames that arrive. spoken: set by the end of each utterance."""
    async for message in socket:
        if isinstance(message, bytes):
            received.add(unpack_frame(message), time.monotonic())
        elif (event := json.loads(message))["type"] == "error":
            raise RuntimeError(f"the server reports {event['code']}: {event['message']}")
        elif event["type"] == "speech_finished":
            spoken.set()


async def speak(socket: Any, spoken: asyncio.Event) -> None:
    """Send utterances, and interrupt some of them, until canceled."""
    rng, speech = np.random.default_rng(SEED), make_speech()
    for n in range(1 << 30):
        seconds = float(rng.uniform(*UTTERANCE_S))
        n_bytes = round(seconds * 1000) * BYTES_PER_MS
        pcm = (speech * (n_bytes // len(speech) + 1))[:n_bytes]
        spoken.clear()
        until_interrupt_s = float(rng.uniform(0.5, seconds)) if rng.random() < INTERRUPTED else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until_interrupt_s):
                await send_speech(socket, pcm, at_once=n % 2 == 0)
                async with asyncio.timeout(seconds + SPOKEN_TIMEOUT_S):
                    await spoken.wait()
        if until_interrupt_s is not None:
            await socket.send('{"type":"interrupt"}')
        elif not spoken.is_set():
            raise RuntimeError(f"an utterance of {seconds:.1f} s was not spoken within {SPOKEN_TIMEOUT_S:g} s more")
        await asyncio.sleep(float(rng.uniform(*PAUSE_S)))


async def send_speech(socket: Any, pcm: bytes, *, at_once: bool) -> None:
    """Send an utterance: at once, or as fast as it is spoken."""
    n_chunk = len(pcm) if at_once else round(CHUNK_S * 1000) * BYTES_PER_MS
    started = time.monotonic()
    for start in range(0, len(pcm), n_chunk):
        await asyncio.sleep(started + start / BYTES_PER_MS / 1000 - time.monotonic())
        await socket.send(pcm[start : start + n_chunk])
    await socket.send('{"type":"flush"}')


async def measure_minute(server: ServerProcess, received: ReceivedFrames) -> Minute:
    await asyncio.to_thread(server.take_engine_ms)  # the server keeps these times until they are taken
    return Minute(len(received.delays_ms), anonymous_mib(server.pid))


def anonymous_mib(pid: int) -> float:
    """Return the memory of a process that no file backs. Linux only. Source: proc_pid_status(5), RssAnon."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid}: its status has no RssAnon, which needs Linux 4.5 or newer")


def print_minute(n: int, received: ReceivedFrames, minutes: list[Minute]) -> None:
    """Print what happened in the last minute."""
    delays = np.array(received.delays_ms) - min(received.delays_ms)
    last = delays[minutes[-2].n_frames :]
    on_time, middle, longest = np.percentile(last, [ON_TIME, 50, 100]) if len(last) else [float("nan")] * 3
    print(
        f"minute {n}: {len(last)} frames, {(last > FRAME_MS).sum()} late, {received.n_missing} missing so far; delays "
        f"{on_time:.0f}, {middle:.0f}, {longest:.0f} ms (5 %, median, longest); {minutes[-1].memory_mib:.1f} MiB",
        file=sys.stderr,
        flush=True,
    )


def summarize(received: ReceivedFrames, minutes: list[Minute]) -> dict[str, Any]:
    """Return the results. minutes: the first one is the start."""
    delays = np.array(received.delays_ms) - min(received.delays_ms)
    by_minute = [one for one in np.split(delays, [one.n_frames for one in minutes[1:-1]]) if len(one)]
    on_time = np.array([np.percentile(one, ON_TIME) for one in by_minute])
    drifts = on_time - on_time[0]
    settled = minutes[max(1, (len(minutes) - 1) // 10)].memory_mib
    return {
        "minutes": len(minutes) - 1,
        "frames": len(delays),
        "of_speech": received.n_speaking,
        "drift_ms": round(float(drifts[np.abs(drifts).argmax()]), 1),
        "last_frame_ms": round(float(delays[-1]), 1),
        "delay_ms": {
            "median": round(float(np.median(delays)), 1),
            "p99": round(float(np.percentile(delays, 99)), 1),
            "max": round(float(delays.max()), 1),
        },
        "audio_ms": round(received.max_audio_ms, 1),
        "late": int((delays > FRAME_MS).sum()),
        "missing": received.n_missing,
        "missing_by_interrupts": received.n_interrupted,
        "memory_mib": {
            "start": round(minutes[0].memory_mib, 1),
            "settled": round(settled, 1),
            "end": round(minutes[-1].memory_mib, 1),
            "growth": round(minutes[-1].memory_mib - settled, 1),
        },
    }


def is_over_a_limit(results: dict[str, Any]) -> bool:
    in_ms = [results[name] for name in ("drift_ms", "last_frame_ms", "audio_ms")]
    return bool(max(map(abs, in_ms)) > MAX_DRIFT_MS or results["memory_mib"]["growth"] > MAX_GROWTH_MIB)


if __name__ == "__main__":
    main()
