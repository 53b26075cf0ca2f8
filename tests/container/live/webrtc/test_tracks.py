from __future__ import annotations

import asyncio

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from container.live.frame_messages import WHOLE
from container.live.send_queue import SlowClient
from container.live.webrtc.media_session import MediaFrame
from container.live.webrtc.tracks import MAX_WAITING_BYTES, AudioResampler, AvatarAudioTrack, AvatarVideoTrack


class SimulatedTime:
    """A clock that advances in `sleep` only."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def frame(index: int, value: int = 0, rate: int = 48_000, *, is_speaking: bool = True) -> MediaFrame:
    image = np.full((6, 4), 128, np.uint8)
    pcm = np.full(rate // 25, value, "<i2").tobytes()
    return MediaFrame(WHOLE, is_speaking, 0, index, index * 40, 0, 0, 4, 4, b"", pcm, image=image, sample_rate=rate)


def test_both_tracks_have_the_times_of_the_session():
    async def go() -> None:
        video, audio = AvatarVideoTrack(), AvatarAudioTrack()
        for i in (3, 4):
            video.push(frame(i))
            audio.push(frame(i, value=i))
        shown = await video.recv()
        assert float(shown.pts * shown.time_base) == 0.16  # frame 3 was not taken in time
        assert video.n_dropped == 1
        packets = [await audio.recv() for _ in range(4)]
        assert [round(float(one.pts * one.time_base) * 1000) for one in packets] == [120, 140, 160, 180]
        assert [int(one.to_ndarray().max()) for one in packets] == [3, 3, 4, 4]

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
            track.push(frame(0, value=900))
            track.drop_speech()
        assert int((await audio.recv()).to_ndarray().max()) == 0
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
        for i in range(MAX_WAITING_BYTES // 3840):
            unread.push(frame(i))
        with pytest.raises(SlowClient):
            unread.push(frame(99))

    asyncio.run(go())


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_each_frame_has_its_two_packets_from_the_first_one(rate: int):
    resampler = AudioResampler(rate)
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype("<i2")
    parts = [resampler.push(tone[i : i + rate // 25].tobytes()) for i in range(0, rate, rate // 25)]
    total = np.cumsum([len(part) for part in parts])
    assert (total >= 3840 * np.arange(1, 26) - 8).all()
    assert total[-1] <= 25 * 3840 + 8
    found = np.frombuffer(b"".join(parts), "<i2")[4800:43200]
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert abs(int(spectrum.argmax()) * 48_000 / len(found) - 440) < 3
