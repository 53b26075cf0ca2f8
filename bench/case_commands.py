"""The cases of `bench.cases` that are about the terminal, and those of HTTP and live clients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.case_checks import Check, exits, prints, unless
from bench.case_runs import Outcome
from bench.case_table import SECOND, WORDS

MAX_NAME = 200  # characters; A40 has the long one


@dataclass(frozen=True)
class CommandCase:
    """A command of `viseme`. prepare: makes what it needs in the folder of outputs."""

    number: str
    title: str
    arguments: tuple[str | bytes, ...]
    checks: tuple[Check, ...]
    scripts: frozenset[str] = frozenset({"stills", "case_inputs"})
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class ClientCase:
    """A request of http_clients.py or live_clients.py, by the name that they print."""

    number: str
    title: str
    checks: tuple[Check, ...]

    @property
    def scripts(self) -> frozenset[str]:
        return frozenset({"case_inputs", "stills", "voices"})


def command_cases(inputs: Path, outputs: Path) -> list[CommandCase]:
    """Return the commands, with paths in these folders."""
    photo, audio, out = str(inputs / "stills/plain.jpg"), str(inputs / SECOND), outputs / "commands"
    long_name = inputs / "names" / f"{'x' * 245}.mp4"

    def copy_photo() -> None:
        out.mkdir(exist_ok=True)
        shutil.copy(photo, out / "photo.jpg")

    def make_link() -> None:
        out.mkdir(exist_ok=True)
        (out / "target.mp4").write_bytes(b"")
        (out / "link.mp4").unlink(missing_ok=True)
        (out / "link.mp4").symlink_to("target.mp4")

    own, link, written = str(out / "photo.jpg"), str(out / "link.mp4"), str(out / "a.mp4")
    silence = str(inputs / "voices/silence.wav")
    kept = file_check(
        "the input is as it was", out / "photo.jpg", lambda path: path.read_bytes() == Path(photo).read_bytes()
    )
    target = file_check(
        "its target is written", out / "link.mp4", lambda path: path.is_symlink() and path.stat().st_size > 0
    )
    transcript = file_check(
        "a file of 249 bytes' name", out / f"{'x' * 245}.txt", lambda path: WORDS in path.read_text()
    )
    return [
        CommandCase(
            "A1",
            "viseme sync face.jpg",
            ("sync", photo, audio, "-o", written),
            (exits(0, "wrote"),),
            prepare=copy_photo,
        ),
        CommandCase(
            "A24",
            "viseme sync, digital silence",
            ("sync", photo, silence, "-o", written),
            (exits(0, "warning: silent_audio"),),
            frozenset({"stills", "voices"}),
            copy_photo,
        ),
        CommandCase(
            "A40",
            "viseme read, name of 249 bytes",
            ("read", str(long_name), "--output-dir", str(out)),
            (exits(0), transcript),
            frozenset({"names"}),
        ),
        CommandCase(
            "A41",
            "viseme sync -o the input",
            ("sync", own, audio, "-o", own),
            (exits(2, "--force"), kept),
            prepare=copy_photo,
        ),
        CommandCase(
            "A41", "viseme sync -o a link", ("sync", photo, audio, "-o", link), (exits(0), target), prepare=make_link
        ),
        CommandCase("P13", "viseme read, odd names", *odd_names(inputs / "names"), frozenset({"names"})),
    ]


def odd_names(folder: Path) -> tuple[tuple[str | bytes, ...], tuple[Check, ...]]:
    """Return a command that reads every file of names.sh; what is no file is named."""
    paths = sorted(path for path in folder.glob("*") if len(path.name) < MAX_NAME)
    n_read = len([path for path in paths if path.is_file()])
    count = Check(f"{n_read} texts", lambda got, _: unless(got.printed.count(WORDS) == n_read, got.printed))
    return ("read", "--", *(os.fsencode(path) for path in paths)), (
        exits(2, "dangling", "fifo", "readonly"),
        count,
    )


def file_check(expected: str, path: Path, is_met: Callable[[Path], bool]) -> Check:
    """Return a check of a file that a command writes or leaves."""

    def find_fault(_got: Outcome, _inputs: Path) -> str:
        return unless(path.exists() and is_met(path), f"{path.name} is not so")

    return Check(expected, find_fault)


READ = rf" 200 application/json .*{WORDS}"
UNTAKEN = " 415 .*expected application/json, or the video itself"
VIDEO = " 200 video/mp4 .*<mp4"
INVALID = " 400 .*invalid_request"
SPOKEN_WHOLE = r"speaking 75 pcm {} samples.*speech_finished"
REQUESTS: dict[str, dict[str, str]] = {
    "A37": {"base64 in lines of 76": READ, "base64 url-safe": READ, "base64 unpadded": READ},
    "A38": {"data URI": READ, "sync data URIs": VIDEO, "generate data URIs": ' 200 .*"status": "success", "video"'},
    "A39": {"accept q-values, text first by q": READ},
    "A42": {"no flush at all": SPOKEN_WHOLE.format(48000), "one sample then silence, no flush": "speech_finished"},
    "P15": {
        f"s3 {key}": READ
        for key in (
            "two words.mp4",
            "a+b&c=d.mp4",
            "100%25done.mp4",
            "Ünïcødé 視頻 🎬.mp4",
            "deep//double/slash.mp4",
            "/leading.mp4",
            "quote'\"s.mp4",
            "uploads/two words (1).mp4",
        )
    }
    | {
        "s3 two+words.mp4": " 404 .*object_not_found",
        "s3 two%20words.mp4": " 404 .*object_not_found",
        "s3 whole url as key": " 404 .*object_not_found",
        "s3 bucket with s3://": INVALID,
        "s3 sync to prefix with space": ' 200 .*"s3_key": "out p',
    },
    "P16": {
        "raw video/mp4": READ,
        "video/quicktime": READ,
        'video/webm;codecs="vp8,opus"': READ,
        "application/octet-stream": READ,
        "application/mp4": READ,
        "curl default form type": UNTAKEN,
        "no content type": UNTAKEN,
        "application/x-npy (SDK default)": UNTAKEN,
        "multipart to /invocations": UNTAKEN,
        "multipart to transcriptions": f" 200 .*{WORDS}",
        "json charset": READ,
        "json BOM": READ,
        "axios accept": READ,
        "accept jsonlines": " 415 .*expected one of application/json",
        "accept x-npy (SDK default)": " 415 .*expected one of application/json",
        "HF style inputs": INVALID,
        "TF style instances": INVALID,
        "gzip body": " 400 .*a gzip archive",
        "gzip json": f"{INVALID}.*compressed with gzip",
        "face as text '0'": READ,
        "fps as text": READ,
        "fps 30": INVALID,
        "custom attributes eula": READ,
        "HEAD /ping": " 200 ",
        "GET /invocations": " 405 ",
        "empty body": INVALID,
        "{}": INVALID,
        "chunked transfer": " 400 ",  # the client announces chunks and sends none
        "chunks": " 200 ",
        "still to read": " 400 .*a still image",
        "sync inline": VIDEO,
        "generate": ' 200 .*"status": "success", "video"',
        "sync fps text": VIDEO,
        "sync pads of 3": INVALID,
        "sync swapped": " 400 .*no_audio",
        "sync url instead of base64": INVALID,
        "sync audio/* accept": VIDEO,
    },
    "P17": {"caller leaves": " 200 OK after [0-9]\\.| 200 OK after 1[0-9]\\."},
    "P18": {
        "16k in pieces of 20 ms": SPOKEN_WHOLE.format(48000) + ".*48000 of 48000 True",
        "8000 Hz": SPOKEN_WHOLE.format(24000),
        "24000 Hz": SPOKEN_WHOLE.format(72000),
        "44100 Hz": SPOKEN_WHOLE.format(132300),
        "48000 Hz": SPOKEN_WHOLE.format(144000),
        "odd byte pieces": SPOKEN_WHOLE.format(48000),
        "whole WAV file with its header": "speech_finished",
        "empty message": "ready",
        "base64 JSON audio": "invalid_request.*expected start, flush",
        "plain text": "invalid_request.*not JSON",
        "unknown option": "HTTP 400",
        "unknown avatar": "HTTP 404",
        "odd avatar name": "HTTP 40[0-9]",
        "ten minutes at once": "message too big",
        "slow client 200 ms a frame": "speech_started",
    },
    "P19": {"interrupt, then speak anew": "interrupted.*1: 16000", "two flushes": "pcm 32000 .*speech_finished"},
    "P20": {"after them": SPOKEN_WHOLE.format(48000)}
    | {f"four at once {i}": SPOKEN_WHOLE.format(48000) for i in range(4)},
}


def client_cases() -> list[ClientCase]:
    """Return the requests of HTTP and live clients, and what is printed of each."""
    return [
        ClientCase(number, title, (prints(pattern),))
        for number, requests in REQUESTS.items()
        for title, pattern in requests.items()
    ]
