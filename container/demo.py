"""`make demo`: have a sentence said, or take a clip, and read it from the lips; then have others say it.

    python -m container.demo [--text "BIN BLUE AT F TWO NOW"] [--seed 3] [--video FILE] [-o out]

Without a clip a synthetic speaker says the text. Prints the words over time and writes, into the folder, the
captioned video and a picture strip of the mouth under its words. Without a clip, the same voice then moves the
lips of somebody else, who said something else, and the live avatar's: two films, and a sheet of the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from container.pictures import Picture, caption, mouth_strip, text_at
from inference.errors import CallerError
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader, Transcript, Word
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import crop_mouths, track_faces
from inference.media import open_media
from inference.media.encode import Sound, write_film
from inference.settings import Settings
from inference.speaker import Film
from inference.speaker.sound import RATE, say
from inference.weights.registry import STARTER

DEFAULT_TEXT = "BIN BLUE AT F TWO NOW"
DEFAULT_SEED = 3
OTHER_TEXT = "LAY GREEN WITH A ZERO PLEASE"  # what the lips that are moved said before
BAR_WIDTH = 40  # characters, for the whole clip: the table fits in 80
SURE = 0.9  # a word under this is said to be doubtful
LOOK_ALIKE = ("B P", "D T", "C E Z", "F S X V", "G J", "M N", "Q U")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or take a clip, read it and show what was read; 2 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--text", default=DEFAULT_TEXT, help="words of the GRID language for the synthetic speaker")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="another number is another person")
    parser.add_argument("--video", type=Path, help="a clip of a talking face, instead of the synthetic speaker")
    parser.add_argument("-o", "--out", type=Path, default=Path("out"), help="folder for the pictures")
    asked = parser.parse_args(arguments)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        run(asked.text, asked.seed, asked.video, asked.out, Console())
    except CallerError as err:
        print(f"viseme: {err}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def run(text: str, seed: int, video: Path | None, out: Path, console: Console) -> None:
    """Raises: CallerError where the text cannot be said or the clip cannot be read."""
    film = None if video else Film(text, seed)
    source = video or out / "demo.mp4"
    if film is not None:
        film.write(source)
        console.print(f"\nA synthetic speaker (seed {seed}) says {film.speech.text}: {source}")
    transcript = LipReader().read(source)
    show(transcript, source, console)
    if film is not None:
        compare(transcript, film.speech.text, console)
        speak_it(source, seed, out, console)
    written = write_pictures(source, transcript, out, Sound(say(film.speech, seed), RATE) if film else None)
    if film is not None:
        written += [out / f"demo.{name}" for name in ("sync.mp4", "sync.png", "avatar.mp4")]
    console.print("\nLook at " + ", ".join(str(path) for path in written))


def speak_it(source: Path, seed: int, out: Path, console: Console) -> None:
    """Put the voice of a film on other lips: somebody else's by lip sync, and the live avatar's."""
    from container.sheet import write_sheet
    from inference.avatar import AvatarPackage
    from inference.avatar.speak import speak_film
    from inference.lip_sync import LipSyncer

    settings = Settings.from_env()
    other, synced, spoken = out / "demo.other.mp4", out / "demo.sync.mp4", out / "demo.avatar.mp4"
    Film(OTHER_TEXT, seed + 1).write(other)
    result = LipSyncer().sync(other, source, output=synced)
    console.print(
        f"\nWith that voice on somebody else's face ({other}, who said {OTHER_TEXT}): {synced}, "
        f"{result.num_frames} frames in {result.timings_ms['total'] / 1000:.1f} s"
    )
    write_sheet(
        synced, out / "demo.sync.png", load_landmarker("mediapipe", settings.weight_sources), settings.media_limits
    )
    made = speak_film(AvatarPackage.load("starter"), source, spoken)
    console.print(
        f"Said by the live avatar: {spoken}, {made.num_frames} frames in {made.timings_ms['total'] / 1000:.1f} s"
    )


def show(transcript: Transcript, video: Path, console: Console) -> None:
    """The sentence, its words over time, and how far to trust them."""
    console.print(f"\n{video.name}: {transcript.duration_s:.2f} s, read without its sound")
    console.print(Text(transcript.text or "(nothing was read)", style="bold"), "\n")
    table = Table("word", "start s", "end s", "confidence", "over time", box=None, pad_edge=False)
    for word in transcript.words:
        table.add_row(
            word.word,
            f"{word.start:.2f}",
            f"{word.end:.2f}",
            f"{word.confidence:.2f}",
            bar(word, transcript.duration_s),
        )
    console.print(table)
    results = STARTER.read_card()["results"]
    own, others = results["eval s1"], results["clips others"]
    console.print(
        f"\nThese are the starter weights, trained on one man's face and on rendered ones: on {own['clips']} clips "
        f"of him that they never saw, {own['grammar_wer']:.1%} of the words are wrong; on other real people, "
        f"{others['grammar_wer']:.1%}.\n"
        f"Frames without a face: {transcript.frames_without_face} of {transcript.num_frames}. "
        f"Time: {transcript.timings_ms['total'] / 1000:.1f} s."
    )


def compare(transcript: Transcript, said: str, console: Console) -> None:
    """Whether that is what was said, and why a letter may not be."""
    read = transcript.text.split()
    wrong = [(a, b) for a, b in zip(said.split(), read, strict=False) if a != b]
    if not wrong and len(read) == len(said.split()):
        console.print("That is what was said, word for word.")
        return
    console.print(f"What was said: {said}")
    for one, other in wrong:
        if any({one, other} <= set(alike.split()) for alike in LOOK_ALIKE):
            console.print(f"{one} and {other} look alike on the lips: only a sentence's meaning could tell them apart.")


def bar(word: Word, duration_s: float) -> str:
    """Where a word lies in the clip."""
    if word.start is None or word.end is None:
        return ""
    first, last = (round(t / duration_s * BAR_WIDTH) for t in (word.start, word.end))
    return "·" * first + "█" * max(last - first, 1) + "·" * (BAR_WIDTH - max(last, first + 1))


def write_pictures(source: Path, transcript: Transcript, out: Path, sound: Sound | None) -> list[Path]:
    """The captioned video, and the strip of mouths."""
    captioned, strip = out / f"{source.stem}.captioned.mp4", out / f"{source.stem}.mouth.png"
    with write_film(captioned, FPS, sound) as writer:
        for i, frame in enumerate(frames_of(source)):
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            writer.add(caption(frame[:height, :width], [text_at(transcript.words, i / FPS)]))
    write_png(mouth_strip(mouths_of(source), transcript.words, FPS), strip)
    return [captioned, strip]


def frames_of(source: Path) -> Iterator[Picture]:
    with open_media(source, Settings.from_env().media_limits) as media:
        for clip in media.read_clips(FPS):
            yield from clip.frames


def mouths_of(source: Path) -> list[Picture]:
    """What the network was shown of each frame."""
    settings = Settings.from_env()
    tracker = FaceTracker(load_landmarker("mediapipe", settings.weight_sources))
    with open_media(source, settings.media_limits) as media:
        tracked = track_faces(media.read_clips(FPS), tracker)
        return [mouth.crop for mouth in crop_mouths(tracked, media.name, tracker)]


def write_png(picture: Picture, path: Path) -> None:
    import cv2

    _, contents = cv2.imencode(".png", picture)
    path.write_bytes(contents.tobytes())


if __name__ == "__main__":
    sys.exit(main())
