"""A whole audio file spoken by an avatar, as a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.audio.avatar_features import AVATAR_FPS
from inference.audio.mel import SAMPLE_RATE, Samples
from inference.avatar.package import AvatarPackage
from inference.avatar.timed_frame import TimedFrame
from inference.media import MediaLimits, Source
from inference.media.audio_spool import SpoolAudio, spool_audio
from inference.media.encode import write_video
from inference.media.video_encoders import X264, check_encoder
from inference.stage_timer import StageClock

PUSH_SIZE = SAMPLE_RATE  # samples pushed at a time, so that memory does not grow with the audio
SILENT_WARNING = "silent_audio"
Progress = Callable[[int, int], None]  # called with the number of frames rendered so far, and in total


@dataclass(frozen=True)
class RenderedVideo:
    """Facts about a rendered video."""

    num_frames: int
    duration_s: float
    width: int
    height: int
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()


def render_video(
    package: AvatarPackage,
    audio: Source,
    output: Path,
    limits: MediaLimits | None = None,
    voice: SpoolAudio = spool_audio,
    progress: Progress | None = None,
    clock: StageClock | None = None,
    encoder: str = X264,
) -> RenderedVideo:
    """Render the avatar speaking an audio file, and write the video with its audio, complete or not at all.

    audio: any file with audio: a path, or its bytes. The video is as long, rounded up to a whole frame, and has the
    same frames as a live session. encoder: auto, libx264 or h264_nvenc.

    Raises: MediaError (including NoAudio), InvalidRequest if the output cannot be written, StorageError,
    WeightsNotFound, DeviceUnavailable if the encoder cannot be used.
    """
    check_encoder(encoder)
    clock = clock or StageClock()
    with voice(audio, limits) as source_audio:
        with clock.stage("sound"):
            samples = source_audio.to_mono(SAMPLE_RATE)
        n_frames = -(-len(samples) * AVATAR_FPS // SAMPLE_RATE)
        with write_video(output, package.fps, source_audio, encoder=encoder) as writer:
            for n_done, timed in enumerate(clock.watch("speak", generate_frames(package, samples)), 1):
                with clock.stage("compose"):
                    frame = package.compose_frame(timed)
                with clock.stage("encode"):
                    writer.add(frame)
                if progress is not None:
                    progress(n_done, n_frames)
    return RenderedVideo(
        num_frames=n_frames,
        duration_s=round(n_frames / package.fps, 3),
        width=package.width,
        height=package.height,
        timings_ms=clock.as_ms(),
        warnings=source_audio.warnings if samples.any() else (*source_audio.warnings, SILENT_WARNING),
    )


def generate_frames(package: AvatarPackage, samples: Samples) -> Iterator[TimedFrame]:
    """Yield the frames of a whole utterance, (N,) int16 at 16 kHz, each rendered when it is taken."""
    session = package.session()
    for at in range(0, len(samples), PUSH_SIZE):
        session.push_audio(samples[at : at + PUSH_SIZE])
        yield from session.frames()
    session.flush()
    yield from session.frames()
