"""The clock of a voice agent's avatar: when each image is due and each piece of audio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from container.live.frame_clock import FPS
from container.voice_agents.avatar_renderer import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    AvatarFrame,
    AvatarRenderer,
    Image,
)
from container.voice_agents.speech_timeline import PlayedAudio, ReachedMarker, SpeechTimeline
from inference.audio.mel import Samples

FRAME_S = 1 / FPS
SEND_AHEAD = 5 * SAMPLE_RATE  # samples that the session gets before they are played
STARVED_S = 0.3  # without audio for the next frame, after which what there is counts as an utterance
MAX_PENDING = 120 * SAMPLE_RATE  # samples of speech that are kept; then pushing waits


@dataclass(frozen=True)
class ShownImage:
    """An image to show now: (H, W, 3) uint8 RGB."""

    image_rgb: Image
    is_speaking: bool = False


@dataclass(frozen=True)
class PlaybackLead:
    """How long before their time image and audio are handed out, for a receiver that queues them.

    Only speech is early, and not its first frame: so the receiver's queue fills when speech begins, is never empty in
    the middle of it, and delays no image in silence.
    """

    image_s: float = 0.0
    audio_s: float = 0.0


PlayedItem = ShownImage | PlayedAudio | ReachedMarker


class SpeechPlayer:
    """Passes an agent's speech to an avatar, and hands out images and audio when they are due.

    In silence there are images without audio. Audio, and the image that belongs to it, are due at the same time; of two
    items with the same time the image comes first. A marker is due when the audio before it has been played.
    """

    def __init__(
        self,
        renderer: AvatarRenderer,
        lead: PlaybackLead,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """now: returns the time in seconds. sleep: waits that many seconds, or slightly longer."""
        self._renderer, self._lead, self._now, self._sleep = renderer, lead, now, sleep
        self._timeline = SpeechTimeline(FRAME_SAMPLES)
        self.generation = 0  # number of interrupts
        self._due_s = now()  # time of the next frame
        self._shown_s = now() - FRAME_S  # time of the last image
        self._is_speaking = False  # whether the last frame was one of speech
        self._fed_s = now()  # time of the last audio, or of the last frame of speech
        self._n_sessions = renderer.n_sessions  # that got speech
        self._n_received = 0  # frames of speech that were received and are not played yet
        self._prepared: asyncio.Task[AvatarFrame] | None = None
        self._has_space = asyncio.Event()
        self._has_space.set()

    @property
    def is_silent(self) -> bool:
        """Whether all speech was played, and no marker waits."""
        return self._timeline.is_silent

    async def wait_for_space(self) -> bool:
        """Return when more audio may be pushed: whether there was no interrupt meanwhile."""
        generation = self.generation
        while not self._has_space.is_set():
            await self._has_space.wait()
        return generation == self.generation

    def push_audio(self, pcm: Samples) -> None:
        """Append speech: (n,) int16 mono at SAMPLE_RATE."""
        self._timeline.push(pcm)
        self._fed_s = self._now()
        self._send()

    def end_utterance(self) -> None:
        """End the utterance: its last frames need no more audio."""
        self._timeline.end_utterance()
        self._send()

    def add_marker(self, marker: object) -> None:
        """Add a marker, which `play` yields after all audio before it."""
        self._timeline.add_marker(marker)

    def interrupt(self) -> list[object]:
        """Drop all speech at once; return the markers in it. `play` yields none of its audio or images afterwards."""
        self.generation += 1
        self._renderer.interrupt()
        self._n_received = 0
        self._due_s, self._is_speaking = self._shown_s + FRAME_S, False
        self._has_space.set()
        return self._timeline.clear()

    async def play(self) -> AsyncIterator[PlayedItem]:
        """Yield images, audio and markers when they are due, until canceled.

        Raises: what the renderer raises when its session ends.
        """
        while True:
            frame = await self._next_frame()
            if frame.generation != self.generation and frame.is_speaking:
                continue
            generation = self.generation
            self._n_received = max(len(frame.pcm) // FRAME_SAMPLES, 1) if frame.is_speaking else 0
            for at_s, items in self._schedule(frame):
                if generation == self.generation:
                    await self._wait_until(at_s)
                # Checked first: behind an interrupt, items belong to the next frame.
                while generation == self.generation and (item := next(items, None)) is not None:
                    yield item
            if generation == self.generation:
                self._advance(frame)

    async def close(self) -> None:
        """Stop the frame that is being prepared, and end the session."""
        if self._prepared is not None:
            self._prepared.cancel()
            await asyncio.gather(self._prepared, return_exceptions=True)
        await self._renderer.close()

    async def _next_frame(self) -> AvatarFrame:
        self._send()
        prepared, self._prepared = self._prepared, None
        frame = await (prepared or asyncio.create_task(self._renderer.next_frame()))
        if frame.is_speaking:
            # Meanwhile the next one is rendered. In silence that would only delay the first frame of speech.
            self._prepared = asyncio.create_task(self._renderer.next_frame())
        return frame

    def _schedule(self, frame: AvatarFrame) -> list[tuple[float, Iterator[PlayedItem]]]:
        """Return the frame's items, with their times: one list for the image, and one for audio and markers."""
        is_first = frame.is_speaking and not self._is_speaking
        self._due_s = max(self._due_s, self._now()) + (self._renderer.hold_s if is_first else 0.0)
        image = self._show(ShownImage(frame.image_rgb, frame.is_speaking), self._due_s)
        if not frame.is_speaking:
            return [(self._due_s, self._items_of(frame)), (self._due_s, image)]
        lead = PlaybackLead() if is_first else self._lead
        times = [(self._due_s - lead.image_s, image), (self._due_s - lead.audio_s, self._items_of(frame))]
        return sorted(times, key=lambda one: one[0])

    def _show(self, image: ShownImage, due_s: float) -> Iterator[PlayedItem]:
        self._shown_s = due_s
        yield image

    def _items_of(self, frame: AvatarFrame) -> Iterator[PlayedAudio | ReachedMarker]:
        self._n_received = 0
        if frame.generation == self.generation:
            yield from self._timeline.take_played(frame.pcm, is_speaking=frame.is_speaking)
        if not frame.is_speaking:  # behind speech, a marker is due when the last frame is over
            yield from self._timeline.take_markers()

    async def _wait_until(self, time_s: float) -> None:
        wait_s = time_s - self._now()
        if wait_s > 0:
            await self._sleep(wait_s)

    def _advance(self, frame: AvatarFrame) -> None:
        """Move on to the next frame."""
        self._is_speaking = frame.is_speaking
        self._due_s += FRAME_S
        if self._timeline.n_pending < MAX_PENDING:
            self._has_space.set()
        now_s = self._now()
        if frame.is_speaking:
            self._fed_s = now_s
        elif self._timeline.is_open and now_s - self._fed_s >= STARVED_S:
            self.end_utterance()

    def _send(self) -> None:
        if self._timeline.n_pending >= MAX_PENDING:
            self._has_space.clear()
        if self._n_sessions != self._renderer.n_sessions:
            self._n_sessions = self._renderer.n_sessions
            self._timeline.rewind(self._n_received)
        for pcm in self._timeline.take_unsent(SEND_AHEAD):
            if pcm is None:
                self._renderer.flush()
            else:
                self._renderer.push_audio(pcm)
