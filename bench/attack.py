"""Attack a server as a hostile page, caller or file would, and judge each attack by its limit.

    python -m bench.attack [--server CHECKOUT] [--only NAME ...] [--seconds 8] [--json FILE]

Starts `viseme serve` of a checkout (default: this one) on a free loopback port, with data and temporary folders of its
own. Every attack is bounded in count and time and leaves nothing behind. Prints a line for each: its name, what was
measured, the limit, and whether the server held. An honest caller, if there is one, comes from 127.0.0.2, the
attacker from 127.0.0.1. Callers that flood run at a low priority: they take the server's places, not its CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.attack_callers import (
    HONEST_ADDRESS,
    Reply,
    ask,
    dial,
    frames_per_second,
    idle_connections,
    many_websockets,
    post_head,
    request_continuously,
    run_in_threads,
    seconds_until_closed,
    seconds_until_served,
    send_one_byte_chunks,
    slow_bodies,
    time_pings,
    unread_answers,
    websocket_status,
)
from bench.attack_files import (
    make_wav,
    mp3_with_tag,
    mp4_of_many_samples,
    noisy_face,
    opus_of_silence,
    png_with_profile,
    png_with_text,
    spoken_video,
    sync_request,
    video_8k,
    weights_with_code,
)
from bench.attack_server import (
    AttackedServer,
    CountingStorage,
    DecoderWatch,
    attacked_server,
    cpu_seconds_of,
    run_command,
)

ROOT = Path(__file__).parents[1]
MAX_DECODER_BYTES = 512 << 20
MAX_BOMB_S = 5.0
MAX_HONEST_S = 3.0
HONEST_PATIENCE_S = 45.0
N_HONEST = 3  # honest requests during an attack; the slowest counts
MAX_PING_P99_S = 0.1
MIN_FPS = 20.0  # of 25
MAX_HEADERS_S = 30.0
HEADERS_PATIENCE_S = 40.0
N_SLOW, N_UNREAD, N_CHUNKED, N_FLOODING = 12, 9, 4, 32
MAX_LOG_BYTES = 100_000
N_CONNECTIONS, MAX_CONNECTIONS = 1000, 64
N_SESSIONS = 260  # more than a server takes
SESSIONS_PATIENCE_S = 45.0
LOADING_S = 5.0  # until the avatar is loaded and every handshake has become a session
N_KILLS = 3
N_BESIDE = 3  # requests beside the one whose worker is killed
SPAWN_S = 2.0  # until another process has its callers running
SECRET = "attack"  # noqa: S105 - the token of the server under attack
EVIL = "evil.example"
FORWARDED_FOR = "X-Forwarded-For"
BEHIND_PROXY = {"VISEME_TRUSTED_PROXIES": "1"}
MIB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What an attack achieved. figure: in words. values: for JSON."""

    figure: str
    limit: str
    held: bool
    values: dict[str, Any] = field(default_factory=dict)


class Target:
    """The server under attack. Started at the first use, and again if an attack leaves it unable to serve."""

    def __init__(self, root: Path, folder: Path, storage: CountingStorage, seconds: float) -> None:
        self.root, self.folder, self.storage, self.seconds = root, folder, storage, seconds
        self._running = contextlib.ExitStack()
        self._server: AttackedServer | None = None

    @property
    def server(self) -> AttackedServer:
        if self._server is None:
            folder = self.folder / "main"
            folder.mkdir(exist_ok=True)
            self._server = self._running.enter_context(attacked_server(self.root, folder, self.storage.settings))
        return self._server

    @property
    def port(self) -> int:
        return self.server.port

    @cached_property
    def video(self) -> bytes:
        return spoken_video(self.folder)

    @cached_property
    def usual_fps(self) -> float:
        return frames_per_second(self.port, self.seconds)

    def has_setting(self, field_name: str) -> bool:
        """Return whether the checkout has a setting; one that it does not have would stop its start."""
        return f"    {field_name}: " in (self.root / "inference" / "settings.py").read_text()

    @contextmanager
    def another_server(self, name: str, settings: dict[str, str] | None = None) -> Iterator[AttackedServer]:
        """Run a second server with a folder of its own inside of the block. name: the same one continues there."""
        self.close()  # one at a time: two cores are few
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        with attacked_server(self.root, folder, settings) as server:
            yield server

    def settle(self) -> None:
        """Wait until an honest request is served again, or start the server again."""
        if self._server is not None and seconds_until_served(self.port, self.video, HONEST_PATIENCE_S) is None:
            self.close()

    def close(self) -> None:
        """End the server."""
        self._running.close()
        self._server = None


# --- Pages of other sites ---------------------------------------------------------------------------------------------


def attack_rebinding(target: Target) -> Outcome:
    """Read the avatars and an S3 video as a page whose name was bound to loopback, and write to another bucket."""
    headers = {"Host": f"{EVIL}:{target.port}", "Origin": f"http://{EVIL}:{target.port}"}
    theft = {"task": "lipsync", "s3_bucket": "private", "s3_video_key": "a.mp4", "s3_audio_key": "a.wav"}
    body = json.dumps(theft | {"s3_output_prefix": "s3://theirs/out"}).encode()
    before = len(target.storage.requests)
    replies = [
        ask(target.port, "GET", "/v1/avatars", {"Host": headers["Host"]}),
        ask(target.port, "POST", "/invocations", headers | {"content-type": "application/json"}, body),
    ]
    n_read = len(target.storage.requests) - before
    return judge_refused([reply.status for reply in replies], n_read)


def judge_refused(statuses: Sequence[int], n_storage_requests: int = 0) -> Outcome:
    """Every request must get 403, and none may reach the storage."""
    figure = f"status {', '.join(map(str, statuses))}; {n_storage_requests} requests to S3"
    held = set(statuses) == {403} and n_storage_requests == 0
    return Outcome(figure, "403, nothing read or written", held, {"statuses": list(statuses)})


def attack_cross_site_form(target: Target) -> Outcome:
    """Post a form, which needs no preflight, and a video, from a page of another site."""
    edge = "edge"
    form = (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'.encode()
        + target.video
        + f"\r\n--{edge}--\r\n".encode()
    )
    origin = {"Origin": f"http://{EVIL}"}
    kind = {"content-type": f"multipart/form-data; boundary={edge}"}
    replies = [
        ask(target.port, "POST", "/v1/audio/transcriptions", origin | kind, form),
        ask(target.port, "POST", "/invocations", origin | {"content-type": "video/mp4"}, target.video),
    ]
    return judge_refused([reply.status for reply in replies])


def attack_cross_site_socket(target: Target) -> Outcome:
    """Open each WebSocket route from a page of another site, also under a name that was bound to loopback."""
    foreign = {"Origin": f"http://{EVIL}"}
    rebound = {"Host": f"{EVIL}:{target.port}", "Origin": f"http://{EVIL}:{target.port}"}
    paths = ("/v1/avatars/starter/session", "/ws", "/invocations-bidirectional-stream?avatar=starter")
    return judge_refused([websocket_status(target.port, path, one) for one in (foreign, rebound) for path in paths])


def attack_without_token(target: Target) -> Outcome:
    """Ask a server that has a token without it."""
    paths = ("/health", "/metrics", "/v1/avatars")
    with target.another_server("token", {"VISEME_TOKEN": SECRET}) as server:
        statuses = [ask(server.port, "GET", path).status for path in paths]
        ping = ask(server.port, "GET", "/ping").status
    figure = f"{', '.join(f'{path} {status}' for path, status in zip(paths, statuses, strict=True))}; /ping {ping}"
    return Outcome(figure, "403; /ping 200", set(statuses) == {403} and ping == 200)


# --- Files ------------------------------------------------------------------------------------------------------------


def judge_bomb(reply: Reply, peak_bytes: int, cpu_s: float, file_bytes: int) -> Outcome:
    """Any answer is right, within the time and the memory of the decoder's child."""
    figure = (
        f"{file_bytes / 1000:.0f} kB: {reply.status} after {reply.took_s:.1f} s; "
        f"decoder {cpu_s:.1f} s of CPU, {peak_bytes / MIB:.0f} MiB"
    )
    held = reply.status != 0 and reply.took_s <= MAX_BOMB_S and peak_bytes <= MAX_DECODER_BYTES
    values = {"took_s": reply.took_s, "cpu_s": cpu_s, "peak_mib": peak_bytes / MIB, "answer": reply.body[:300].decode()}
    return Outcome(figure, f"{MAX_BOMB_S:g} s, {MAX_DECODER_BYTES // MIB} MiB", held, values)


def send_bomb(target: Target, body: bytes, content_type: str, file_bytes: int) -> Outcome:
    """Post a file, and measure the decoder's child meanwhile."""
    target.server.end_decoders()
    target.settle()  # with a new child, which reads an ordinary file first
    with DecoderWatch(target.server.process.pid).running() as watch:
        reply = ask(target.port, "POST", "/invocations", {"content-type": content_type}, body)
    return judge_bomb(reply, watch.peak_bytes, watch.cpu_s, file_bytes)


def send_audio_bomb(target: Target, audio: bytes) -> Outcome:
    """Send audio for lip sync; its face cannot be opened, so that only the audio is worked on."""
    return send_bomb(target, sync_request(b"no image", audio), "application/json", len(audio))


def send_face_bomb(target: Target, face: bytes) -> Outcome:
    return send_bomb(target, sync_request(face, make_wav(0.5)), "application/json", len(face))


def attack_mp3_tag(target: Target) -> Outcome:
    """Send an MP3 whose compressed title has 200 MB."""
    return send_audio_bomb(target, mp3_with_tag(200_000_000))


def attack_png_profile(target: Target) -> Outcome:
    """Send a PNG whose compressed colour profile has 1.6 GB."""
    return send_face_bomb(target, png_with_profile(1_600_000_000))


def attack_png_text(target: Target) -> Outcome:
    """Send a PNG whose compressed comment has 800 MB."""
    return send_face_bomb(target, png_with_text(800_000_000))


def attack_mp4_index(target: Target) -> Outcome:
    """Send an MP4 that declares 20 million samples."""
    mp4 = mp4_of_many_samples(20_000_000)
    return send_bomb(target, mp4, "video/mp4", len(mp4))


def attack_long_opus(target: Target) -> Outcome:
    """Send an hour of silence in Opus, as long as audio may be."""
    return send_audio_bomb(target, opus_of_silence(3599))


def attack_video_8k(target: Target) -> Outcome:
    """Send three seconds of 8K without a face."""
    mp4 = video_8k(75)
    return send_bomb(target, mp4, "video/mp4", len(mp4))


def attack_weights_with_code(target: Target) -> Outcome:
    """Verify a weights file that contains code."""
    marker, path = target.folder / "code-ran", target.folder / "evil.pth"
    path.write_bytes(weights_with_code(marker))
    run = run_command(target.root, target.folder, "weights", "verify", str(path))
    did_run = marker.exists()
    figure = f"exit code {run.returncode}; the code {'ran' if did_run else 'did not run'}"
    return Outcome(figure, "refused, code not run", run.returncode != 0 and not did_run)


# --- Slow callers -----------------------------------------------------------------------------------------------------


def judge_honest(times_s: Sequence[float | None]) -> Outcome:
    """Compare the slowest honest request with its limit. times_s: None if it was not served at all."""
    slowest = None if None in times_s else max(one for one in times_s if one is not None)
    served = f"not served within {HONEST_PATIENCE_S:g} s" if slowest is None else f"served after {slowest:.1f} s"
    is_held = slowest is not None and slowest <= MAX_HONEST_S
    return Outcome(f"honest caller {served}", f"{MAX_HONEST_S:g} s", is_held, {"honest_s": list(times_s)})


def serve_honest_caller(target: Target) -> Outcome:
    """Post a video a few times, until one is not served."""
    times_s: list[float | None] = []
    while len(times_s) < N_HONEST and None not in times_s:
        times_s.append(seconds_until_served(target.port, target.video, HONEST_PATIENCE_S))
    return judge_honest(times_s)


def attack_slow_headers(target: Target) -> Outcome:
    """Send request headers that never end."""
    closed_s = seconds_until_closed(target.port, HEADERS_PATIENCE_S)
    figure = f"open after {HEADERS_PATIENCE_S:g} s" if closed_s is None else f"closed after {closed_s:.1f} s"
    return Outcome(figure, f"closed within {MAX_HEADERS_S:g} s", closed_s is not None and closed_s <= MAX_HEADERS_S)


def attack_slow_bodies(target: Target) -> Outcome:
    """Send twelve bodies at twelve bytes a second."""
    with slow_bodies(target.port, N_SLOW):
        return serve_honest_caller(target)


def large_answer_request() -> bytes:
    """Return a request whose answer is a video of more than the sockets hold."""
    return sync_request(noisy_face(), make_wav(0.4))


def attack_unread_answers(target: Target) -> Outcome:
    """Ask nine times for a video and read no answer; the honest caller comes once they could be made."""
    with unread_answers(target.port, N_UNREAD, large_answer_request()):
        wait_for_idle_worker(target)
        return serve_honest_caller(target)


def attack_slow_callers(target: Target) -> Outcome:
    """Send twelve slow bodies and leave nine answers unread at once."""
    with unread_answers(target.port, N_UNREAD, large_answer_request()):
        wait_for_idle_worker(target)
        with slow_bodies(target.port, N_SLOW):
            return serve_honest_caller(target)


def wait_for_idle_worker(target: Target, patience_s: float = 60.0) -> None:
    """Wait until the worker has used no CPU for a while: what it had to do is done."""
    worker = target.server.worker_pid()
    give_up = time.monotonic() + patience_s
    before = -1.0
    while (now := cpu_seconds_of(worker)) > before + 0.02 and time.monotonic() < give_up:
        before = now
        time.sleep(1)


def attack_one_byte_chunks(target: Target) -> Outcome:
    """Send bodies in chunks of one byte from four connections."""
    with callers_beside(send_one_byte_chunks, target.port, N_CHUNKED, target.seconds + SPAWN_S):
        latencies_s = time_pings(target.port, target.seconds)
    p99_s, longest_s = (float(one) for one in np.quantile(latencies_s, [0.99, 1.0]))
    figure = f"/ping p99 {p99_s * 1000:.0f} ms, longest {longest_s * 1000:.0f} ms"
    return Outcome(figure, f"p99 {MAX_PING_P99_S * 1000:g} ms", p99_s <= MAX_PING_P99_S, {"p99_s": p99_s})


@contextmanager
def callers_beside(function: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run hostile callers in another process inside of the block."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    try:
        time.sleep(SPAWN_S)
        yield
    finally:
        process.join(10)
        process.kill()
        process.join()


# --- Fair shares ------------------------------------------------------------------------------------------------------


def flood(target: Target, path: str) -> Outcome:
    """Ask for a path from 32 connections while an avatar speaks."""
    usual_fps = target.usual_fps
    with callers_beside(request_continuously, target.port, path, N_FLOODING, target.seconds + 2 * SPAWN_S):
        fps = frames_per_second(target.port, target.seconds)
    figure = f"{usual_fps:.1f} to {fps:.1f} frames a second"
    return Outcome(figure, f"{MIN_FPS:g} frames a second", fps >= MIN_FPS, {"usual_fps": usual_fps, "fps": fps})


def attack_backgrounds(target: Target) -> Outcome:
    """Flood the backgrounds."""
    return flood(target, "/v1/avatars/starter/background/3")


def attack_avatar_list(target: Target) -> Outcome:
    """Flood the list of avatars."""
    return flood(target, "/v1/avatars")


def attack_metrics(target: Target) -> Outcome:
    """Flood the metrics."""
    return flood(target, "/metrics")


def attack_denied_posts(target: Target) -> Outcome:
    """Flood a route with posts of another site while an avatar speaks, each of which is denied."""
    usual_fps, log = target.usual_fps, target.server.log
    before = log.stat().st_size
    lines = (f"Origin: http://{EVIL}", "Content-Type: video/mp4", "Content-Length: 0")
    arguments = (target.port, "/invocations", N_FLOODING, target.seconds + 2 * SPAWN_S, "POST", lines)
    with callers_beside(request_continuously, *arguments):
        fps = frames_per_second(target.port, target.seconds)
    n_bytes = log.stat().st_size - before
    figure = f"{usual_fps:.1f} to {fps:.1f} frames a second; {n_bytes / 1000:.0f} kB of log"
    limit = f"{MIN_FPS:g} frames a second, {MAX_LOG_BYTES / 1000:.0f} kB"
    return Outcome(figure, limit, fps >= MIN_FPS and n_bytes <= MAX_LOG_BYTES, {"fps": fps, "log_bytes": n_bytes})


def attack_connections(target: Target) -> Outcome:
    """Open connections from one address and leave them idle. The limit is set: loopback has none by default."""
    settings = {}
    if target.has_setting("max_connections_per_client"):
        settings = {"VISEME_MAX_CONNECTIONS_PER_CLIENT": str(MAX_CONNECTIONS)}
    with (
        target.another_server("connections", settings) as server,
        idle_connections(server.port, N_CONNECTIONS) as n_open,
    ):
        served_s = seconds_until_served(server.port, target.video, HONEST_PATIENCE_S)
    served = "not served" if served_s is None else f"served after {served_s:.1f} s"
    figure = f"{n_open} of {N_CONNECTIONS} stay open; honest caller {served}"
    held = n_open <= MAX_CONNECTIONS and served_s is not None and served_s <= MAX_HONEST_S
    return Outcome(figure, f"{MAX_CONNECTIONS}; {MAX_HONEST_S:g} s", held, {"n_open": n_open, "served_s": served_s})


def attack_many_sessions(target: Target) -> Outcome:
    """Open as many sessions as one client gets, and try one from another address.

    Both come through a reverse proxy, as far as the server can tell: from loopback itself, it may give any number.
    """
    settings = BEHIND_PROXY if target.has_setting("trusted_proxies") else {}
    path = "/v1/avatars/starter/session"
    attacker, other = {FORWARDED_FOR: "192.0.2.1"}, {FORWARDED_FOR: "192.0.2.2"}
    with (
        target.another_server("sessions", settings) as server,
        many_websockets(server.port, path, N_SESSIONS, SESSIONS_PATIENCE_S, attacker) as (n_opened, n_tried),
    ):
        time.sleep(LOADING_S)
        status = websocket_status(server.port, path, other)
    figure = f"{n_opened} of {n_tried} opened; another address gets {status}"
    return Outcome(figure, "another address gets 101", status == 101, {"n_opened": n_opened})


# --- Ends and leftovers -----------------------------------------------------------------------------------------------


def attack_leftovers(target: Target) -> Outcome:
    """Kill the server while it holds bodies, and start it again."""
    with target.another_server("leftovers") as server, dial(server.port) as slow:
        slow.sendall(post_head("/invocations", "Content-Length: 100000") + bytes(50_000))
        beside = threading.Thread(target=run_in_threads, args=(lambda: post_video(server.port, target.video), 4))
        beside.start()
        deadline = time.monotonic() + 5
        while not server.leftovers and time.monotonic() < deadline:
            time.sleep(0.02)
        server.kill()
        before = set(server.leftovers)
        beside.join()
    with target.another_server("leftovers") as server:
        left = before & set(server.leftovers)
    figure = f"{len(left)} of {len(before)} folders left after the next start"
    return Outcome(figure, "0 left", bool(before) and not left, {"n_before": len(before)})


def post_video(port: int, video: bytes) -> int:
    """Post a video as an honest caller; return the status."""
    return ask(port, "POST", "/invocations", {"content-type": "video/mp4"}, video, address=HONEST_ADDRESS).status


def attack_long_index(target: Target) -> Outcome:
    """Ask for a background with 5,000 digits."""
    before = target.server.log.stat().st_size
    status = ask(target.port, "GET", f"/v1/avatars/starter/background/{'9' * 5000}").status
    has_traceback = b"Traceback" in target.server.log.read_bytes()[before:]
    figure = f"status {status}{', with a traceback in the log' if has_traceback else ''}"
    return Outcome(figure, "4xx, no traceback", 400 <= status < 500 and not has_traceback)


def attack_worker_kill(target: Target) -> Outcome:
    """Kill the worker while one request runs and others wait."""
    statuses: Counter[int] = Counter()
    for _ in range(N_KILLS):
        beside = threading.Thread(
            target=run_in_threads,
            args=(lambda: statuses.update([post_video(target.port, target.video)]), 1 + N_BESIDE),
        )
        beside.start()
        time.sleep(0.3)
        os.kill(target.server.worker_pid(), signal.SIGKILL)
        beside.join()
        target.settle()
    n_lost = sum(statuses.values()) - statuses[200]
    figure = f"{N_KILLS} kills, {sum(statuses.values())} requests: {n_lost} failed"
    return Outcome(figure, "1 a kill", n_lost <= N_KILLS, {"statuses": dict(statuses)})


ATTACKS: dict[str, Callable[[Target], Outcome]] = {
    "rebinding": attack_rebinding,
    "cross-site-form": attack_cross_site_form,
    "cross-site-socket": attack_cross_site_socket,
    "mp3-tag": attack_mp3_tag,
    "png-profile": attack_png_profile,
    "png-text": attack_png_text,
    "mp4-index": attack_mp4_index,
    "long-opus": attack_long_opus,
    "video-8k": attack_video_8k,
    "weights-with-code": attack_weights_with_code,
    "slow-headers": attack_slow_headers,
    "slow-bodies": attack_slow_bodies,
    "unread-answers": attack_unread_answers,
    "slow-callers": attack_slow_callers,
    "one-byte-chunks": attack_one_byte_chunks,
    "backgrounds": attack_backgrounds,
    "avatar-list": attack_avatar_list,
    "metrics": attack_metrics,
    "denied-posts": attack_denied_posts,
    "connections": attack_connections,
    "many-sessions": attack_many_sessions,
    "long-index": attack_long_index,
    "worker-kill": attack_worker_kill,
    "without-token": attack_without_token,
    "leftovers": attack_leftovers,
}


def run_attack(name: str, target: Target) -> Outcome:
    """Run one attack. What breaks it is its outcome, so that the others still run."""
    try:
        return ATTACKS[name](target)
    except (Exception, SystemExit) as err:  # noqa: BLE001 - such as a server that does not start again
        target.close()
        return Outcome(f"not measured: {type(err).__name__}: {str(err)[:200]}", "", held=False)


def line_of(name: str, outcome: Outcome) -> str:
    """Return the line that is printed for an outcome."""
    verdict = "held" if outcome.held else "did not hold"
    return f"{name:18} {verdict:13} {outcome.figure}" + (f" (limit: {outcome.limit})" if outcome.limit else "")


def main() -> None:
    """Run the attacks and print their outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=ROOT, help="checkout whose server is attacked")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each flood")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, too")
    args = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="viseme-attack-") as name, CountingStorage().running() as storage:
        target = Target(args.server.resolve(), Path(name), storage, args.seconds)
        try:
            for one in args.only:
                outcomes[one] = run_attack(one, target)
                print(line_of(one, outcomes[one]), flush=True)
                target.settle()
        finally:
            target.close()
    if args.json:
        args.json.write_text(json.dumps({one: asdict(outcome) for one, outcome in outcomes.items()}, indent=1))


if __name__ == "__main__":
    main()
