"""Watch an avatar over WebRTC in headless Chromium, on this machine.

    python -m bench.webrtc [--seconds 60] [--avatar FOLDER]

The page opens a session by WHEP, as docs/live-avatars.md shows, sends speech by the data channel every ten seconds, and
interrupts it once a minute. Server and browser share the cores. Prints one JSON object:

  first_frame_ms  from the request for the session to the first frame on the page
  fps             different frames presented per second
  session_fps     frames of the session per second, by their RTP timestamps: 25, unless the server is too slow
  lost_frames     of the session, by their RTP timestamps, that the browser did not present: from one call of
                  requestVideoFrameCallback to the next, those by which `presentedFrames` grew less than the timestamps
  presented_twice frames by which it grew more. If Chromium was late for a tick of the display, it hands a frame to the
                  display at once, and may do so again by its schedule (WebMediaPlayerMSCompositor::EnqueueFrame):
                  it counts both
  missed_callbacks  frames that it presented without calling the page, which the specification allows
  packets_lost    of both tracks
  av_offset_ms    by how much later the video is played than the audio of the same time (estimatedPlayoutTimestamp of
                  both tracks, twice a second): median, and 99th percentile of its absolute value. It says nothing if
                  session_fps is below 25: while audio is missing, Chromium goes on counting its time, by the clock of
                  the machine, and so adds what the session is late (`playout_timestamp_` in WebRTC's neteq_impl.cc)
  interrupt       from the message to the last frame with an open mouth, or loud audio, that is played, and to the shut
                  mouth: after the browser's buffers, while `bench.live` measures the arrival. Rounds, and the median
                  and maximum of each; they fall on different parts of the sentence, some of them on its pauses.
                  unmeasured: rounds in which the mouth was not seen to open and shut
  cpu_ms          CPU time of the server for a frame: of this session, and of one by WebSocket, with whole frames, that
                  speaks as much

Exits with status 1 if fewer than 24.5 frames a second are shown, one is lost, the first takes over 500 ms, the offset
is over 40 ms (99th percentile), or an interrupt over 120 ms and 200 ms or not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import websockets
from playwright.sync_api import Page, sync_playwright

from bench.interrupts import (
    MAX_OLD_MS,
    MAX_SHUT_MS,
    SIDE,
    RestingMouths,
    SeenMouth,
    make_speech,
    mouth_region,
    time_interrupt,
)
from bench.live import provide_avatar, running_server
from bench.live_server import NAME
from container.live.frame_messages import unpack_frame
from container.protos import optimized_lipsyncsrv_pb2_grpc as pb2_grpc

MIN_FPS, MAX_FIRST_MS, MAX_OFFSET_MS = 24.5, 500.0, 40.0
LOUD = 0.03  # peak of the played audio, of 1
FRAME_TICKS = 3600  # of an RTP timestamp, for each frame
TIMESTAMPS = 1 << 32  # after which RTP timestamps start again
SPEAK_EVERY_S = 10.0
INTERRUPT_EVERY = 6  # utterances
# Seconds of an utterance before the measurement of an interrupt starts, and by how much later it may start in a round.
INTERRUPT_AFTER_S, INTERRUPT_RANGE_S = 0.2, 1.3
SOCKET_FRAMES = 250  # 10 s, in which it speaks as long as the session that is watched
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    # A headless browser without other networks has no other address to connect from.
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
OPEN = """async ({ path, region, side }) => {
  const began = performance.now(), connection = new RTCPeerConnection();
  const seen = window.seen = { first: null, shown: [], mouths: [], loud: [], connection, region: null };
  const channel = seen.channel = connection.createDataChannel("viseme");
  connection.addTransceiver("video", { direction: "recvonly" });
  connection.addTransceiver("audio", { direction: "recvonly" });
  const video = document.createElement("video"), small = document.createElement("canvas");
  Object.assign(video, { autoplay: true });
  small.width = small.height = side;
  const pen = small.getContext("2d", { willReadFrequently: true });
  document.body.append(video);
  const audio = new AudioContext(), tap = audio.createAnalyser();
  tap.fftSize = 512;
  connection.ontrack = ({ track, streams }) => {
    video.srcObject = streams[0];
    if (track.kind === "audio") audio.createMediaStreamSource(new MediaStream([track])).connect(tap);
  };
  const show = (now, { rtpTimestamp, presentedFrames }) => {
    const at = performance.now();
    seen.first ??= at - began;
    seen.shown.push([at, rtpTimestamp, presentedFrames]);
    if (seen.watches !== false) {
      const [left, top, width, height] = region;
      pen.drawImage(video, left, top, width, height, 0, 0, side, side);
      const { data } = pen.getImageData(0, 0, side, side);
      const grey = new Uint8Array(side * side);
      for (let i = 0, j = 0; i < grey.length; i++, j += 4) {
        grey[i] = 0.299 * data[j] + 0.587 * data[j + 1] + 0.114 * data[j + 2];
      }
      seen.mouths.push([at, Array.from(grey)]);
    }
    video.requestVideoFrameCallback(show);
  };
  video.requestVideoFrameCallback(show);
  const samples = new Float32Array(tap.fftSize);
  seen.measure = () => {
    tap.getFloatTimeDomainData(samples);
    seen.loud.push([performance.now(), Math.max(...samples.map(Math.abs))]);
  };
  const offer = await connection.createOffer();
  const headers = { "Content-Type": "application/sdp" };
  const response = await fetch(path, { method: "POST", headers, body: offer.sdp });
  await connection.setLocalDescription(offer);
  await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  await audio.resume();
  while (channel.readyState !== "open" || seen.mouths.length < 10) await new Promise((done) => setTimeout(done, 20));
}"""
# Once: to decode it for each utterance would take as long as three of its frames.
LOAD_SPEECH = "(pcm) => { window.seen.speech = Uint8Array.from(atob(pcm), (one) => one.charCodeAt(0)); }"
SPEAK = """() => {
  const bytes = window.seen.speech;
  for (let i = 0; i < bytes.length; i += 32768) window.seen.channel.send(bytes.slice(i, i + 32768));
  window.seen.channel.send('{"type":"flush"}');
}"""
INTERRUPT = """async () => {
  const seen = window.seen;
  Object.assign(seen, { watches: true, loud: [] });
  const timer = setInterval(seen.measure, 4);
  await new Promise((done) => setTimeout(done, 1000));
  const sent = performance.now();
  seen.channel.send('{"type":"interrupt"}');
  await new Promise((done) => setTimeout(done, 1000));
  clearInterval(timer);
  seen.watches = false;
  return { sent, loud: seen.loud, mouths: seen.mouths.splice(0).filter(([at]) => at > sent - 1000) };
}"""
STATS = """async () => {
  const found = { audio: null, video: null, lost: 0, dropped: 0 };
  for (const one of (await window.seen.connection.getStats()).values()) {
    if (one.type !== "inbound-rtp") continue;
    found[one.kind] = one.estimatedPlayoutTimestamp ?? null;
    found.lost += one.packetsLost;
    found.dropped += one.framesDropped ?? 0;
  }
  return found;
}"""
FRAMES = "() => ({ first: window.seen.first, shown: window.seen.shown.splice(0) })"
REST = "() => { window.seen.watches = false; window.seen.mouths = []; }"


def main() -> None:
    """Print one JSON object; exit with status 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--avatar", type=Path, help="folder of a package")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        provide_avatar(Path(folder), args.avatar)
        with running_server(Path(folder), is_paced=True) as server:
            results = watch(server.port, server.grpc_port, server.pid, args.seconds)
    print(json.dumps(results, indent=1))
    raise SystemExit(is_over_a_limit(results))


def is_over_a_limit(results: dict[str, Any]) -> bool:
    return bool(
        results["fps"] < MIN_FPS
        or results["lost_frames"] > 0
        or results["first_frame_ms"] > MAX_FIRST_MS
        or results["av_offset_ms"]["p99"] > MAX_OFFSET_MS
        or results["interrupt"] is None
        or results["interrupt"]["unmeasured"] > 0
        or results["interrupt"]["last_old_frame_ms"]["max"] > MAX_OLD_MS
        or results["interrupt"]["shut_mouth_ms"]["max"] > MAX_SHUT_MS
    )


def watch(port: int, grpc_port: int, pid: int, seconds: float) -> dict[str, Any]:
    """Watch a session for so long."""
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        mouths = RestingMouths.fetch(NAME, port, pb2_grpc.OptimizedLipSyncServiceStub(channel))
    speech, server = base64.b64encode(make_speech()).decode(), psutil.Process(pid)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        region = mouth_region(mouths.box)
        page.evaluate(OPEN, {"path": f"/v1/avatars/{NAME}/whep", "region": region, "side": SIDE})
        page.evaluate(REST)
        page.evaluate(LOAD_SPEECH, speech)
        cpu_s = cpu_seconds(server)
        stats, interrupts = speak_and_interrupt(page, seconds)
        cpu_s = cpu_seconds(server) - cpu_s
        frames, load = page.evaluate(FRAMES), os.getloadavg()[0]
        page.evaluate("() => window.seen.connection.close()")
        page.wait_for_timeout(1000)  # until the server has ended the session
        browser.close()
    return summarize_session(frames, stats, load) | {
        "interrupt": summarize_interrupts(interrupts, mouths),
        "cpu_ms": {
            "webrtc": round(1000 * cpu_s / n_frames(frames), 1),
            "websocket": round(asyncio.run(measure_socket(port, server)), 1),
        },
    }


def speak_and_interrupt(page: Page, seconds: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Speak, and interrupt some of it, for so long. Returns: the statistics twice a second, and the interrupts."""
    interrupted = min(math.ceil(seconds / SPEAK_EVERY_S), INTERRUPT_EVERY) // 2  # of each so many utterances
    stats: list[dict[str, Any]] = []
    interrupts: list[dict[str, Any]] = []
    n_spoken, started = 0, time.monotonic()
    while (now_s := time.monotonic() - started) < seconds:
        if now_s >= n_spoken * SPEAK_EVERY_S:
            page.evaluate(SPEAK)
            if n_spoken % INTERRUPT_EVERY == interrupted:
                part = len(interrupts) * 0.618 % 1
                page.wait_for_timeout(1000 * (INTERRUPT_AFTER_S + part * INTERRUPT_RANGE_S))
                interrupts.append(page.evaluate(INTERRUPT))
            n_spoken += 1
        stats.append(page.evaluate(STATS))
        page.wait_for_timeout(500)
    return stats, interrupts


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def n_frames(frames: dict[str, Any]) -> int:
    """Return how many frames the session had while the browser showed it."""
    timestamps = np.array([timestamp for _, timestamp, _ in frames["shown"]])
    return int((np.diff(timestamps) % TIMESTAMPS).sum()) // FRAME_TICKS


async def measure_socket(port: int, server: psutil.Process) -> float:
    """Return the milliseconds of CPU time for a frame of a WebSocket session."""
    url = f"ws://127.0.0.1:{port}/v1/avatars/{NAME}/session?frames=whole"
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        await socket.send(make_speech())
        await socket.send('{"type":"flush"}')
        first, last, cpu_s = None, 0, cpu_seconds(server)
        while first is None or last - first < SOCKET_FRAMES:
            message = await socket.recv()
            if isinstance(message, bytes):
                last = unpack_frame(message).frame
                first = last if first is None else first
        return 1000 * (cpu_seconds(server) - cpu_s) / SOCKET_FRAMES


def to_mouth(grey: list[int]) -> Any:
    return np.array(grey, np.float32).reshape(SIDE, SIDE)


def summarize_session(frames: dict[str, Any], stats: list[dict[str, Any]], load: float) -> dict[str, Any]:
    at_ms, timestamps, presented = (np.array(one) for one in zip(*frames["shown"], strict=True))
    steps = np.diff(timestamps) % TIMESTAMPS // FRAME_TICKS
    unequal = np.diff(presented) - steps
    n_lost, n_twice = -int(unequal[unequal < 0].sum()), int(unequal[unequal > 0].sum())
    n_shown, seconds = int(steps.sum()) - n_lost, float(at_ms[-1] - at_ms[0]) / 1000
    offsets = [one["audio"] - one["video"] for one in stats if one["audio"] and one["video"]]
    return {
        "first_frame_ms": round(frames["first"]),
        "fps": round(n_shown / seconds, 2),
        "session_fps": round(int(steps.sum()) / seconds, 2),
        "seconds": round(seconds, 1),
        "lost_frames": n_lost,
        "presented_twice": n_twice,
        "missed_callbacks": n_shown - int((steps > 0).sum()),
        "packets_lost": stats[-1]["lost"],
        "frames_dropped_by_the_browser": stats[-1]["dropped"],
        "av_offset_ms": {
            "median": round(statistics.median(offsets), 1),
            "p99": round(float(np.percentile(np.abs(offsets), 99)), 1),
        },
        "load": round(load, 1),
    }


def summarize_interrupts(found: list[dict[str, Any]], mouths: RestingMouths) -> dict[str, Any] | None:
    """Return the number of rounds, and the milliseconds from the message: median and maximum.

    A round in which the mouth is not seen to open and shut counts as unmeasured, and is printed. None if all are.
    """
    rounds: list[tuple[float, float, float]] = []
    for one in found:
        try:
            rounds.append(time_round(one, mouths))
        except ValueError as err:
            print(err, file=sys.stderr)
    if not rounds:
        return None
    names = ("last_old_frame_ms", "last_old_audio_ms", "shut_mouth_ms")
    return {"rounds": len(rounds), "unmeasured": len(found) - len(rounds)} | {
        name: {"median": round(statistics.median(values), 1), "max": round(max(values), 1)}
        for name, values in zip(names, zip(*rounds, strict=True), strict=True)
    }


def time_round(found: dict[str, Any], mouths: RestingMouths) -> tuple[float, float, float]:
    """Return the milliseconds to the last old frame, the last old audio and the shut mouth. Raises: ValueError."""
    sent_s = found["sent"] / 1000
    seen = [SeenMouth(at / 1000, mouths.distance(to_mouth(grey))) for at, grey in found["mouths"]]
    by_video = time_interrupt(seen, [], sent_s)
    audio_ms = max([0.0, *(at - found["sent"] for at, peak in found["loud"] if peak > LOUD)])
    return by_video.old_ms, audio_ms, by_video.shut_ms


if __name__ == "__main__":
    main()
