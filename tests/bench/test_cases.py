"""The runner of the cases: it tries every kind, finds what is not as expected, and ends what does not end."""

from __future__ import annotations

import shutil
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from support.timed_media import add_flash, grey_frames, make_click, make_timed_media

from bench import cases
from bench.case_checks import (
    Check,
    audio_in_place,
    exits,
    frames,
    in_sync,
    mouth_at,
    moves,
    prints,
    reads,
    refused,
    region,
    shows,
    video,
    warns,
)
from bench.case_clients import HTTP_NAME, LIVE_NAME, split_output
from bench.case_commands import client_cases, command_cases
from bench.case_media import comb_strength
from bench.case_runs import CaseWorker, Job, Outcome
from bench.case_table import NOT_SCRIPTED, all_cases

KINDS = {f"A{i}" for i in range(1, 43)} | {f"P{i}" for i in range(1, 24)}
HANGS, ENDS = "hangs", "ends"


def test_every_kind_is_tried_or_named(tmp_path: Path):
    tried = {case.number for case in (*all_cases(), *command_cases(tmp_path, tmp_path), *client_cases())}
    assert tried | set(NOT_SCRIPTED) == KINDS
    assert not tried & set(NOT_SCRIPTED)


MADE = Outcome(n_frames=75, fps=25, duration_s=3.0, size=(360, 288), warnings=("silent_audio",))


@pytest.mark.parametrize(
    ("check", "met", "unmet"),
    [
        (reads("A B C"), Outcome(text="A B C"), Outcome(text="A B D")),
        (reads("A B C", n_wrong=1), Outcome(text="A B D"), Outcome(text="A D D")),
        (reads("A B C"), Outcome(text="A B C"), Outcome("NoFaceFound: none", text="A B C")),
        (refused("too", "large"), Outcome("MediaTooLarge: too very large"), Outcome("UnsupportedMedia: small")),
        (refused(), Outcome("UnsupportedMedia: none"), Outcome("KeyError: 0 (internal error: ...)")),
        (refused(), Outcome("UnsupportedMedia: none"), Outcome("did not end within 3 s")),
        (video(3.0, (360, 288), (25, 25)), MADE, Outcome(n_frames=75, fps=25, duration_s=2.2, size=(360, 288))),
        (video(faceless=(1, 2)), Outcome(fps=25, n_without_face=2), Outcome(fps=25)),
        (frames(70, 80), MADE, Outcome(n_frames=81)),
        (warns("silent"), MADE, Outcome()),
        (exits(2, "--force"), Outcome(exit_code=2, printed="use --force"), Outcome(printed="use --force")),
        (exits(1), Outcome(exit_code=1), Outcome(exit_code=1, printed="Traceback (most recent call last)")),
        (prints(" 200 .*text"), Outcome(printed="a 200 the text"), Outcome("the client did not get so far")),
    ],
)
def test_a_check_tells_what_is_expected_from_what_is_not(check: Check, met: Outcome, unmet: Outcome, tmp_path: Path):
    assert check.find_fault(met, tmp_path) == ""
    assert check.find_fault(unmet, tmp_path)


@pytest.fixture
def timed(tmp_path: Path) -> Outcome:
    """Return a video with a flash and a click at 1 s; the flash is the only frame that differs."""
    path = tmp_path / "timed.mp4"
    path.write_bytes(make_timed_media("mp4", add_flash(grey_frames(75), 25), make_click(3.0, 1.0)))
    return Outcome(output=path)


def test_a_click_that_comes_late_is_found(timed: Outcome, tmp_path: Path):
    (tmp_path / "late.mp4").write_bytes(make_timed_media("mp4", add_flash(grey_frames(75), 25), make_click(3.0, 1.2)))
    late = Outcome(output=tmp_path / "late.mp4")
    assert in_sync().find_fault(timed, tmp_path) == ""
    assert "click at 1.2" in in_sync().find_fault(late, tmp_path)
    in_place = audio_in_place("timed.mp4", 0.5, 1.5)
    assert in_place.find_fault(timed, tmp_path) == ""
    assert "+0.200 s off" in in_place.find_fault(late, tmp_path)


def test_what_a_video_shows_is_compared(timed: Outcome, tmp_path: Path):
    assert timed.output is not None
    shutil.copy(timed.output, tmp_path / "same.mp4")
    assert shows("same.mp4").find_fault(timed, tmp_path) == ""
    assert shows("same.mp4", gain=0.5).find_fault(timed, tmp_path)
    everything = (slice(None), slice(None))
    assert region(everything, 250, 255, "white", at=25).find_fault(timed, tmp_path) == ""
    assert region(everything, 250, 255, "white").find_fault(timed, tmp_path)
    assert moves().find_fault(timed, tmp_path) == ""
    assert moves(is_expected=False).find_fault(timed, tmp_path)


def test_the_place_of_a_change_is_found(timed: Outcome, tmp_path: Path):
    changed = [frame.copy() for frame in grey_frames(75)]
    for frame in changed:
        frame[60:80, 20:40] = 220
    (tmp_path / "plain.mp4").write_bytes(make_timed_media("mp4", grey_frames(75), make_click(3.0, 1.0)))
    (tmp_path / "changed.mp4").write_bytes(make_timed_media("mp4", changed, make_click(3.0, 1.0)))
    outcome = Outcome(output=tmp_path / "changed.mp4")
    assert mouth_at("plain.mp4", {5: (30 / 128, 70 / 96)}, 0.05).find_fault(outcome, tmp_path) == ""
    assert "frame 5" in mouth_at("plain.mp4", {5: (0.7, 0.7)}, 0.05).find_fault(outcome, tmp_path)
    unchanged = Outcome(output=tmp_path / "plain.mp4")
    assert "nothing" in mouth_at("plain.mp4", {5: (0.7, 0.7)}, 0.05).find_fault(unchanged, tmp_path)


def test_combs_are_stronger_than_what_is_in_the_image():
    smooth = np.tile(np.linspace(0, 255, 96).astype(np.uint8)[:, None], (1, 64))
    combed = smooth.copy()
    combed[::2] = 255 - combed[::2]
    assert comb_strength(smooth) < 1 < comb_strength(combed)


def serve_or_hang(pipe: Connection) -> None:
    while True:
        if pipe.recv().kind == HANGS:
            time.sleep(600)
        pipe.send(Outcome(text="answered"))


def test_what_does_not_end_is_ended_and_the_next_is_answered(tmp_path: Path):
    worker = CaseWorker(limit_s=30, serve=serve_or_hang)
    try:
        assert worker.run(Job(ENDS, tmp_path, tmp_path)).text == "answered"
        worker.limit_s = 0.2
        assert "did not end within" in worker.run(Job(HANGS, tmp_path, tmp_path)).error
        worker.limit_s = 30
        assert worker.run(Job(ENDS, tmp_path, tmp_path)).text == "answered"
    finally:
        worker.close()


def test_the_output_of_clients_is_parted_by_request():
    http = "json BOM                           200 application/json :: {}\nGET /    405 text/html :: <p>\n more\n"
    assert split_output(http, HTTP_NAME, is_indented=False)["json BOM"].printed.endswith("{}")
    live = "slow client 200 ms a frame     frames 38 speaking 37\n      [('ready', '', '')]\nafter them  frames 76\n"
    parts = split_output(live, LIVE_NAME, is_indented=True)
    assert set(parts) == {"slow client 200 ms a frame", "after them"}
    assert "ready" in parts["slow client 200 ms a frame"].printed


@pytest.mark.parametrize("missing", ["folder", "ffmpeg"])
def test_it_skips_and_says_why(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "stills.sh").write_text("exit 1")
    monkeypatch.setattr(sys, "argv", ["cases"] if missing == "folder" else ["cases", str(tmp_path)])
    monkeypatch.setenv("PATH", str(tmp_path))
    cases.main()
    assert capsys.readouterr().out.startswith("skipped: ")
