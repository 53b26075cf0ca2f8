"""Audio tracks made of others: cut, padded with silence, or with parts replaced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from inference.media.audio_clock import PlacedAudio
from inference.media.audio_convert import AudioFormat, Samples, convert_audio, without_format
from inference.media.audio_spool import BLOCK_SAMPLES, AudioSpool, spool_blocks, to_audio_frame
from inference.media.encode import AudioTrack


class FittedTrack:
    """An audio track of a given length: cut, or padded with silence at its end. Its length is in samples."""

    def __init__(self, track: AudioTrack, n_samples: int) -> None:
        self.rate, self.n_channels = track.rate, track.n_channels
        self._track, self._n_samples = track, n_samples

    def __len__(self) -> int:
        return self._n_samples

    def read(self, start: int, end: int) -> Samples:
        """Return samples start..end-1: (n, channels) int16."""
        end = min(end, self._n_samples)
        n_samples = max(end - start, 0)
        last = min(end, len(self._track))
        stored = self._track.read(start, last) if start < last else None
        if stored is not None and len(stored) == n_samples:
            return stored
        padded = np.zeros((n_samples, self.n_channels), np.int16)
        if stored is not None:
            padded[: len(stored)] = stored
        return padded


def fit_audio(track: AudioTrack, duration_s: Fraction) -> FittedTrack:
    """Cut or pad a track to a duration, to the nearest sample."""
    return FittedTrack(track, round(duration_s * track.rate))


@dataclass(frozen=True)
class TrackPart:
    """Samples start..end-1 of a track are those of another track from `offset` on, then silence from `limit` on."""

    start: int
    end: int
    track: AudioTrack
    offset: int
    limit: int


class SplicedTrack:
    """A track with parts replaced by those of other tracks of the same format. Its length is in samples."""

    def __init__(
        self, base: AudioTrack | None, parts: Sequence[TrackPart], audio_format: AudioFormat, length: int
    ) -> None:
        """Splice the parts, which do not overlap. base: what they replace; None: silence."""
        self.rate, self.n_channels = audio_format.rate, audio_format.n_channels
        self._base = None if base is None else FittedTrack(base, length)
        self._parts, self._length = parts, length

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, end: int) -> Samples:
        """Return samples start..end-1: (n, channels) int16."""
        end = min(end, self._length)
        spliced = np.zeros((max(end - start, 0), self.n_channels), np.int16)
        if self._base is not None:
            spliced[:] = self._base.read(start, end)
        for part in self._parts:
            first, last = max(start, part.start), min(end, part.end)
            if first < last:
                shift = part.offset - part.start
                replaced = FittedTrack(part.track, part.limit).read(first + shift, last + shift)
                spliced[first - start : last - start] = 0
                spliced[first - start : first - start + len(replaced)] = replaced
        return spliced


def common_format(tracks: Iterable[AudioTrack]) -> AudioFormat:
    """Return the format that keeps all of each track: the highest rate and the most channels."""
    formats = [(track.rate, track.n_channels) for track in tracks]
    return AudioFormat(max(rate for rate, _ in formats), max(n_channels for _, n_channels in formats))


def convert_spool(spool: AudioSpool, audio_format: AudioFormat) -> AudioSpool:
    """Return the same audio in another format, in a new spool; the same spool if it has that format already.

    audio_format: with as many channels, or two instead of one. Raises: StorageError if the disk is full.
    """
    if (spool.rate, spool.n_channels) == (audio_format.rate, audio_format.n_channels):
        return spool
    blocks = (spool.read(start, start + BLOCK_SAMPLES) for start in range(0, len(spool), BLOCK_SAMPLES))
    placed = (PlacedAudio(to_audio_frame(block, spool.rate)) for block in blocks)
    resampled = without_format(convert_audio(placed, AudioFormat(audio_format.rate, spool.n_channels)))
    # Repeated by hand: FFmpeg lowers a mono track by 3 dB if it spreads it over two channels.
    n_copies = audio_format.n_channels // spool.n_channels
    widened = ((audio_format, np.repeat(block, n_copies)) for block in resampled)
    return spool_blocks(widened, "audio", [])
