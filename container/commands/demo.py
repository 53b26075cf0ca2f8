"""`make demo`: lip reading, lip sync and a live avatar on a rendered clip, or lip reading on a video of yours.

    python -m container.commands.demo [--text "BIN BLUE AT F TWO NOW"] [--seed 3] [--video FILE] [-o out]

Without --video, a synthetic speaker says the text. The words are printed with their times; a captioned video and a
strip of the mouths under their words are written to the folder. Without --video, the speaker's audio then drives
another person's lips (lip sync) and the starter avatar: two more videos, and a contact sheet of the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from container.commands.console import EXIT_OK, EXIT_USAGE, print_error
from container.visuals.grid import Image
from container.visuals.overlays import caption_at, crop_to_even, draw_caption, draw_mouth_strip
from container.visuals.video_sheet import write_video_sheet
from inference.avatar import AvatarPackage
from inference.avatar.render_video import render_video
from inference.errors import CallerError
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader, Transcript, Word
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import crop_mouths, track_faces
from inference.lip_sync import LipSyncer
from inference.media import open_media
from inference.media.encode import AudioBuffer, write_video
from inference.settings import Settings
from inference.speaker import SyntheticClip
from inference.speaker.synthesis import SYNTHESIS_RATE, synthesise
from inference.weights.registry import STARTER

DEFAULT_TEXT = "BIN BLUE AT F TWO NOW"
DEFAULT_SEED = 3
OTHER_TEXT = "LAY GREEN WITH A ZERO PLEASE"  # said in the clip whose lips are replaced
BAR_WIDTH = 40  # characters for the whole clip, so that the table fits into 80
STRANGERS = "clips s20 s23 s26", "people s33"  # rows of the card: people who are not in the training of the reader
LOOK_ALIKE = ("B P", "D T", "C E Z", "F S X V", "G J", "M N", "Q U")  # letters with the same lip shapes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 2 if the text cannot be said or the video cannot be read."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--text", default=DEFAULT_TEXT, help="words of the GRID corpus for the synthetic speaker")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the synthetic person")
    parser.add_argument("--video", type=Path, help="video of a talking face to read instead")
    parser.add_argument("-o", "--out", type=Path, default=Path("out"), help="folder to write to")
    args = parser.parse_args(arguments)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        run(args.text, args.seed, args.video, args.out, Console())
    except CallerError as err:
        print_error(str(err))
        return EXIT_USAGE
    return EXIT_OK


def run(text: str, seed: int, video: Path | None, out: Path, console: Console) -> None:
    """Run all steps. Raises: CallerError if the text cannot be said or the video cannot be read."""
    rendered = None if video else SyntheticClip(text, seed)
    source = video or out / "demo.mp4"
    if rendered is not None:
        rendered.write(source)
        console.print(f"\nA synthetic speaker (seed {seed}) says {rendered.speech.text}: {source}")
    transcript = LipReader().read(source)
    print_transcript(transcript, source, console)
    if rendered is not None:
        print_comparison(transcript, rendered.speech.text, console)
        animate_faces(source, seed, out, console)
    audio = AudioBuffer(synthesise(rendered.speech, seed), SYNTHESIS_RATE) if rendered else None
    written = write_visuals(source, transcript, out, audio)
    if rendered is not None:
        written += [out / f"demo.{name}" for name in ("sync.mp4", "sync.png", "avatar.mp4")]
    console.print("\nFiles written: " + ", ".join(str(path) for path in written))


def animate_faces(source: Path, seed: int, out: Path, console: Console) -> None:
    """Use the audio of a video for two other faces: another person's by lip sync, and the starter avatar's."""
    settings = Settings.from_env()
    other, synced, spoken = out / "demo.other.mp4", out / "demo.sync.mp4", out / "demo.avatar.mp4"
    SyntheticClip(OTHER_TEXT, seed + 1).write(other)
    result = LipSyncer().sync(other, source, output=synced)
    console.print(
        f"\nLip sync of another person ({other}, who said {OTHER_TEXT}) to this audio: {synced}, "
        f"{result.num_frames} frames in {result.timings_ms['total'] / 1000:.1f} s"
    )
    landmarker = load_landmarker("mediapipe", settings.weight_sources)
    write_video_sheet(synced, out / "demo.sync.png", landmarker, settings.media_limits)
    avatar = render_video(AvatarPackage.load("starter"), source, spoken)
    console.print(
        f"The live avatar speaking it: {spoken}, {avatar.num_frames} frames in "
        f"{avatar.timings_ms['total'] / 1000:.1f} s"
    )


def print_transcript(transcript: Transcript, video: Path, console: Console) -> None:
    """Print the sentence, its words over time, and how reliable the weights are."""
    console.print(f"\n{video.name}: {transcript.duration_s:.2f} s, read without its audio")
    console.print(Text(transcript.text or "(nothing was read)", style="bold"), "\n")
    table = Table("word", "start s", "end s", "confidence", "over time", box=None, pad_edge=False)
    for word in transcript.words:
        table.add_row(
            word.word,
            f"{word.start:.2f}",
            f"{word.end:.2f}",
            f"{word.confidence:.2f}",
            draw_bar(word, transcript.duration_s),
        )
    console.print(table)
    results = STARTER.read_card()["results"]
    own, strangers = results["eval s1"], [results[name] for name in STRANGERS]
    n_clips = [one["clips"] for one in strangers]  # each has six words
    others_wer = float(np.average([one["grammar_wer"] for one in strangers], weights=n_clips))
    console.print(
        f"\nThe starter weights were trained mostly on one man's face and on rendered ones. On {own['clips']} held-out "
        f"clips of him, {own['grammar_wer']:.1%} of the words are wrong; on four people they were not trained on, "
        f"{others_wer:.1%}.\n"
        f"Frames without a face: {transcript.frames_without_face} of {transcript.num_frames}. "
        f"Time: {transcript.timings_ms['total'] / 1000:.1f} s."
    )


def print_comparison(transcript: Transcript, spoken: str, console: Console) -> None:
    """Print whether the transcript is correct, and which wrong letters have the same lip shapes."""
    read = transcript.text.split()
    wrong = [(a, b) for a, b in zip(spoken.split(), read, strict=False) if a != b]
    if not wrong and len(read) == len(spoken.split()):
        console.print("Every word is correct.")
        return
    console.print(f"The correct text: {spoken}")
    for one, other in wrong:
        if any({one, other} <= set(alike.split()) for alike in LOOK_ALIKE):
            console.print(f"{one} and {other} look alike on the lips; only context can tell them apart.")


def draw_bar(word: Word, duration_s: float) -> str:
    """Return a line of characters that shows when in the clip a word is said."""
    if word.start is None or word.end is None:
        return ""
    first, last = (round(t / duration_s * BAR_WIDTH) for t in (word.start, word.end))
    return "·" * first + "█" * max(last - first, 1) + "·" * (BAR_WIDTH - max(last, first + 1))


def write_visuals(source: Path, transcript: Transcript, out: Path, audio: AudioBuffer | None) -> list[Path]:
    """Write the captioned video and the mouth strip; return their paths."""
    captioned, strip = out / f"{source.stem}.captioned.mp4", out / f"{source.stem}.mouth.png"
    with write_video(captioned, FPS, audio) as writer:
        for i, frame in enumerate(read_frames(source)):
            writer.add(draw_caption(crop_to_even(frame), [caption_at(transcript.words, i / FPS)]))
    _, contents = cv2.imencode(".png", draw_mouth_strip(read_mouths(source), transcript.words, FPS))
    strip.write_bytes(contents.tobytes())
    return [captioned, strip]


def read_frames(source: Path) -> Iterator[Image]:
    """Yield the frames of a video at the rate of lip reading."""
    with open_media(source, Settings.from_env().media_limits) as media:
        for clip in media.read_clips(FPS):
            yield from clip.frames


def read_mouths(source: Path) -> list[Image]:
    """Return the mouth crop of each frame, as the network is given it: (64, 128, 3) uint8 BGR."""
    settings = Settings.from_env()
    tracker = FaceTracker(load_landmarker("mediapipe", settings.weight_sources))
    with open_media(source, settings.media_limits) as media:
        tracked = track_faces(media.read_clips(FPS), tracker)
        return [mouth.crop for mouth in crop_mouths(tracked, media.name, tracker)]


if __name__ == "__main__":
    sys.exit(main())
