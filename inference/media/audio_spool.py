"""The audio track of a video being made: stored losslessly on disk, and resampled for the networks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType

import av
import numpy as np

from inference.errors import NoAudio, StorageError
from inference.media.audio import decode_blocks
from inference.media.audio_clock import PlacedAudio
from inference.media.audio_convert import AudioFormat, Samples, convert_audio, without_format
from inference.media.downmix import StereoBalance, mix_difference
from inference.media.files import Source, open_bytes
from inference.media.limits import MediaLimits
from inference.media.media_warnings import INVERTED

SAMPLE_BYTES = 2
STEREO = 2  # channels
BLOCK_SAMPLES = 1 << 18  # of each channel, read at a time: 5 s at 48 kHz

# How lip sync reads audio: `spool_audio` in this process, or `SandboxedDecoder.spool_audio` in another.
SpoolAudio = Callable[[Source, MediaLimits | None], "AudioSpool"]


def spool_audio(source: Source, limits: MediaLimits | None = None) -> AudioSpool:
    """Decode all audio of an audio or video file, at its own rate (48 kHz at most) and with one or two channels.

    Raises: as `read_audio`; StorageError if the disk is full.
    """
    limits = limits or MediaLimits()
    with open_bytes(source, limits) as (file, name):
        warnings: list[str] = []
        return spool_blocks(decode_blocks(file, name, None, limits, warnings), name, warnings)


def spool_blocks(blocks: Iterator[tuple[AudioFormat, Samples]], name: str, warnings: list[str]) -> AudioSpool:
    """Store blocks of audio. warnings: filled by the end of the blocks. Raises: NoAudio if there are no samples."""
    spool: AudioSpool | None = None
    try:
        for audio_format, block in blocks:
            spool = spool or AudioSpool(audio_format)
            spool.append(block)
    except BaseException:
        if spool is not None:
            spool.close()
        raise
    if spool is None or len(spool) == 0:
        raise NoAudio(f"{name}: its audio has no samples")
    spool.warnings = (*warnings, *([INVERTED] if spool.is_inverted else []))
    return spool


class AudioSpool:
    """Audio in a file without a name, so that memory does not grow with its length. Close it, or use it as a context.

    Its length is in samples of one channel. warnings: what the caller should know about it.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self, audio_format: AudioFormat) -> None:
        self.rate, self.n_channels = audio_format.rate, audio_format.n_channels
        self._n_values = 0
        self._balance = StereoBalance()
        self._file = tempfile.TemporaryFile(prefix="viseme-voice-")  # noqa: SIM115 (closed by `close`)

    def __len__(self) -> int:
        return self._n_values // self.n_channels

    def append(self, samples: Samples) -> None:
        """Append (n,) int16, channels interleaved. Raises: StorageError if the disk is full."""
        try:
            if samples.any():
                self._file.write(np.ascontiguousarray(samples).data)
            else:  # a hole, so that silence takes no disk
                self._file.truncate(self._file.seek(samples.nbytes, os.SEEK_CUR))
        except OSError as err:
            raise StorageError(f"the audio could not be stored ({err.strerror or err})") from err
        self._n_values += len(samples)
        if self.n_channels == STEREO:
            self._balance.add(samples[: len(samples) // STEREO * STEREO].reshape(-1, STEREO))

    @property
    def is_inverted(self) -> bool:
        """Whether one of two channels is the other inverted, so that their sum is silence."""
        return self._balance.is_cancelled

    def read(self, start: int, end: int) -> Samples:
        """Read samples start..end-1 of each channel: (n, channels) int16."""
        stride = SAMPLE_BYTES * self.n_channels
        self._file.seek(start * stride)
        return np.frombuffer(self._file.read((end - start) * stride), np.int16).reshape(-1, self.n_channels)

    def to_mono(self, rate: int) -> Samples:
        """Mix and resample for a network: (N,) int16, one channel at `rate`; see `mono_blocks`."""
        return np.concatenate(list(self.mono_blocks(rate)))

    def mono_blocks(self, rate: int) -> Iterator[Samples]:
        """Yield what `to_mono` returns, block by block.

        Channels that cancel in the sum are mixed by their difference.
        """
        starts = range(0, len(self), BLOCK_SAMPLES)
        blocks = (self.read(start, min(start + BLOCK_SAMPLES, len(self))) for start in starts)
        if (self.rate, self.n_channels) == (rate, 1):
            yield from (block[:, 0] for block in blocks)
            return
        if self.is_inverted:
            blocks = (mix_difference(block) for block in blocks)
        frames = (PlacedAudio(to_audio_frame(block, self.rate)) for block in blocks)
        yield from without_format(convert_audio(frames, AudioFormat(rate)))

    def close(self) -> None:
        """Delete the file. May be called twice."""
        self._file.close()

    def __enter__(self) -> AudioSpool:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def to_audio_frame(block: Samples, rate: int, start: int | None = None) -> av.AudioFrame:
    """Convert (n, channels) int16 to FFmpeg's audio frame."""
    layout = "mono" if block.shape[1] == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate, frame.pts = rate, start
    return frame
