"""Draw images of the README from the synthetic speaker: read.png and sync.png.

    python docs/images/draw.py

`make pictures` runs it, and page.py, which takes those of the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from container.visuals.grid import Image, ImageGrid
from container.visuals.overlays import TEXT_COLOUR, caption_at, draw_caption
from container.visuals.video_sheet import colour_mel
from inference.audio import SAMPLE_RATE
from inference.faces import FaceTracker
from inference.faces.load import load_landmarker
from inference.lip_reading import LipReader, Word
from inference.lip_reading.preprocess import crop_mouths, track_faces
from inference.lip_sync import LipSyncer
from inference.media import open_media
from inference.media.audio import read_audio
from inference.settings import Settings
from inference.speaker import SyntheticClip

HERE = Path(__file__).parent
FPS = 25.0
WIDTH = 480  # px of read.png and sync.png
GAP = 4  # px
SYNC_WORD = 2  # index of the word at which sync.png shows the faces
N_MOUTHS = 4  # in a row under the captioned frame
LABEL_PX = 18
SPECTROGRAM_HEIGHT = 116  # px


def main() -> None:
    """Draw each image, and name it."""
    with tempfile.TemporaryDirectory() as folder:
        spoken, other = Path(folder) / "spoken.mp4", Path(folder) / "other.mp4"
        SyntheticClip("BIN BLUE AT F TWO NOW", seed=3).write(spoken)
        SyntheticClip("LAY GREEN WITH A ZERO PLEASE", seed=12).write(other)
        transcript = LipReader().read(spoken)
        write(draw_reading(spoken, transcript.words), "read.png")
        write(draw_sync(other, spoken, middle_of(transcript.words[SYNC_WORD]), Path(folder) / "synced.mp4"), "sync.png")


def write(image: Image, name: str) -> None:
    """Write a PNG beside this file."""
    cv2.imwrite(str(HERE / name), image)
    print(HERE / name)  # noqa: T201


def frames_of(video: Path) -> list[Image]:
    with open_media(video, Settings.from_env().media_limits) as media:
        return [frame for clip in media.read_clips(FPS) for frame in clip.frames]


def middle_of(word: Word) -> float:
    """Return the middle of a word in seconds."""
    assert word.start is not None
    assert word.end is not None
    return (word.start + word.end) / 2


def draw_reading(video: Path, words: Sequence[Word]) -> Image:
    """Return a captioned frame above the mouths of its last word, as the network sees them."""
    tracker = FaceTracker(load_landmarker("mediapipe", Settings.from_env().weight_sources))
    with open_media(video, Settings.from_env().media_limits) as media:
        mouths = [mouth.crop for mouth in crop_mouths(track_faces(media.read_clips(FPS), tracker), media.name, tracker)]
    word = words[-1]
    assert word.start is not None
    assert word.end is not None
    frame = frames_of(video)[round(middle_of(word) * FPS)]
    scale = WIDTH / frame.shape[1]
    large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    large = draw_caption(np.asarray(large, np.uint8), [caption_at(words, middle_of(word))])
    shown = np.linspace(round(word.start * FPS), round(word.end * FPS), N_MOUTHS).round().astype(int)
    width = (WIDTH - GAP * (N_MOUTHS + 1)) // N_MOUTHS
    cells = [np.asarray(cv2.resize(mouths[i], (width, width // 2)), np.uint8) for i in shown]
    strip = ImageGrid(N_MOUTHS, width, width // 2, GAP).draw([cells])
    return np.vstack([large, pad_to_width(strip)])


def draw_sync(face: Path, audio: Path, time_s: float, output: Path) -> Image:
    """Return a face before and after lip sync, at a time, above the spectrogram of the audio."""
    LipSyncer().sync(face, audio, output=output)
    before, after = frames_of(face), frames_of(output)
    i = round(time_s * FPS)
    side = (WIDTH - 3 * GAP) // 2
    cells = [label(crop_square(frame[i], side), text) for frame, text in ((before, "before"), (after, "after"))]
    sheet = ImageGrid(2, side, side, GAP).draw([cells])
    mel = colour_mel(read_audio(audio, SAMPLE_RATE, Settings.from_env().media_limits))
    spectrogram = np.asarray(cv2.resize(mel, (WIDTH, SPECTROGRAM_HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    x = round(i / len(after) * WIDTH)
    cv2.line(spectrogram, (x, 0), (x, SPECTROGRAM_HEIGHT), TEXT_COLOUR, 1)
    return np.vstack([pad_to_width(sheet), spectrogram])


def crop_square(frame: Image, side: int) -> Image:
    """Return the middle of a frame, as high as it is, scaled to a side."""
    height, width = frame.shape[:2]
    left = (width - height) // 2
    square = frame[:, left : left + height]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def label(image: Image, text: str) -> Image:
    cv2.putText(image, text, (8, 8 + LABEL_PX), TEXT_COLOUR, cv2.FontFace("sans"), LABEL_PX)
    return image


def pad_to_width(image: Image) -> Image:
    """Cut or fill an image on the right, so that it is WIDTH wide."""
    padded = np.full((image.shape[0], WIDTH, 3), image[0, 0], np.uint8)
    padded[:, : image.shape[1]] = image[:, :WIDTH]
    return padded


if __name__ == "__main__":
    main()
