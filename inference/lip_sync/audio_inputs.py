"""The audio files of a lip sync request, opened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from inference.audio import SAMPLE_RATE
from inference.errors import NoAudio
from inference.lip_sync.segments import SyncSegment
from inference.media import MediaLimits, Source
from inference.media.audio_convert import Samples
from inference.media.audio_spool import AudioSpool, SpoolAudio

SILENT_AUDIO = "silent_audio"


@dataclass(frozen=True)
class SpokenAudio:
    """An audio file. spool: its track. samples: as the networks take it, (N,) int16, 16 kHz mono."""

    spool: AudioSpool
    samples: Samples

    @property
    def duration_s(self) -> Fraction:
        return Fraction(len(self.spool), self.spool.rate)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller should know of the audio."""
        return self.spool.warnings if self.samples.any() else (*self.spool.warnings, SILENT_AUDIO)


def as_list(audio: Source | Sequence[Source]) -> list[Source]:
    """Return the audio files of a call: one, or several."""
    return [audio] if isinstance(audio, str | Path | bytes) else list(audio)


def open_audios(
    sources: Sequence[Source],
    segments: Sequence[SyncSegment],
    open_audio: SpoolAudio,
    limits: MediaLimits,
    opened: ExitStack,
) -> dict[int, SpokenAudio]:
    """Decode the audio files that are used, by their index: the only one, or those of segments.

    opened: closes their tracks. Raises: as `spool_audio`.
    """
    used = sorted({segment.audio for segment in segments}) or [0]
    spools = {i: opened.enter_context(open_audio(sources[i], limits)) for i in used}
    return {i: SpokenAudio(spool, spool.to_mono(SAMPLE_RATE)) for i, spool in spools.items()}


def open_own_audio(face: Source, open_audio: SpoolAudio, limits: MediaLimits, opened: ExitStack) -> AudioSpool | None:
    """Decode the audio track of the video; None if it has none. Raises: as `spool_audio`, but for NoAudio."""
    try:
        return opened.enter_context(open_audio(face, limits))
    except NoAudio:
        return None


def audio_warnings(spoken: dict[int, SpokenAudio]) -> tuple[str, ...]:
    """Return what the caller should know of the audio files, each once."""
    return tuple(dict.fromkeys(warning for one in spoken.values() for warning in one.warnings))
