"""Make packs of mouth crops from real clips, in the format that `training.lip_reading.train` reads.

    python -m training.lip_reading.crop_clips -o PACKS --clips CLIPS.csv --words WORDS.csv [--leave-out s33]

CLIPS.csv has the columns file, speaker, transcript; its videos are in a folder named like it, at 25 fps. WORDS.csv has
file, word, start_s, end_s. Mouths are found and cropped as in lip reading. A speaker's clips are in one pack; packs
that exist already are kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import cv2

from inference.faces import FaceTracker, Landmarker
from inference.faces.load import load_landmarker
from inference.lip_reading.preprocess import crop_mouths, track_faces
from inference.media import open_media
from inference.settings import Settings
from inference.speaker import TimedWord
from training.common.synthetic_clips import FPS
from training.lip_reading.render_clips import PackedClip, pack_mouths, write_pack

WordTimes = dict[str, list[TimedWord]]  # by file


def read_word_times(table: Path) -> WordTimes:
    """Read the words of each file, in the order of the table."""
    times: WordTimes = {}
    with table.open(newline="") as rows:
        for row in csv.DictReader(rows):
            word = TimedWord(row["word"], float(row["start_s"]), float(row["end_s"]))
            times.setdefault(row["file"], []).append(word)
    return times


def read_speakers(table: Path, leave_out: Sequence[str]) -> dict[str, list[Path]]:
    """Return the videos of each speaker; none of the speakers to leave out."""
    speakers: dict[str, list[Path]] = {}
    with table.open(newline="") as rows:
        for row in csv.DictReader(rows):
            if row["speaker"] not in leave_out:
                speakers.setdefault(row["speaker"], []).append(table.with_suffix("") / row["file"])
    return speakers


def crop_real_mouths(path: Path, speaker: str, words: Sequence[TimedWord], landmarker: Landmarker) -> PackedClip:
    """Crop the mouth of a video. Raises: NoFaceFound if no frame shows a face."""
    tracker = FaceTracker(landmarker)
    with open_media(path) as media:
        mouths = list(crop_mouths(track_faces(media.read_clips(FPS), tracker), path.name, tracker))
    return pack_mouths(path.stem, speaker, mouths, words)


def make_packs(folder: Path, clips: Path, words: Path, leave_out: Sequence[str] = ()) -> None:
    """Write a pack for each speaker of the table `clips`. leave_out: speakers.

    Raises: ValueError if a clip has no words in the table `words`.
    """
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    landmarker = load_landmarker("mediapipe", Settings.from_env().weight_sources)
    times = read_word_times(words)
    for speaker, videos in read_speakers(clips, leave_out).items():
        path = folder / f"{speaker}.npz"
        if path.exists():
            continue
        missing = [video.name for video in videos if video.name not in times]
        if missing:
            raise ValueError(f"{words}: no words of {', '.join(missing)}")
        write_pack([crop_real_mouths(video, speaker, times[video.name], landmarker) for video in videos], path)
        print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the packs that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_reading.crop_clips", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--folder", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--clips", type=Path, required=True, help="table of the clips")
    parser.add_argument("--words", type=Path, required=True, help="table of their words' times")
    parser.add_argument("--leave-out", nargs="*", default=(), metavar="SPEAKER", help="speakers to leave out")
    args = parser.parse_args(arguments)
    make_packs(args.folder, args.clips, args.words, args.leave_out)


if __name__ == "__main__":
    main()
