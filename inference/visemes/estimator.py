"""Visemes of audio and video files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from inference.audio import SAMPLE_RATE
from inference.media.audio_spool import AudioSpool, SpoolAudio, spool_audio
from inference.media.files import Source
from inference.media.limits import MediaLimits
from inference.visemes.network import load_network
from inference.visemes.stream import VisemeFrame, VisemeSegment, VisemeStream, VisemeUpdate

SILENT_AUDIO = "silent_audio"  # warning: every sample is 0, so that the mouth rests
ReportProgress = Callable[[float, float], None]


def ignore_seconds(_done_s: float, _total_s: float) -> None:
    """Do nothing: the default if the progress is not reported."""


@dataclass(frozen=True)
class VisemeSequence:
    """The visemes of a whole file. duration_s: of its audio. warnings: what the caller should know about it."""

    duration_s: float
    frames: tuple[VisemeFrame, ...]
    segments: tuple[VisemeSegment, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class EstimateInfo:
    """What is known of the audio once its updates have ended."""

    duration_s: float = 0.0
    warnings: tuple[str, ...] = ()


class VisemeEstimator:
    """Estimates the visemes of speech. Holds the network, which runs on the CPU on every machine.

    The network that ships with Viseme was trained on English; see docs/visemes.md for what it gets right.
    """

    def __init__(self, n_threads: int = 1, limits: MediaLimits | None = None, voice: SpoolAudio = spool_audio) -> None:
        """Load the network.

        n_threads: of the network. limits: of files, see `MediaLimits`. voice: decodes them; the `spool_audio` of a
        `SandboxedDecoder` does so in a process with limits of its own.
        Raises: WrongWeights.
        """
        self._network = load_network(n_threads)
        self._limits, self._voice = limits, voice

    @property
    def phonemes(self) -> tuple[str, ...]:
        """The phonemes that it tells apart, by espeak-ng's names."""
        return self._network.classes

    def stream(self) -> VisemeStream:
        """Return a stream for audio that is still arriving: (n,) int16, 16 kHz mono."""
        return VisemeStream(self._network)

    def estimate(self, source: Source) -> VisemeSequence:
        """Return the visemes of an audio file, or of a video's audio.

        source: a path, or the bytes of the file. Frames are 40 ms long; segments have the times of each viseme.
        Raises: NoAudio if there is no audio, MediaNotFound, MediaTooLarge, UnsupportedMedia, MediaTruncated.
        """
        info, frames, segments = EstimateInfo(), list[VisemeFrame](), list[VisemeSegment]()
        for update in self.updates(source, info):
            frames += update.frames
            segments += update.segments
        return VisemeSequence(info.duration_s, tuple(frames), tuple(segments), info.warnings)

    def updates(
        self, source: Source, info: EstimateInfo, on_progress: ReportProgress = ignore_seconds
    ) -> Iterator[VisemeUpdate]:
        """Yield the visemes of a file in parts, so that memory does not grow with its length.

        info, on_progress: as for `updates_of`. Raises: as `estimate`.
        """
        with self.decode(source) as audio:
            yield from self.updates_of(audio, info, on_progress)

    def decode(self, source: Source) -> AudioSpool:
        """Decode a file's audio to disk; close it. Raises: as `estimate`."""
        return self._voice(source, self._limits)

    def updates_of(
        self, audio: AudioSpool, info: EstimateInfo, on_progress: ReportProgress = ignore_seconds
    ) -> Iterator[VisemeUpdate]:
        """Yield the visemes of decoded audio in parts.

        info: filled by the end. on_progress: called often with the seconds that are done, and with all; it may raise
        to end the work.
        """
        info.duration_s, info.warnings = len(audio) / audio.rate, audio.warnings
        stream, is_audible, n_done = self.stream(), False, 0
        for block in audio.mono_blocks(SAMPLE_RATE):
            for start in range(0, len(block), SAMPLE_RATE):
                part = block[start : start + SAMPLE_RATE]
                is_audible = is_audible or bool(part.any())
                yield stream.push(part)
                n_done += len(part)
                on_progress(min(n_done / SAMPLE_RATE, info.duration_s), info.duration_s)
        if not is_audible:
            info.warnings = (*info.warnings, SILENT_AUDIO)
        yield stream.finish()
