"""Burned-in captions: a copy of a video with its captions drawn into the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from pathlib import Path

from container.visuals.overlays import crop_to_even, draw_caption
from inference.errors import NoAudio
from inference.lip_reading import Transcript
from inference.lip_reading.captions import Caption, cut_captions
from inference.media import MediaLimits, open_media
from inference.media.audio_spool import AudioSpool, spool_audio
from inference.media.encode import write_video

DEFAULT_FPS = 25.0  # of a video that does not declare its rate
MAX_FPS = 60.0  # a higher rate is an error in the file's header, or more than captions need


def burn_captions(
    video: Path, transcript: Transcript, path: Path, limits: MediaLimits, warn: Callable[[str], None] = lambda _: None
) -> Path:
    """Write a captioned copy of a video, with its size, frame rate and audio; return its path.

    warn: called with what is not as in the video's audio.
    Raises: CallerError if the video cannot be read, StorageError if the copy cannot be written.
    """
    captions = cut_captions(transcript.words)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_media(video, limits) as media:
        fps = min(media.video.fps or DEFAULT_FPS, MAX_FPS)
        rate = Fraction(fps).limit_denominator(1001)
        frames = (frame for clip in media.read_clips(fps) for frame in clip.frames)
        with (
            open_audio(video, limits) as audio,
            write_video(path, rate, audio, is_rounded_down=True, primaries=media.video.primaries) as writer,
        ):
            for frame, lines in zip(frames, lines_of_frames(captions, rate), strict=False):
                writer.add(draw_caption(crop_to_even(frame), lines))
        for warning in audio.warnings if audio is not None else ():
            warn(warning)
    return path


def open_audio(video: Path, limits: MediaLimits) -> AbstractContextManager[AudioSpool | None]:
    """Open the audio of a video; None if it has none."""
    try:
        return spool_audio(video, limits)
    except NoAudio:
        return nullcontext()


def lines_of_frames(captions: Sequence[Caption], rate: Fraction) -> Iterator[tuple[str, ...]]:
    """Yield the lines shown with each frame, without end."""
    i, k = 0, 0
    while True:
        time_s = float(k / rate)
        while i < len(captions) and captions[i].end_s <= time_s:
            i += 1
        is_shown = i < len(captions) and captions[i].start_s <= time_s
        yield captions[i].lines if is_shown else ()
        k += 1
