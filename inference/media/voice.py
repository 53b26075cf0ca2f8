"""The voice of a film that is being made: kept as good as it came, on disk, while networks hear less of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType

import av
import numpy as np

from inference.errors import NoAudio, StorageError
from inference.media.limits import MediaLimits
from inference.media.open import Source, open_bytes
from inference.media.sound import Samples, SoundForm, read_pieces, resample, without_form

SAMPLE_BYTES = 2
BLOCK = 1 << 18  # moments read at a time: 5 s at 48 kHz

# How lip sync asks for a voice: `read_voice` here, or `MediaChild.read_voice` in another process.
VoiceDoor = Callable[[Source, MediaLimits | None], "Voice"]


def read_voice(source: Source, limits: MediaLimits | None = None) -> Voice:
    """All of a file's sound, or of a film's, at its own rate (48 kHz at most) and with one or two channels.

    Raises: as `read_sound`; StorageError where the disk is full.
    """
    limits = limits or MediaLimits()
    with open_bytes(source, limits) as (file, name):
        return keep_voice(read_pieces(file, name, None, limits), name)


def keep_voice(pieces: Iterator[tuple[SoundForm, Samples]], name: str) -> Voice:
    """Raises: NoAudio where there is no sample."""
    voice: Voice | None = None
    try:
        for form, piece in pieces:
            voice = voice or Voice(form)
            voice.add(piece)
    except BaseException:
        if voice is not None:
            voice.close()
        raise
    if voice is None or len(voice) == 0:
        raise NoAudio(f"{name}: its sound has no sample")
    return voice


class Voice:
    """Sound in a file without a name, so that memory does not grow with its length. To be closed, or a context manager.

    Its length is counted in moments: samples of one channel.
    """

    def __init__(self, form: SoundForm) -> None:
        self.rate, self.n_channels = form.rate, form.n_channels
        self._n_values = 0
        self._file = tempfile.TemporaryFile(prefix="viseme-voice-")  # noqa: SIM115 (closed by `close`)

    def __len__(self) -> int:
        return self._n_values // self.n_channels

    def add(self, samples: Samples) -> None:
        """More of it: (n,) int16, channels side by side. Raises: StorageError where the disk is full."""
        try:
            self._file.write(np.ascontiguousarray(samples).data)
        except OSError as err:
            raise StorageError(f"the sound could not be kept ({err.strerror or err})") from err
        self._n_values += len(samples)

    def cut(self, start: int, end: int) -> Samples:
        """The moments start..end-1: (n, channels) int16."""
        stride = SAMPLE_BYTES * self.n_channels
        self._file.seek(start * stride)
        return np.frombuffer(self._file.read((end - start) * stride), np.int16).reshape(-1, self.n_channels)

    def as_mono(self, rate: int) -> Samples:
        """(N,) int16 of one channel, at that rate: what a network hears."""
        blocks = (self.cut(at, min(at + BLOCK, len(self))) for at in range(0, len(self), BLOCK))
        if (self.rate, self.n_channels) == (rate, 1):
            return np.concatenate([block[:, 0] for block in blocks])
        heard = without_form(resample((to_frame(block, self.rate) for block in blocks), SoundForm(rate)))
        return np.concatenate(list(heard))

    def close(self) -> None:
        """Harmless when done twice."""
        self._file.close()

    def __enter__(self) -> Voice:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def to_frame(block: Samples, rate: int, start: int | None = None) -> av.AudioFrame:
    """(n, channels) int16 as FFmpeg takes it."""
    layout = "mono" if block.shape[1] == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate, frame.pts = rate, start
    return frame
