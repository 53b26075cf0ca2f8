from __future__ import annotations

import errno
import json
import os
import pickle
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from support import sandbox_attacker
from support.sandbox_attacker import FORBIDDEN_CALLS, Target, attempts
from support.video_files import make_video, make_wav, numbered_frames

from inference.media import SandboxedDecoder
from inference.media.sandbox import confinement, decoder
from inference.media.sandbox.landlock import SCOPES_SINCE, TCP_SINCE, landlock_version
from inference.media.sandbox.seccomp import PROCESSORS

ROOT = Path(__file__).parents[3]
ATTACKER = Path(sandbox_attacker.__file__)
# One thread, as in the decoder: a process with several cannot enter a user namespace.
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OPENBLAS_NUM_THREADS": "1"}
IS_ROOT = os.geteuid() == 0
TARGET = """
import ctypes, sys
memory = ctypes.create_string_buffer(b"-", 1)
print(ctypes.addressof(memory), flush=True)
sys.stdin.readline()
print(memory.raw.decode())
"""
# The first one needs the second; an ordinary user may only empty its root folder in a network of its own.
SUPPORTS = {"user": ["privileges"], "folders": ["network"], "landlock": ["privileges"], "seccomp": ["privileges"]}
FILES = ("read the environment", "read a file", "create a file", "write memory by its file", "run a program")
MEMORY = ("read the environment", "write memory", "write memory by its file", "trace")
PROCESSES = ("signal", *MEMORY)
SECCOMP = (
    *FILES,
    *PROCESSES,
    *("open a socket", "connect", "fork", "signal by a descriptor", *FORBIDDEN_CALLS),
)
STOPPED = [
    *(("seccomp", name) for name in dict.fromkeys(SECCOMP)),
    *(("landlock", name) for name in dict.fromkeys((*FILES, *PROCESSES, "connect"))),
    *(("folders", name) for name in (*FILES, "look at a file")),
    ("network", "connect"),
    *(("user", name) for name in (*PROCESSES, "read a file", "create a file")),
]
LANDLOCK_SINCE = {"connect": TCP_SINCE, "signal": SCOPES_SINCE}
ALL = ("user", "network", "folders", "privileges", "landlock", "seccomp")


class Attack:
    """A target, and what attackers behind some walls achieved."""

    def __init__(self, folder: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = subprocess.Popen(
            [sys.executable, "-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._target.stdout is not None
        address = int(self._target.stdout.readline())
        secret = folder / "secret"
        secret.write_text("not for the child")
        secret.chmod(0o600)
        self.target = Target(self._target.pid, address, self._listener.getsockname()[1], str(secret), str(folder))
        self.outcome = cache(self._run)

    def read_memory(self) -> str:
        """End the target. Returns: what its memory contained."""
        return self._target.communicate("\n", timeout=60)[0].strip()

    def close(self) -> None:
        self._listener.close()
        self._target.kill()
        self._target.wait()
        for stream in (self._target.stdin, self._target.stdout):
            assert stream is not None
            stream.close()

    def _run(self, *walls: str, is_forked: bool = False) -> dict[str, str]:
        """Return the outcome of each attempt, and "missing": the walls that the platform lacks."""
        task = json.dumps(vars(self.target) | {"walls": walls, "is_forked": is_forked})
        run = subprocess.run(
            [sys.executable, ATTACKER, task],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            check=False,
        )
        Path(self.target.folder, "created").unlink(missing_ok=True)
        return dict(map(json.loads, run.stdout.splitlines()))


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    folder = tmp_path_factory.mktemp("target")
    folder.chmod(0o700)
    one = Attack(folder)
    yield one
    one.close()


@pytest.fixture
def own_attack(tmp_path: Path) -> Iterator[Attack]:
    one = Attack(tmp_path)
    yield one
    one.close()


def skip_missing(missing: dict[str, str], walls: list[str]) -> None:
    found = [f"{wall}: {missing[wall]}" for wall in walls if wall in missing]
    if found:
        pytest.skip("; ".join(found))


def test_without_walls_all_of_it_works(own_attack: Attack):
    found = own_attack.outcome()
    on_own_files = ("open a socket", "connect", "fork", "read a file", "create a file", "look at a file")
    for name in (*on_own_files, "read the environment", "run a program"):
        assert found[name] == "done", name
    if IS_ROOT:  # else it depends on Yama
        assert {name: found[name] for name in PROCESSES} == dict.fromkeys(PROCESSES, "done")
        assert own_attack.read_memory() == "x"


@pytest.mark.parametrize(("wall", "name"), STOPPED)
def test_a_wall_stops_an_attempt_by_itself(attack: Attack, wall: str, name: str):
    walls = [wall, *SUPPORTS.get(wall, [])]
    found = attack.outcome(*walls)
    skip_missing(found["missing"], walls)
    if wall == "landlock" and landlock_version() < LANDLOCK_SINCE.get(name, 1):
        pytest.skip(f"needs version {LANDLOCK_SINCE[name]} of Landlock; this kernel has {landlock_version()}")
    if wall == "seccomp":
        assert found[name] == "EPERM"
    else:
        assert found[name] in ("EPERM", "EACCES", "ENOENT", "ENETUNREACH", "ESRCH")


@pytest.mark.parametrize("is_forked", [False, True])
def test_behind_all_walls_nothing_works(own_attack: Attack, is_forked: bool):
    found = own_attack.outcome(*ALL, is_forked=is_forked)
    skip_missing(found["missing"], ["seccomp"])
    missing = found.pop("missing")
    assert found.keys() == attempts(own_attack.target).keys()
    harmless = ["start a thread", *(["look at a file"] if "folders" in missing else [])]
    assert [name for name, outcome in found.items() if outcome == "done"] == harmless
    assert own_attack.read_memory() == "-"


DENY = """
import os, sys
from inference.media.sandbox.confinement import deny_inspection
from inference.media.sandbox.linux import set_process_option
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
    set_process_option(4, 1)  # PR_SET_DUMPABLE: a change of user denies inspection, too
if sys.argv[1] == "deny":
    deny_inspection()
read_end, write_end = os.pipe()
if os.fork() == 0:
    set_process_option(4, 1)
    try:
        os.write(write_end, str(len(open(f"/proc/{os.getppid()}/environ", "rb").read())).encode())
    except OSError as err:
        os.write(write_end, type(err).__name__.encode())
    os._exit(0)
os.wait()
print(os.read(read_end, 100).decode())
"""


@pytest.mark.parametrize(("way", "expected"), [("allow", r"\d+"), ("deny", "PermissionError")])
def test_a_process_that_denies_inspection_hides_its_environment(way: str, expected: str):
    run = subprocess.run([sys.executable, "-c", DENY, way], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert re.fullmatch(expected, run.stdout.strip())


def test_the_decoder_is_behind_the_walls():
    with SandboxedDecoder() as child:
        child.warm_up()
        proc = Path(f"/proc/{child.pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        if platform.machine() in PROCESSORS:
            assert status["Seccomp"] == "2"  # by a filter
        if IS_ROOT:
            assert set(status["Uid"].split()) | set(status["Gid"].split()) <= {"65534", "0"}


PREPARE = """
import json
from inference.media.sandbox.fork_server import prepare_for_forks
from inference.media.sandbox.linux import LIBC, set_process_option
set_process_option(4, 1)  # PR_SET_DUMPABLE
walls = prepare_for_forks()
print(json.dumps([LIBC.prctl(3, 0, 0, 0, 0), sorted(walls)]))  # PR_GET_DUMPABLE
"""


def prepare() -> tuple[int, list[str]]:
    """Do what the server of decoders does at its start. Returns: whether it may be inspected, and its walls."""
    run = subprocess.run([sys.executable, "-c", PREPARE], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    is_inspectable, walls = json.loads(run.stdout)
    return is_inspectable, walls


def test_the_server_of_decoders_denies_inspection():
    """Else a decoder without seccomp could take it over, or the next decoder, which inherits this."""
    assert prepare()[0] == 0


def test_the_server_of_decoders_has_no_network_and_no_folders():
    with SandboxedDecoder() as child:
        child.warm_up()
        proc = Path(f"/proc/{psutil.Process(child.pid).ppid()}")
        try:
            folders, network = list((proc / "root").iterdir()), (proc / "ns/net").readlink()
        except PermissionError as err:  # it cannot be inspected, as it should be
            pytest.skip(f"only root can inspect it: {err}")
    _, walls = prepare()
    assert (network != Path("/proc/self/ns/net").readlink()) == ("network" in walls)
    assert (folders == []) == ("folders" in walls)


IMPORTS = """
import pickle, sys
import inference.media.sandbox.child
from inference.media.audio import read_audio
from inference.media.open import open_media
videos, audio = pickle.load(open(sys.argv[1], "rb"))
before = set(sys.modules)
for video in videos:
    with open_media(video) as media:
        list(media.read_clips(29.97))
read_audio(audio, 16000)
print(sorted(set(sys.modules) - before))
"""


def test_decoding_imports_nothing_more(tmp_path: Path):
    image = np.zeros((64, 64, 3), np.uint8)
    videos = [make_video(numbered_frames(5), container=name) for name in ("mp4", "matroska", "avi", "mpeg")]
    images = [cv2.imencode(suffix, image)[1].tobytes() for suffix in (".png", ".jpg", ".webp", ".bmp")]
    (tmp_path / "media").write_bytes(pickle.dumps(([*videos, *images], make_wav())))
    command = [sys.executable, "-c", IMPORTS, tmp_path / "media"]
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ({"user": "only root can", "network": "Operation not permitted"}, "INFO"),
        ({"seccomp": "no list of system calls for riscv64"}, "WARNING"),
    ],
)
def test_missing_walls_are_logged_once(missing: dict, level: str, caplog: pytest.LogCaptureFixture):
    decoder.log_missing_walls.cache_clear()
    with caplog.at_level("INFO"):
        for _ in range(2):
            decoder.log_missing_walls(decoder.describe_walls(missing))
        decoder.log_missing_walls("")
    decoder.log_missing_walls.cache_clear()
    words = "; ".join(f"{wall}: {reason}" for wall, reason in missing.items())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (level, f"decoders of media run without these walls: {words}")
    ]


def test_a_wall_that_fails_leaves_the_rest():
    def fail() -> None:
        raise OSError(errno.ENOSYS, "no such call")

    built: list[str] = []
    walls = {"user": fail, "network": lambda: built.append("network")}
    assert confinement.confine(walls) == {"user": "no such call"}
    assert built == ["network"]
