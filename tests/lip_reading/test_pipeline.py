from __future__ import annotations

import csv
import itertools
import json
from fractions import Fraction
from pathlib import Path

import jiwer
import numpy as np
import pytest
from films import film, picture
from speaking import talk

from inference.errors import InvalidRequest, MediaTooLarge, NoFaceFound, UnsupportedMedia, WeightsNotFound
from inference.lip_reading import LipReader, ReadOptions
from inference.lip_reading.preprocess import WINDOW
from inference.settings import Settings
from inference.stages import StageClock
from inference.weights.registry import STARTER


def test_a_transcript_has_every_key(reader: LipReader, talking_film: bytes):
    transcript = reader.read(talking_film)
    plain = json.loads(json.dumps(transcript.as_dict()))
    assert plain["num_frames"] == 75
    assert plain["fps"] == 25
    assert plain["duration_s"] == 3.0
    assert plain["frames_without_face"] == 0
    assert plain["model"] == {"name": "LipCoordNet", "weights": "starter", "sha256": STARTER.files[0].sha256}
    assert plain["warnings"] == plain["alternatives"] == []
    assert set(plain["timings_ms"]) == {"decode", "faces", "mouths", "network", "words", "total"}
    assert 0 <= plain["confidence"] <= 1
    assert [word["word"] for word in plain["words"]] == plain["text"].split()
    for word in plain["words"]:
        assert set(word) == {"word", "start", "end", "confidence"}
        assert 0 <= word["start"] < word["end"] <= 3.0
        assert 0 < word["confidence"] <= 1


def test_a_path_and_its_bytes_read_alike(reader: LipReader, talking_film: bytes, tmp_path: Path):
    path = tmp_path / "talk.mp4"
    path.write_bytes(talking_film)
    assert reader.read(path).words == reader.read(talking_film).words


@pytest.mark.parametrize("n_frames", [1, 30, WINDOW + 1, 160])
def test_any_length_is_read(reader: LipReader, n_frames: int):
    transcript = reader.read(film(talk(n_frames)))
    assert transcript.num_frames == n_frames
    assert all(word.end <= transcript.duration_s for word in transcript.words)


def test_frames_without_a_face_are_filled_and_counted(reader: LipReader):
    frames = talk(60)
    for i in (0, 10, 11, 40, 59):
        frames[i] = np.zeros_like(frames[i])
    transcript = reader.read(film(frames))
    assert transcript.num_frames == 60
    assert transcript.frames_without_face == 5


def test_another_rate_gives_the_same_frames(reader: LipReader):
    transcript = reader.read(film([f for f in talk(30) for _ in range(2)], Fraction(50)))
    assert transcript.num_frames == 30


def test_no_face_is_an_error(reader: LipReader):
    with pytest.raises(NoFaceFound, match="no face found in 10 frames"):
        reader.read(film([np.full((96, 96, 3), 90, np.uint8)] * 10))


def test_a_still_picture_is_an_error(reader: LipReader):
    with pytest.raises(UnsupportedMedia, match="still picture"):
        reader.read(picture(talk(1)[0]))


def test_limits_of_the_settings_hold(settings: Settings, talking_film: bytes, weights_cache: Path):
    strict = LipReader(settings=settings.model_copy(update={"max_duration_s": 1.0}))
    with pytest.raises(MediaTooLarge):
        strict.read(talking_film)


def test_progress_reaches_the_end(reader: LipReader, talking_film: bytes):
    told: list[tuple[float, float | None]] = []
    reader.read(talking_film, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == pytest.approx(3.0)
    assert told[-1][1] == pytest.approx(3.0, abs=0.1)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_every_stage_is_timed(reader: LipReader, talking_film: bytes):
    ticks = itertools.count()
    clock = StageClock(lambda: float(next(ticks)))
    timings = reader.read(talking_film, clock=clock).timings_ms
    assert all(timings[stage] > 0 for stage in ("decode", "faces", "mouths", "network"))
    assert timings["total"] >= timings["decode"] + timings["network"]


@pytest.mark.parametrize("face", [-1, 1.5, "biggest", True, None])
def test_a_face_that_cannot_be_is_refused(face):
    with pytest.raises(InvalidRequest, match="expected 'largest' or a number"):
        ReadOptions(face=face)


def test_an_unknown_decoder_is_refused():
    with pytest.raises(InvalidRequest, match="expected one of greedy"):
        ReadOptions(decoder="beam")  # type: ignore[arg-type]


def test_unknown_weights_and_landmarks_are_refused(weights_cache: Path):
    with pytest.raises(WeightsNotFound, match="known: starter"):
        LipReader(weights="nope")
    with pytest.raises(InvalidRequest, match="expected one of mediapipe"):
        LipReader(landmarks="nope")


def test_weights_by_path_read_the_same(reader: LipReader, talking_film: bytes):
    path = STARTER.shipped_in / STARTER.files[0].name
    by_path = LipReader(weights=path)
    assert by_path.model.info.weights == str(path)
    assert by_path.read(talking_film).text == reader.read(talking_film).text


def test_real_clips_are_read_no_worse_than_the_card_says(shared: Path, reader: LipReader):
    """A quarter of the held-out clips, to save time; `python -m bench.accuracy` measures all."""
    card = STARTER.read_card()["results"]["eval s1"]
    with (shared / "grid" / "eval.csv").open() as file:
        rows = list(csv.DictReader(file))[::4]
    read = [reader.read(shared / "grid" / "eval" / row["file"]).text for row in rows]
    said = [row["transcript"] for row in rows]
    assert jiwer.cer(said, read) < card["greedy_cer"] * 1.3
    assert jiwer.wer(said, read) < card["greedy_wer"] * 1.3
