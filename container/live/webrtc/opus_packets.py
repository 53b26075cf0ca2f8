"""The audio of a session's frames as Opus packets, encoded in the thread that renders the frame.

aiortc would encode each packet in another thread, and on a busy machine audio would wait for one fifty times a second.
"""

from __future__ import annotations

import numpy as np

from inference.audio.mel import Samples
from inference.media.live_frames import OPUS_RATE, OPUS_SAMPLES, OpusEncoder, RateConverter, make_audio_frame

FRAME_SAMPLES = 2 * OPUS_SAMPLES  # of a frame of the avatar: 40 ms
# One packet of digital silence, which needs no encoder: RFC 6716, a frame of CELT (configuration 31) without energy.
SILENCE = b"\xf8\xff\xfe"
# By which a frame's samples may vary if they are resampled: one of its own, of which 12 are made at 4 kHz.
MARGIN_SAMPLES = 16


class OpusPackets:
    """Encodes the audio of consecutive frames, two packets of 20 ms for each."""

    def __init__(self, rate: int) -> None:
        """rate: of the frames' audio, Hz."""
        self.rate = rate
        self._converter = None if rate == OPUS_RATE else RateConverter(OPUS_RATE)
        self._encoder = OpusEncoder()
        self._samples = np.zeros(0, np.int16)  # at 48 kHz, not encoded yet
        self._n_in = 0

    def encode(self, pcm: Samples) -> tuple[bytes, bytes]:
        """Return the packets of a frame: (n,) int16 samples, 40 ms."""
        self._samples = np.concatenate([self._samples, self._convert(pcm)])
        first, second = (self._samples[i : i + OPUS_SAMPLES] for i in (0, OPUS_SAMPLES))
        self._samples = self._samples[FRAME_SAMPLES:]
        return self._encoder.encode(first), self._encoder.encode(second)

    def _convert(self, pcm: Samples) -> Samples:
        """Convert to 48 kHz. FFmpeg's resampler returns its first samples late: as many zeros precede them, once."""
        if self._converter is None:
            return pcm
        is_first = self._n_in == 0
        found = self._converter.push(make_audio_frame(pcm, self.rate, self._n_in))
        self._n_in += len(pcm)
        n_missing = FRAME_SAMPLES + MARGIN_SAMPLES - len(found) if is_first else 0
        return np.concatenate([np.zeros(n_missing, np.int16), found])
