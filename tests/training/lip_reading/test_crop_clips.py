from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from inference.speaker import SyntheticClip, SyntheticClipOptions
from training.common.mouth_packs import decode_crops, load_packs
from training.lip_reading.crop_clips import make_packs, read_speakers, read_word_times

SENTENCES = {"a_one": "BIN BLUE AT F TWO NOW", "b_one": "SET RED IN Q SIX SOON", "c_one": "LAY RED BY G FOUR NOW"}


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two videos of 74 and 75 frames by a and b, and a row by c without a video."""
    (tmp_path / "clips").mkdir()
    for seed, (name, length_s) in enumerate({"a_one": 74 / 25, "b_one": 3.0}.items()):
        options = SyntheticClipOptions(fps=25, length_s=length_s)
        SyntheticClip(SENTENCES[name], seed, options).write(tmp_path / "clips" / f"{name}.mp4", with_audio=False)
    rows = [{"file": f"{name}.mp4", "speaker": name[0], "transcript": text} for name, text in SENTENCES.items()]
    return write_table(tmp_path / "clips.csv", rows)


def write_words(path: Path, *names: str) -> Path:
    return write_table(
        path,
        [
            {"file": f"{name}.mp4", "word": word, "start_s": 0.4 * (i + 1), "end_s": 0.4 * (i + 2)}
            for name in names
            for i, word in enumerate(SENTENCES[name].split())
        ],
    )


def test_real_clips_become_packs_of_their_speakers(clips: Path, tmp_path: Path, weights_cache: Path):
    words = write_words(tmp_path / "words.csv", "a_one", "b_one")
    make_packs(tmp_path / "packs", clips, words, leave_out=("c",))
    assert sorted(path.name for path in (tmp_path / "packs").iterdir()) == ["a.npz", "b.npz"]
    short, other = load_packs(tmp_path / "packs")
    assert (short.name, short.person, short.text) == ("a_one", "a", SENTENCES["a_one"])
    assert (other.name, other.person, other.text) == ("b_one", "b", SENTENCES["b_one"])
    # A word every ten frames, from frame 10.
    assert short.word_indices.tolist() == [-1] * 10 + [i for i in range(6) for _ in range(10)] + [-1] * 5
    crops = decode_crops(short)
    assert crops.shape == (75, 64, 128, 3)
    assert np.array_equal(crops[74], crops[73])
    assert short.lips.shape == (75, 20, 2)
    assert np.array_equal(short.lips[74], short.lips[73])
    assert not np.array_equal(other.lips[74], other.lips[40])
    written = (tmp_path / "packs" / "a.npz").stat().st_mtime_ns
    make_packs(tmp_path / "packs", clips, words, leave_out=("c",))
    assert (tmp_path / "packs" / "a.npz").stat().st_mtime_ns == written


def test_a_clip_without_words_is_named(clips: Path, tmp_path: Path, weights_cache: Path):
    words = write_words(tmp_path / "words.csv", "a_one")
    with pytest.raises(ValueError, match=r"words\.csv: no words of b_one\.mp4"):
        make_packs(tmp_path / "packs", clips, words, leave_out=("c",))


def test_tables_are_read_in_order(clips: Path, tmp_path: Path):
    words = read_word_times(write_words(tmp_path / "words.csv", "a_one"))
    assert [word.word for word in words["a_one.mp4"]] == SENTENCES["a_one"].split()
    assert (words["a_one.mp4"][0].start_s, words["a_one.mp4"][0].end_s) == (0.4, 0.8)
    assert read_speakers(clips, ("b",)) == {
        "a": [tmp_path / "clips" / "a_one.mp4"],
        "c": [tmp_path / "clips" / "c_one.mp4"],
    }
