from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from safetensors.torch import save_file

from bench.lip_closure import TimedAudio
from bench.sync_quality import ClosureClip, Quality, SyncEvaluator, closed_share, find_clips, mean_quality
from inference.dimensions.wav2lip import Wav2LipWidths
from inference.faces import Landmarker
from inference.lip_sync import LipSyncer
from inference.models import Wav2Lip

GOOD = Quality(
    ours=0.7,
    shuffled=0.1,
    energy=0.4,
    original=0.95,
    ssim=0.8,
    copying=0.7,
    rest=0.1,
    given=0.1,
    moved=0.9,
    closed=0.1,
)
TINY = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)


def test_baselines_that_are_not_beaten_are_named():
    assert GOOD.faults == []
    assert replace(GOOD, shuffled=0.8).faults == ["shuffled"]
    assert replace(GOOD, ours=0.3).faults == ["energy", "original"]
    assert replace(GOOD, ssim=0.7).faults == ["copying"]


def test_closed_lips_are_counted_over_the_widest():
    opening = np.concatenate([np.full(10, 0.02), np.linspace(0.02, 0.1, 70), np.full(20, 0.1)])
    assert closed_share(opening) == pytest.approx(0.2, abs=0.01)
    assert closed_share(np.zeros(5)) == 0


def test_closures_of_the_speaker_are_counted_if_there_is_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluator = SyncEvaluator(cast(LipSyncer, None), cast(Landmarker, None))
    opening = np.array([0, 1, 1, 0.02, 1, 1, 1, 1, 0.5, 1, 1, 1])
    monkeypatch.setattr(evaluator, "generated_opening", lambda face, samples: opening)
    own = {"face.mp4": np.ones(9), "own.mp4": opening + 0.2}
    own["face.mp4"][0] = 0.0
    monkeypatch.setattr(evaluator, "own_opening", lambda video: own[video.name])
    speech = TimedAudio(np.zeros(16000, np.int16), (3 / 25, 8 / 25))
    silent_face = [tmp_path / "face.mp4"]
    counts = evaluator.count_all_closures([ClosureClip(speech)], silent_face)
    assert (counts.n, counts.drawn, counts.predicted, counts.original) == (2, 1, None, None)
    counts = evaluator.count_all_closures([ClosureClip(speech, tmp_path / "own.mp4")] * 2, silent_face)
    assert (counts.n, counts.drawn, counts.drawn_from_0) == (4, 2, 2)
    assert (counts.original, counts.original_from_0) == (2, 0)  # the landmarks of closed lips are 0.2 apart


def test_each_figure_is_averaged():
    mean = mean_quality([GOOD, replace(GOOD, ours=0.5, rest=0.3)])
    assert mean.ours == pytest.approx(0.6)
    assert mean.rest == pytest.approx(0.2)
    assert mean.ssim == pytest.approx(0.8)


def test_speakers_are_kept_apart_and_missing_kinds_are_left_out(tmp_path: Path):
    for folder, names in (("clips", ("s1_a", "s2_a", "s4_a", "s26_a")), ("people", ("s2_b", "s33_b"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.mpg").touch()
    found = find_clips(tmp_path, 0, [tmp_path / "own.mp4"], tmp_path)
    assert {name: sorted(path.stem for path in paths) for name, paths in found.items()} == {
        "trained speakers": ["s2_a", "s4_a"],
        "strangers": ["s26_a", "s33_b"],
        "videos given": ["own"],
    }


def test_random_weights_do_not_beat_the_baselines(talking_film: bytes, tmp_path: Path, landmarker: Landmarker):
    """Generated mouths are noise; the original video still correlates with itself."""
    video = tmp_path / "video.mp4"
    video.write_bytes(talking_film)
    save_file(Wav2Lip(TINY).state_dict(), tmp_path / "random.safetensors")
    syncer = LipSyncer([tmp_path / "random.safetensors"], device="cpu", precision="f32")
    found = SyncEvaluator(syncer, landmarker).evaluate(video, video)
    assert found.original > 0.9
    assert found.given == pytest.approx(found.ours, abs=0.02)  # the face is the speaker's own
    assert found.moved > 0
    assert found.ssim < found.copying
    assert {"original", "copying"} <= set(found.faults)
