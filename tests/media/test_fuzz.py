"""Mutated media files, as `bench.fuzz` makes them: each is read or refused."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from bench.fuzz import fuzz, mutated_files, open_files, read_audio, read_frames
from bench.fuzz_seeds import make_seeds
from inference.errors import NoAudio, UnsupportedMedia
from inference.media import SandboxedDecoder

N_FILES = 1500
HANG_S = 20.0  # only a guard against hanging


def test_mutated_files_are_read_or_refused():
    report = fuzz(N_FILES, seed=20)  # any error but those of the media is raised
    assert report.outcomes.total() == 2 * N_FILES
    assert report.outcomes["read"] > N_FILES / 5  # the mutations are not so rough that nothing gets past the header
    assert report.outcomes["UnsupportedMedia"] > N_FILES / 5
    assert report.peak_mib < 512
    assert report.slowest_s < HANG_S, report.slowest
    assert report.left_behind == []


def test_intact_seeds_are_read():
    with SandboxedDecoder() as decoder:
        for name, contents in make_seeds().items():
            n_read = 0
            for read, error in ((read_frames, UnsupportedMedia), (read_audio, NoAudio)):
                try:
                    read(decoder, contents)
                    n_read += 1
                except error:  # audio only, or video only
                    continue
            assert n_read, name


def test_mutations_repeat_by_seed():
    first, again, other = (list(islice(mutated_files(40, seed), 40)) for seed in (1, 1, 2))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_open_files_are_listed(tmp_path: Path):
    before = open_files()
    path = tmp_path / "left.mp4"
    path.touch()
    with path.open("rb"):
        assert open_files() - before == {str(path)}
    assert open_files() == before
