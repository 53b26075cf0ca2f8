"""A video with its captions drawn into the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from pathlib import Path

from container.pictures import Picture, caption
from inference.errors import NoAudio
from inference.lip_reading import Transcript
from inference.lip_reading.captions import Caption, cut_captions
from inference.media import MediaLimits, open_media
from inference.media.encode import write_film
from inference.media.voice import Voice, read_voice

USUAL_FPS = 25.0
MOST_FPS = 60.0  # a rate over this is a header's mistake, or more than captions need


def burn(video: Path, transcript: Transcript, path: Path, limits: MediaLimits) -> Path:
    """Write the video again, at its own size and rate and with its own sound, captioned.

    Raises: CallerError where the video cannot be read, StorageError where it cannot be written.
    """
    captions = cut_captions(transcript.words)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_media(video, limits) as media:
        fps = min(media.video.fps or USUAL_FPS, MOST_FPS)
        rate = Fraction(fps).limit_denominator(1001)
        frames = (frame for clip in media.read_clips(fps) for frame in clip.frames)
        with sound_of(video, limits) as sound, write_film(path, rate, sound) as writer:
            for frame, lines in zip(frames, lines_over_time(captions, rate), strict=False):
                writer.add(caption(even(frame), lines))
    return path


def sound_of(video: Path, limits: MediaLimits) -> AbstractContextManager[Voice | None]:
    try:
        return read_voice(video, limits)
    except NoAudio:
        return nullcontext()


def lines_over_time(captions: Sequence[Caption], rate: Fraction) -> Iterator[tuple[str, ...]]:
    """The lines shown with each frame, without end."""
    i, at = 0, 0
    while True:
        seconds = float(at / rate)
        while i < len(captions) and captions[i].end_s <= seconds:
            i += 1
        is_shown = i < len(captions) and captions[i].start_s <= seconds
        yield captions[i].lines if is_shown else ()
        at += 1


def even(frame: Picture) -> Picture:
    """Without a last odd row or column, which H.264's usual colours cannot hold."""
    height, width = (side // 2 * 2 for side in frame.shape[:2])
    return frame[:height, :width]
