"""A live session recorded as a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from container.client import LiveClient
from container.live.frame_clock import FPS
from inference.audio.mel import SAMPLE_RATE, Samples
from inference.errors import UnsupportedMedia
from inference.media import MediaLimits
from inference.media.audio_spool import spool_audio
from inference.media.encode import write_video
from inference.media.frames import Frame
from inference.media.open import open_media

FRAME_SAMPLES = SAMPLE_RATE // FPS  # of the session's audio
Progress = Callable[[int, int], None]  # called with the number of frames recorded so far, and in total


@dataclass(frozen=True)
class RecordedVideo:
    """Facts about a recorded video. n_repeated: frames that the session dropped, in whose place the last one stays."""

    num_frames: int
    width: int
    height: int
    n_repeated: int
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.num_frames / FPS


def record_speech(
    client: LiveClient, audio: Path, output: Path, limits: MediaLimits, progress: Progress = lambda _done, _total: None
) -> RecordedVideo:
    """Speak an audio file in a session with whole frames at 16 kHz, and write the video, complete or not at all.

    It takes as long as the audio: a session runs in real time.
    Raises: RequestRejected, TimeoutError; MediaError (including NoAudio), InvalidRequest, StorageError.
    """
    with spool_audio(audio, limits) as source_audio:
        samples = source_audio.to_mono(SAMPLE_RATE)
        n_frames = -(-len(samples) // FRAME_SAMPLES)
        n_done = n_received = 0
        with write_video(output, FPS, source_audio) as writer:
            for frame, n_times in speak_frames(client, samples, n_frames, limits):
                for _ in range(n_times):
                    writer.add(frame)
                n_done, n_received = n_done + n_times, n_received + 1
                progress(n_done, n_frames)
    height, width = frame.shape[:2]
    return RecordedVideo(n_done, width, height, n_done - n_received, source_audio.warnings)


def speak_frames(
    client: LiveClient, samples: Samples, n_frames: int, limits: MediaLimits
) -> Iterator[tuple[Frame, int]]:
    """Yield the frames of the speech, each with the number of video frames that it is shown for.

    A session whose client is slow drops frames, never audio: the audio that comes with a frame tells which one it is.
    """
    n_samples = n_shown = 0
    for message in client.speak(samples):
        n_samples += len(message.pcm) // 2
        n_until = min(n_samples // FRAME_SAMPLES, n_frames)
        if n_until > n_shown:
            yield decode_jpeg(message.jpeg, limits), n_until - n_shown
            n_shown = n_until
    if n_shown < n_frames:
        raise UnsupportedMedia(f"the session ended after {n_shown} of {n_frames} frames")


def decode_jpeg(jpeg: bytes, limits: MediaLimits) -> Frame:
    """Return (H, W, 3) uint8 BGR. Raises: UnsupportedMedia, MediaTooLarge, MediaTruncated."""
    with open_media(jpeg, limits) as media:
        return next(media.read_clips(FPS)).frames[0]
