"""The speech of a voice agent: what was pushed, what the avatar session has of it, and what was played."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inference.audio import SampleBuffer
from inference.audio.mel import Samples


@dataclass(frozen=True)
class PlayedAudio:
    """Audio to play now. pcm: (n,) int16 mono, at most 40 ms."""

    pcm: Samples


@dataclass(frozen=True)
class ReachedMarker:
    """A marker that was added between the audio; all audio before it was played."""

    marker: object


class SpeechTimeline:
    """Counts samples in three places: pushed by the agent, sent to the avatar session, and played.

    The audio to play comes from here, not from the session, so that it is what was pushed, sample by sample, without
    the silence that fills up the last frame of an utterance. An utterance is what the session gets as one: it ends with
    a segment, or if the agent is so late that its audio has run out.
    """

    def __init__(self, frame_samples: int) -> None:
        """Start empty. frame_samples: samples of one frame, 40 ms."""
        self._frame_samples = frame_samples
        self.clear()

    def clear(self) -> list[object]:
        """Drop all audio and all markers, and return these."""
        dropped = [marker for _, marker in getattr(self, "_markers", ())]
        self._audio = SampleBuffer()
        self._ends: deque[int] = deque()  # of utterances that were not played to their end, in samples
        self._unsent_ends: deque[int] = deque()
        self._markers: deque[tuple[int, object]] = deque()
        self._sent = self._played = self._last_end = 0
        return dropped

    @property
    def n_pending(self) -> int:
        """Samples that were pushed and not played."""
        return self._audio.end - self._played

    @property
    def is_silent(self) -> bool:
        """Whether everything that was pushed was played, and no marker waits."""
        return not self._markers and self.n_pending == 0

    @property
    def is_open(self) -> bool:
        """Whether audio was pushed since the last end of an utterance."""
        return self._audio.end > self._last_end

    def push(self, pcm: Samples) -> None:
        """Append audio: (n,) int16 mono."""
        self._audio.append(pcm)

    def end_utterance(self) -> None:
        """Mark the end of the utterance, if there is one."""
        if self.is_open:
            self._last_end = self._audio.end
            self._ends.append(self._last_end)
            self._unsent_ends.append(self._last_end)

    def add_marker(self, marker: object) -> None:
        """Add a marker behind the audio that was pushed so far."""
        self._markers.append((self._audio.end, marker))

    def take_unsent(self, max_ahead: int) -> Iterator[Samples | None]:
        """Yield the audio to send to the session now, and None for the end of an utterance.

        max_ahead: samples that may be sent before they are played.
        """
        limit = min(self._audio.end, self._played + max_ahead)
        while True:
            stop = min(limit, self._unsent_ends[0]) if self._unsent_ends else limit
            if stop > self._sent:
                yield self._audio.read(self._sent, stop)
                self._sent = stop
            if not self._unsent_ends or self._unsent_ends[0] > limit:
                return
            self._unsent_ends.popleft()
            yield None

    def rewind(self, n_received: int = 0) -> None:
        """Send all that was not played again, to another session.

        n_received: frames of speech that the session has returned and that are not played yet: they are not sent again.
        """
        self._sent = self._played
        for _ in range(n_received):
            self._sent = self._end_of_frame(self._sent)
        self._unsent_ends = deque(end for end in self._ends if end > self._sent)

    def take_played(self, returned: Samples, *, is_speaking: bool) -> Iterator[PlayedAudio | ReachedMarker]:
        """Yield the audio of a frame of the session, each part after the markers before it.

        returned: the frame's audio as the session returned it. A remote session to a slow client drops frames, and the
        next one carries their audio; whether that is speech or the silence between it, its samples tell.
        """
        n_parts = max(len(returned) // self._frame_samples, 1)
        for i in range(n_parts):
            part = returned[i * self._frame_samples : (i + 1) * self._frame_samples]
            if is_speaking if n_parts == 1 else self._is_next(part):
                yield from self.take_markers()
                pcm = self._audio.read(self._played, self._next_stop())
                self._played += len(pcm)
                while self._ends and self._ends[0] <= self._played:
                    self._ends.popleft()
                self._audio.discard_before(self._played)
                if len(pcm):
                    yield PlayedAudio(pcm)

    def take_markers(self) -> Iterator[ReachedMarker]:
        """Yield the markers before which everything was played."""
        while self._markers and self._markers[0][0] <= self._played:
            yield ReachedMarker(self._markers.popleft()[1])

    def _next_stop(self) -> int:
        """Return the end of the next frame's audio."""
        return self._end_of_frame(self._played)

    def _end_of_frame(self, start: int) -> int:
        """Return the end of the audio of the frame that starts there."""
        end = next((end for end in self._ends if end > start), self._audio.end)
        return min(start + self._frame_samples, end)

    def _is_next(self, part: Samples) -> bool:
        """Return whether these samples are the next of the speech, followed by silence up to a whole frame."""
        expected = np.zeros(self._frame_samples, np.int16)
        pcm = self._audio.read(self._played, self._next_stop())
        expected[: len(pcm)] = pcm
        return len(pcm) > 0 and bool(np.array_equal(part, expected))
