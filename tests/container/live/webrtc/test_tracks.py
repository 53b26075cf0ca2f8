from __future__ import annotations

import asyncio

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from container.live.frame_clock import FrameClock
from container.live.frame_messages import WHOLE
from container.live.webrtc.media_session import AUDIO_DELAY_S, IMAGE_DELAY_S, MediaFrame
from container.live.webrtc.opus_packets import SILENCE
from container.live.webrtc.tracks import MAX_WAITING_FRAMES, MAX_WAITING_PACKETS, AvatarAudioTrack, AvatarVideoTrack


class Tracks:
    """Both tracks of a session, on a clock that advances in `sleep` only."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.n_dropped = 0
        clock = FrameClock(lambda: self.now_s, self.sleep)
        self.video, self.audio = AvatarVideoTrack(clock, self.count_drop), AvatarAudioTrack(clock)

    async def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 1e-6)  # less would vanish in the rounding

    def count_drop(self) -> None:
        self.n_dropped += 1

    @property
    def played_s(self) -> float:
        """Return the time by which audio is played."""
        return round(self.now_s - 100.0 - AUDIO_DELAY_S, 3)

    def push(self, *indices: int) -> None:
        for i in indices:
            self.video.push(frame(i))
            self.audio.push(frame(i))

    async def audio_at(self, n_packets: int) -> list[tuple[float, bytes]]:
        """Return the next packets, and when each was sent."""
        packets = [(bytes(await self.audio.recv()), self.played_s) for _ in range(n_packets)]
        return [(at_s, content) for content, at_s in packets]


def frame(index: int) -> MediaFrame:
    image = np.full((6, 4), 128, np.uint8)
    packets = (b"%d a" % index, b"%d b" % index)
    place = (index, index * 40, 0, 0, 4, 4)
    return MediaFrame(WHOLE, True, 0, *place, b"", b"", image=image, packets=packets)


def test_both_tracks_play_by_the_clock_however_early_frames_come():
    async def go() -> None:
        tracks = Tracks()
        tracks.push(0, 1, 2)
        shown = []
        for _ in range(3):
            image = await tracks.video.recv()
            shown.append((tracks.played_s, round(float(image.pts * image.time_base), 3)))
        assert shown == [(0.02, 0.0), (0.06, 0.04), (0.1, 0.08)]
        tracks.now_s = 100.0
        assert await tracks.audio_at(4) == [(0.0, b"0 a"), (0.02, b"0 b"), (0.04, b"1 a"), (0.06, b"1 b")]
        assert tracks.n_dropped == 0

    asyncio.run(go())


def test_after_a_stall_they_go_on_by_the_clock():
    async def go() -> None:
        tracks = Tracks()
        tracks.push(0)
        await tracks.video.recv()
        await tracks.audio_at(2)
        tracks.now_s = 100.0 + IMAGE_DELAY_S + 0.85
        tracks.push(*range(10, 22))
        shown = [((await tracks.video.recv()).pts // 3600, tracks.played_s) for _ in range(10)]
        assert shown == [(i, 0.87) for i in range(12, 22)]  # of 0.48 s and later: what is older is dropped
        assert tracks.n_dropped == 2
        tracks.now_s = 100.0 + AUDIO_DELAY_S + 0.85
        sent = await tracks.audio_at(21)
        assert sent[0] == (0.85, b"11 b")  # of 0.46 s
        assert [at_s for at_s, _ in sent] == [0.85] * 20 + [0.86]  # at once, up to the clock

    asyncio.run(go())


def test_what_waits_is_dropped_from_a_frame_on():
    async def go() -> None:
        tracks = Tracks()
        tracks.push(0, 1, 2)
        await tracks.audio_at(1)
        assert (tracks.video.next_frame, tracks.audio.next_frame) == (0, 1)
        for track in (tracks.video, tracks.audio):
            track.drop_from(1)
        assert await tracks.audio_at(1) == [(0.02, SILENCE)]  # the rest of frame 0
        assert (await tracks.video.recv()).pts == 0
        tracks.push(1)  # its number is given again
        assert await tracks.audio_at(1) == [(0.04, b"1 a")]
        assert (await tracks.video.recv()).pts == 3600

    asyncio.run(go())


def test_audio_that_was_taken_is_not_played_again_with_its_frame():
    """An interrupt gives the number of a frame again whose image was not taken."""

    async def go() -> None:
        tracks = Tracks()
        tracks.push(0, 1, 2)
        await tracks.audio_at(3)
        tracks.audio.drop_from(1)
        tracks.push(1, 2)
        assert await tracks.audio_at(2) == [(0.06, b"1 b"), (0.08, b"2 a")]

    asyncio.run(go())


def test_a_track_that_is_stopped_ends_and_one_that_is_not_read_is_bounded():
    async def go() -> None:
        tracks = Tracks()
        waiting = [asyncio.create_task(one.recv()) for one in (tracks.video, tracks.audio)]
        await asyncio.sleep(0)
        tracks.video.stop()
        tracks.audio.stop()
        for one in waiting:
            with pytest.raises(MediaStreamError):
                await one
        unread = Tracks()
        unread.push(*range(MAX_WAITING_PACKETS))
        assert unread.n_dropped == MAX_WAITING_PACKETS - MAX_WAITING_FRAMES
        assert (await unread.audio.recv()).pts == MAX_WAITING_PACKETS // 2 * 1920  # the older half was dropped

    asyncio.run(go())
