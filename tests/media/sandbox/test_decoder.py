from __future__ import annotations

import contextlib
import mmap
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from support.video_files import encode_rgba, make_image, make_video, make_wav, numbered_frames
from support.waiting import wait_until

from inference.errors import InvalidRequest, MediaTooLarge, NotReady, OutOfMemory, UnsupportedMedia, VisemeError
from inference.media import MediaLimits, SandboxedDecoder, open_media
from inference.media.media_warnings import TRANSPARENT, VIDEO_WARNINGS
from inference.media.sandbox import decoder as child_module
from inference.media.sandbox.decoder import known_warnings
from inference.media.sandbox.forked_process import MAX_STDERR_BYTES, forward_errors
from inference.media.sandbox.messages import pack_error, send, unpack_error
from inference.media.sandbox.shared_memory import N_SLOTS, SharedFrameBuffer

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60.0  # only a guard against hanging
SMALL = MediaLimits(max_frame_pixels=1920 * 1080)


@pytest.fixture(scope="module")
def shared_child() -> Iterator[SandboxedDecoder]:
    with SandboxedDecoder() as child:
        yield child


@pytest.fixture
def child(shared_child: SandboxedDecoder) -> SandboxedDecoder:
    shared_child.warm_up()
    return shared_child


@pytest.fixture(scope="module")
def long_video() -> bytes:
    """A video of more clips than the child may work ahead."""
    return make_video(numbered_frames(250))


def clips_of(opener, source, limits: MediaLimits | None = None, fps: float = 25.0) -> list:
    with opener(source, limits) as media:
        return list(media.read_clips(fps))


def read_while(media, act: Callable[[int], None]) -> int:
    """Read all clips, and call `act` with the number of each."""
    n_clips = 0
    for _ in media.read_clips(25.0):
        n_clips += 1
        act(n_clips)
    return n_clips


def outcome(opener, source, limits: MediaLimits | None = None) -> tuple[type, str]:
    with pytest.raises(VisemeError) as caught:
        clips_of(opener, source, limits)
    return type(caught.value), str(caught.value)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def assert_alike(found: list, expected: list) -> None:
    assert [len(clip.frames) for clip in found] == [len(clip.frames) for clip in expected]
    assert [clip.fps for clip in found] == [clip.fps for clip in expected]
    for one, other in zip(found, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpeg"])
def test_the_child_reads_the_same_frames(child: SandboxedDecoder, container: str):
    source = make_video(numbered_frames(60, width=120), container=container)  # rows of an odd number of bytes
    assert_alike(clips_of(child.open, source), clips_of(open_media, source))


def test_a_path_is_read_like_its_bytes(child: SandboxedDecoder, tmp_path: Path, monkeypatch):
    contents = make_video(numbered_frames(5))
    (tmp_path / "clip.mp4").write_bytes(contents)
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "clip.mp4", str(tmp_path / "clip.mp4"), "clip.mp4"):
        assert_alike(clips_of(child.open, source), clips_of(open_media, contents))
        with child.open(source) as media:
            assert media.name == "clip.mp4"


def test_the_declared_properties_are_transferred(child: SandboxedDecoder):
    for source in (make_video(numbered_frames(5)), make_image(np.full((40, 50, 3), 90, np.uint8))):
        with child.open(source) as there, open_media(source) as here:
            assert there.video == here.video
            assert there.name == here.name


def test_a_repeated_frame_is_transferred_once(child: SandboxedDecoder):
    (clip,) = clips_of(child.open, make_video(numbered_frames(8), 10))
    (expected,) = clips_of(open_media, make_video(numbered_frames(8), 10))
    assert_alike([clip], [expected])
    assert clip.frames[1] is clip.frames[0]


def test_clips_outlast_the_child(long_video: bytes):
    with SandboxedDecoder(SMALL) as child:
        clips = clips_of(child.open, long_video)
    clips[0].frames[0][:] = 7  # this process's own memory
    assert_alike(clips[1:], clips_of(open_media, long_video)[1:])


def test_another_rate(child: SandboxedDecoder, long_video: bytes):
    assert_alike(clips_of(child.open, long_video, fps=29.97), clips_of(open_media, long_video, fps=29.97))


BAD = {
    "empty": b"",
    "text": b"BIN BLUE AT F TWO NOW\n" * 20,
    "page": b"<!DOCTYPE html><html>not found</html>",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "noise": bytes(range(256)) * 40,
    "audio": make_wav(),
    "pixel": make_image(np.zeros((1, 1, 3), np.uint8)),
    "cut off": make_video(numbered_frames(20))[:700],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gets_the_same_error(child: SandboxedDecoder, kind: str, caplog: pytest.LogCaptureFixture):
    assert outcome(child.open, BAD[kind]) == outcome(open_media, BAD[kind])
    assert "in the middle of a file" not in caplog.text


@pytest.mark.parametrize(
    "limits",
    [
        {"max_bytes": 100},
        {"max_frame_pixels": 3000},
        {"max_total_pixels": 10_000},
        {"max_total_pixels": 400_000},  # exceeded in a later clip
        {"max_duration_s": 0.5},
        {"max_fps": 10.0},
        {"min_side": 100},
    ],
)
def test_limits_apply_in_the_child(child: SandboxedDecoder, long_video: bytes, limits: dict):
    chosen = MediaLimits(**limits)
    assert outcome(child.open, long_video, chosen) == outcome(open_media, long_video, chosen)
    assert_alike(clips_of(child.open, long_video), clips_of(open_media, long_video))


def test_paths_that_are_not_files(child: SandboxedDecoder, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing.mp4", tmp_path, tmp_path / "pipe", "a\0b"):
        assert outcome(child.open, path) == outcome(open_media, path)


def index_bomb(claimed_bytes: int) -> bytes:
    """Return an MP4 whose compressed index claims to unpack to this size."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        return (8 + sum(map(len, parts))).to_bytes(4, "big") + kind + b"".join(parts)

    compressed = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", claimed_bytes.to_bytes(4, "big"), bytes(100)))
    return box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"moov", compressed)


def test_a_bomb_hits_the_memory_limit_and_the_next_file_is_read():
    flat = make_image(np.zeros((5000, 6000, 3), np.uint8))
    with SandboxedDecoder(MediaLimits(max_frame_pixels=32_000_000), memory_bytes=640 << 20) as child:
        child.warm_up()
        for bomb in (flat, index_bomb(2_000_000_000)):
            with pytest.raises(MediaTooLarge, match=r"takes over \d+ MiB to decode; that is the limit"):
                clips_of(child.open, bomb)
        assert len(clips_of(child.open, make_video(numbered_frames(5)))) == 1


def test_the_largest_frame_fits(child: SandboxedDecoder):
    image_8k = np.zeros((4320, 7680, 3), np.uint8)
    image_8k[2000:2100, 5000:] = 200
    (clip,) = clips_of(child.open, make_image(image_8k))
    assert np.array_equal(clip.frames[0], image_8k)


def test_square_pixels_count_as_returned(child: SandboxedDecoder):
    wide = make_video(numbered_frames(3, width=1920, height=1080), pixel_aspect=Fraction(4))
    assert clips_of(child.open, wide)[0].frames[0].shape == (1080, 7680, 3)
    error, message = outcome(child.open, wide, MediaLimits(max_frame_pixels=1920 * 1080))
    assert error is MediaTooLarge
    assert "7680x1080 square pixels; at most 2073600" in message


def test_a_slot_rejects_frames_larger_than_itself():
    with contextlib.closing(SharedFrameBuffer.create(4096)) as buffer, pytest.raises(ValueError, match="does not fit"):
        buffer.write(0, [np.zeros((40, 40, 3), np.uint8)])


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        (signal.SIGSEGV, UnsupportedMedia, r"input: the decoder crashed on it \(SIGSEGV\)"),
        (signal.SIGABRT, UnsupportedMedia, r"crashed on it \(SIGABRT\)"),
        (signal.SIGXCPU, MediaTooLarge, "takes 4 s of CPU time more than expected for its frames and samples"),
        (signal.SIGKILL, OutOfMemory, "killed while reading it"),
    ],
)
def test_a_child_that_dies_is_explained_and_replaced(child: SandboxedDecoder, long_video: bytes, sent, error, words):
    pid = child.pid
    with pytest.raises(error, match=words), child.open(long_video) as media:
        read_while(media, lambda _: is_running(pid) and os.kill(pid, sent))
    assert not Path(f"/proc/{pid}").exists()
    assert len(clips_of(child.open, long_video)) == 10
    assert child.pid != pid


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"response_timeout_s": 0.3}, r"did not respond for 0\.3 s; that is the limit"),
        ({"file_timeout_s": 1.5, "response_timeout_s": 2.0}, r"over 1\.5 s in total; that is the limit"),
    ],
)
def test_a_child_that_hangs_is_stopped_and_replaced(long_video: bytes, limits: dict, words: str):
    with SandboxedDecoder(SMALL, **limits) as child:
        child.warm_up()
        pid = child.pid
        with pytest.raises(MediaTooLarge, match=words), child.open(long_video) as media:
            read_while(media, lambda _: os.kill(pid, signal.SIGSTOP))
        assert not Path(f"/proc/{pid}").exists()
        child.warm_up()
        assert child.pid != pid


def test_a_slow_consumer_does_not_count_as_a_slow_decoder(long_video: bytes, monkeypatch: pytest.MonkeyPatch):
    consumer_s = 0.0
    monkeypatch.setattr(child_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + consumer_s))
    with SandboxedDecoder(SMALL, file_timeout_s=TIMEOUT_S) as child, child.open(long_video) as media:
        clips = media.read_clips(25.0)
        next(clips)
        consumer_s = 2 * TIMEOUT_S
        assert len(list(clips)) == 9


def test_a_child_that_died_between_files_is_replaced_silently(child: SandboxedDecoder, long_video: bytes):
    pid = child.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())  # its server has taken note
    assert len(clips_of(child.open, long_video)) == 10


def test_a_server_that_died_between_files_is_replaced_silently(child: SandboxedDecoder, long_video: bytes):
    """Its last child ends with the file that it was forked for."""
    child._server._process.kill()
    wait_until(lambda: not child._server.is_alive())
    for _ in range(2):
        assert len(clips_of(child.open, long_video)) == 10


def test_each_file_has_a_process_of_its_own(child: SandboxedDecoder, long_video: bytes):
    """One that a file has taken over must not see the next file, nor what is left of the last."""
    pids = [child.pid]
    for read in (child.open, child.open, child.spool_audio):
        if read == child.spool_audio:
            with read(make_wav()) as audio:
                assert len(audio) > 0
        else:
            assert len(clips_of(read, long_video)) == 10
        assert not Path(f"/proc/{pids[-1]}").exists()
        assert not child._buffer._map[:].strip(b"\0")
        pids.append(child.pid)
    assert len(set(pids)) == 4


@pytest.mark.parametrize(("sent", "is_replaced"), [(signal.SIGSEGV, True), (None, False)])
def test_addresses_change_after_a_crash(child: SandboxedDecoder, long_video: bytes, sent, is_replaced: bool):
    """Forks of one process have the same ones, and a file may try them one by one."""
    server = psutil.Process(child.pid).ppid()
    with contextlib.suppress(UnsupportedMedia), child.open(long_video) as media:
        if sent is not None:
            os.kill(child.pid, sent)
        list(media.read_clips(25.0))
    assert len(clips_of(child.open, long_video)) == 10
    assert (psutil.Process(child.pid).ppid() != server) == is_replaced


def test_addresses_change_after_an_invalid_response(child: SandboxedDecoder, long_video: bytes, monkeypatch):
    server = psutil.Process(child.pid).ppid()
    monkeypatch.setattr(child._process, "receive", lambda _timeout_s: {"is": "clip"})
    with pytest.raises(UnsupportedMedia):
        clips_of(child.open, long_video)
    assert psutil.Process(child.pid).ppid() != server


def test_a_child_works_ahead_by_three_clips_at_most(child: SandboxedDecoder, long_video: bytes):
    received = []

    def kill_after_first(n_clips: int) -> None:
        received.append(n_clips)
        if n_clips == 1:
            time.sleep(0.5)
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(OutOfMemory), child.open(long_video) as media:
        read_while(media, kill_after_first)
    assert len(received) <= 1 + N_SLOTS


def test_a_file_abandoned_half_way_costs_the_child(child: SandboxedDecoder, long_video: bytes):
    pid = child.pid
    with child.open(long_video) as media:
        next(media.read_clips(25.0))
    with pytest.raises(ZeroDivisionError), child.open(long_video) as media:
        read_while(media, lambda n_clips: 1 // 0)
    assert not Path(f"/proc/{pid}").exists()
    assert len(clips_of(child.open, long_video)) == 10


def test_a_file_may_be_opened_and_not_read(
    child: SandboxedDecoder, long_video: bytes, caplog: pytest.LogCaptureFixture
):
    with child.open(long_video) as media:
        assert media.video.width == 64
    assert len(clips_of(child.open, long_video)) == 10
    assert "in the middle of a file" not in caplog.text


def test_frames_are_read_while_the_file_is_open(child: SandboxedDecoder, long_video: bytes):
    with child.open(long_video) as media:
        pass
    with pytest.raises(ValueError, match="closed"):
        next(media.read_clips(25.0))
    with child.open(long_video) as media:
        clips = media.read_clips(25.0)
        next(clips)
        with pytest.raises(ValueError, match="busy"):
            next(media.read_clips(25.0))
    with pytest.raises(ValueError, match="read after it was closed"):
        next(clips)


def test_one_file_at_a_time(child: SandboxedDecoder, long_video: bytes):
    with child.open(long_video), pytest.raises(RuntimeError, match="one file at a time"), child.open(long_video):
        pass


def test_limits_above_its_own_are_rejected(long_video: bytes):
    with (
        SandboxedDecoder(SMALL) as child,
        pytest.raises(InvalidRequest, match="made for 2073600"),
        child.open(long_video, MediaLimits()),
    ):
        pass


def test_an_internal_error_reveals_no_details(child: SandboxedDecoder, long_video: bytes):
    with pytest.raises(RuntimeError, match="input: internal error in the decoder") as caught:
        clips_of(child.open, long_video, fps=float("nan"))
    assert "NaN" not in str(caught.value)
    assert len(clips_of(child.open, long_video)) == 10


@pytest.mark.parametrize(
    "response",
    [
        {"is": "clip", "slot": 9, "sizes": [], "shown": []},
        {"is": "clip", "slot": 0, "sizes": [[1 << 40, 1 << 40]], "shown": [0]},
        {"is": "clip", "slot": 0, "sizes": [[-5, 3]], "shown": [0]},
        {"is": "clip", "slot": 0, "sizes": [[5, "3"]], "shown": [0]},
        {"is": "clip", "slot": 0, "sizes": [[5, 3]], "shown": [1]},
        {"is": "clip"},
        {},
    ],
)
def test_invalid_responses_are_rejected(child: SandboxedDecoder, long_video: bytes, monkeypatch, response: dict):
    pid = child.pid
    with child.open(long_video) as media:
        monkeypatch.setattr(child._process, "receive", lambda timeout_s: response)
        with pytest.raises(UnsupportedMedia, match="sent an invalid response"):
            read_while(media, lambda _: None)
    assert child.pid != pid


@pytest.mark.parametrize("name", ["SystemExit", "__doc__", "", None, "internal"])
def test_only_viseme_errors_are_transferred(name: str | None):
    assert type(unpack_error({"error": name, "message": "secret"}, "clip")) is RuntimeError


def test_an_error_keeps_class_and_message():
    packed = pack_error(MediaTooLarge("clip: ünmäßig"))
    unpacked = unpack_error(packed, "clip")
    assert (type(unpacked), str(unpacked)) == (MediaTooLarge, "clip: ünmäßig")
    assert len(str(unpack_error(pack_error(MediaTooLarge("x" * 10**6)), "clip"))) < 10_000


def resources() -> set[str]:
    """Return this process's open files, shared memory and children."""
    maps = re.findall(r"\S*(?:memfd:viseme|/dev/shm)\S*", Path("/proc/self/maps").read_text())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    files = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this listing
            files.append(f"{fd.name} {fd.readlink()}")
    return {*files, *(f"map {i} {name}" for i, name in enumerate(maps)), *(f"child {pid}" for pid in children)}


def test_nothing_is_left_behind(long_video: bytes, tmp_path: Path):
    before = resources()
    path = tmp_path / "clip.mp4"
    path.write_bytes(long_video)
    for _ in range(2):
        with SandboxedDecoder(SMALL) as child:
            clips_of(child.open, path)
            clips_of(child.open, long_video)
            outcome(child.open, BAD["noise"])
            with child.open(path) as media:
                next(media.read_clips(25.0))
            with child.open(path) as media:
                os.kill(child.pid, signal.SIGKILL)
                with pytest.raises(OutOfMemory):
                    list(media.read_clips(25.0))
        child.close()
    assert resources() - before == set()  # garbage of other tests may disappear meanwhile
    with pytest.raises(RuntimeError, match="closed"), child.open(path):
        pass


def test_the_child_imports_only_what_decoding_needs():
    heavy = ("torch", "openvino", "boto3", "botocore", "pydantic", "cv2", "tenacity")
    check = f"import sys, inference.media.sandbox.child; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


def test_pyav_has_no_more_to_import_when_a_file_is_open():
    check = (
        "import sys, pkgutil, av, inference.media.sandbox.child\n"
        "print([m.name for m in pkgutil.walk_packages(av.__path__, 'av.') if m.name not in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "['av.__main__', 'av.datasets']"


def test_the_child_has_no_extra_library_no_secret_and_few_privileges(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for the child")
    with SandboxedDecoder(SMALL, memory_bytes=1 << 30) as child:
        child.warm_up()
        proc = Path(f"/proc/{child.pid}")
        limits = {line[:26].strip(): line[26:].split()[:2] for line in proc.joinpath("limits").read_text().splitlines()}
        assert limits["Max address space"] == [str(1 << 30)] * 2
        assert limits["Max file size"] == ["0", "0"]
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max open files"] == ["16", "16"]
        assert proc.joinpath("oom_score_adj").read_text().strip() == "1000"
        try:
            maps = proc.joinpath("maps").read_text()
        except PermissionError as err:
            pytest.skip(f"only root can inspect it further: {err}")
        assert "libav" in maps
        assert not any(name in maps for name in ("libtorch", "openvino", "cv2"))
        assert b"AWS" not in proc.joinpath("environ").read_bytes()
        assert len(list(proc.joinpath("fd").iterdir())) == 4  # three streams and the frame buffer


def test_ctrl_c_is_left_to_the_parent(child: SandboxedDecoder, long_video: bytes):
    pid = child.pid
    os.kill(pid, signal.SIGINT)
    assert len(clips_of(child.open, long_video, fps=25.0)) == 10


@pytest.mark.parametrize("closed", ["0<&-", "0<&- 1>&- 2>&-"])
def test_a_parent_without_standard_streams(tmp_path: Path, closed: str):
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_video(numbered_frames(30)))
    code = (
        "import sys; from inference.media import SandboxedDecoder\n"
        "with SandboxedDecoder() as child, child.open(sys.argv[1]) as media:\n"
        "    sys.exit(40 + len(list(media.read_clips(25.0))))"
    )
    script = f'exec "$0" -c "$1" "$2" {closed}'
    run = subprocess.run(["/bin/sh", "-c", script, sys.executable, code, path], cwd=ROOT, check=False)
    assert run.returncode == 42


def test_the_child_dies_with_its_parent():
    code = (
        "import os, signal; from inference.media import SandboxedDecoder\n"
        "child = SandboxedDecoder(); child.warm_up(); print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    deadline = time.monotonic() + TIMEOUT_S
    while is_running(int(run.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_whose_parent_leaves_before_it_is_ready_ends_silently():
    """What the parent did not read resets the connection, which is no broken pipe."""
    code = (
        "import select; from inference.media.sandbox import child\n"
        "def wait(builders):\n"
        "    poll = select.poll(); poll.register(0, 0); poll.poll()\n"
        "    return {}\n"
        "child.confine, child.exit_with_parent = wait, lambda sock: None\n"
        "child.main()"
    )
    parent, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.memfd_create("buffer")
    os.ftruncate(fd, N_SLOTS * mmap.PAGESIZE)
    with subprocess.Popen([sys.executable, "-c", code], stdin=own, stderr=subprocess.PIPE, cwd=ROOT) as process:
        own.close()
        send(parent, {"slot_bytes": mmap.PAGESIZE, "memory_bytes": 1 << 40}, fd)
        os.close(fd)
        assert select.select([parent], [], [], TIMEOUT_S)[0]  # it has started; not read
        parent.close()
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, b"")


def test_a_child_that_cannot_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NotReady, match="no decoder can be started: No such file"):
        SandboxedDecoder(SMALL)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NotReady, match=r"exit code 1"), SandboxedDecoder(SMALL) as child:
        child.warm_up()


def test_errors_of_the_child_are_forwarded_up_to_a_limit(capfd: pytest.CaptureFixture[str]):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe, os.fdopen(reader, "rb") as other_end:
        thread = threading.Thread(target=forward_errors, args=(other_end,))
        thread.start()
        pipe.write(b"crash\n" + b"x" * (3 * MAX_STDERR_BYTES))
        pipe.close()
        thread.join()
    written = capfd.readouterr().err
    assert written.startswith("crash\n")
    assert len(written) == MAX_STDERR_BYTES


def test_the_childs_stderr_is_not_that_of_the_server():
    with SandboxedDecoder() as decoder:
        assert Path(f"/proc/{decoder.pid}/fd/2").readlink().name.startswith("pipe:")


def test_the_childs_warnings_are_passed_on(child: SandboxedDecoder):
    pixels = np.full((32, 48, 4), 90, np.uint8)
    with child.open(encode_rgba(pixels)) as media:
        assert media.warnings == ()
        list(media.read_clips(25.0))
        assert media.warnings == (TRANSPARENT,)
    with child.open(make_image(pixels[..., :3])) as media:
        list(media.read_clips(25.0))
        assert media.warnings == ()


@pytest.mark.parametrize("found", [None, "text", 7, {}, ["\x1b[2J", 3, None], [["x"]]])
def test_other_warnings_of_the_child_are_dropped(found: object):
    assert known_warnings({"warnings": found}, VIDEO_WARNINGS) == ()
