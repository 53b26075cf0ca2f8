from __future__ import annotations

import asyncio

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from container.live.frame_messages import WHOLE
from container.live.webrtc.media_session import MediaFrame
from container.live.webrtc.opus_packets import SILENCE
from container.live.webrtc.tracks import MAX_WAITING_PACKETS, AvatarAudioTrack, AvatarVideoTrack


class SimulatedTime:
    """A clock that advances in `sleep` only."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def frame(index: int, *, is_speaking: bool = True) -> MediaFrame:
    image = np.full((6, 4), 128, np.uint8)
    packets = (b"%d a" % index, b"%d b" % index)
    place = (index, index * 40, 0, 0, 4, 4)
    return MediaFrame(WHOLE, is_speaking, 0, *place, b"", b"", image=image, packets=packets)


def test_both_tracks_have_the_times_of_the_session():
    async def go() -> None:
        video, audio = AvatarVideoTrack(), AvatarAudioTrack()
        for i in (3, 4):
            video.push(frame(i))
            audio.push(frame(i))
        shown = await video.recv()
        assert float(shown.pts * shown.time_base) == 0.16  # frame 3 was not taken in time
        assert video.n_dropped == 1
        packets = [await audio.recv() for _ in range(4)]
        assert [round(float(one.pts * one.time_base) * 1000) for one in packets] == [120, 140, 160, 180]
        assert [bytes(one) for one in packets] == [b"3 a", b"3 b", b"4 a", b"4 b"]

    asyncio.run(go())


def test_audio_is_paced_and_catches_up_after_a_late_frame():
    async def go() -> list[float]:
        clock = SimulatedTime()
        track = AvatarAudioTrack(clock.now, clock.sleep)
        sent = []
        for due_s, n_frames in ((0.0, 1), (0.04, 1), (0.2, 3)):  # the third frame is late, and then two come at once
            clock.now_s = max(clock.now_s, 100.0 + due_s)
            for _ in range(n_frames):
                track.push(frame(0))
            for _ in range(2 * n_frames):
                await track.recv()
                sent.append(round(clock.now_s - 100.0, 3))
        return sent

    assert asyncio.run(go()) == [0.0, 0.02, 0.04, 0.06, 0.2, 0.2, 0.2, 0.2, 0.22, 0.24]


def test_interrupted_speech_is_replaced_by_silence():
    async def go() -> None:
        video, audio = AvatarVideoTrack(), AvatarAudioTrack()
        for track in (video, audio):
            track.push(frame(0))
            track.drop_speech()
        assert bytes(await audio.recv()) == SILENCE
        audio.push(frame(2))
        sent = [await audio.recv() for _ in range(3)]
        assert [bytes(one) for one in sent] == [SILENCE, b"2 a", b"2 b"]  # frame 1 was dropped before
        assert [one.pts for one in sent] == [960, 3840, 4800]
        video.push(frame(1, is_speaking=False))
        assert (await video.recv()).pts == 3600

    asyncio.run(go())


def test_a_track_that_is_stopped_ends_and_one_that_is_not_read_is_bounded():
    async def go() -> None:
        video, audio = AvatarVideoTrack(), AvatarAudioTrack()
        waiting = [asyncio.create_task(one.recv()) for one in (video, audio)]
        await asyncio.sleep(0)
        video.stop()
        audio.stop()
        for one in waiting:
            with pytest.raises(MediaStreamError):
                await one
        unread = AvatarAudioTrack()
        for i in range(MAX_WAITING_PACKETS):
            unread.push(frame(i))
        assert (await unread.recv()).pts == MAX_WAITING_PACKETS // 2 * 1920  # the older half was dropped

    asyncio.run(go())
