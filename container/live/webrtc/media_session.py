"""The live session of a WebRTC connection: its frames are whole images for a video encoder, not JPEGs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from container.live.frame_messages import WHOLE, FrameMessage
from container.live.session import LiveSession, take_frame
from container.live.webrtc.opus_packets import OpusPackets

if TYPE_CHECKING:
    from container.live.session_options import SessionOptions
    from inference.audio.mel import Samples
    from inference.avatar import AvatarSession


@dataclass(frozen=True, kw_only=True)
class MediaFrame(FrameMessage):
    """A frame for the tracks; its `jpeg` is empty.

    image: (H * 3 / 2, W) uint8, planar YUV 4:2:0 (I420) with BT.601's matrix and limited range; W and H are even.
    packets: its audio, as Opus, 20 ms each.
    """

    image: npt.NDArray[np.uint8]
    packets: tuple[bytes, ...]


class MediaSession(LiveSession):
    """A live session whose frames are `MediaFrame`s."""

    _opus: OpusPackets | None = None

    def render_next_frame(self, session: AvatarSession, n_before: int, options: SessionOptions) -> MediaFrame:  # noqa: ARG002
        """Render the next frame as an image. Call it in a thread. n_before: added to its number."""
        timed = take_frame(session, n_before)
        frame_bgr = self._package.compose_frame(timed)
        height, width = (n // 2 * 2 for n in frame_bgr.shape[:2])  # chroma has half of the size
        image = cv2.cvtColor(np.ascontiguousarray(frame_bgr[:height, :width]), cv2.COLOR_BGR2YUV_I420)
        return MediaFrame(
            WHOLE,
            timed.is_speaking,
            timed.generation,
            timed.frame,
            timed.pts_ms,
            0,
            0,
            width,
            height,
            b"",
            timed.pcm.astype("<i2").tobytes(),
            image=np.asarray(image, np.uint8),
            packets=self._encode_audio(session.sample_rate, timed.pcm),
        )

    def _encode_audio(self, rate: int, pcm: Samples) -> tuple[bytes, ...]:
        if self._opus is None or self._opus.rate != rate:
            self._opus = OpusPackets(rate)
        return self._opus.encode(pcm)
