"""An avatar that renders in no time: its images show a number, that of the speech they belong to."""

from __future__ import annotations

import asyncio
from collections import deque

import numpy as np

from container.voice_agents.avatar_renderer import FRAME_SAMPLES, AvatarFrame, AvatarRenderer

LOOK_AHEAD = 11 * FRAME_SAMPLES  # 0.44 s, as long as `inference.avatar.utterance` waits for audio, about


def speech(number: int, n_samples: int) -> np.ndarray:
    """Return speech whose samples are all the number."""
    return np.full(n_samples, number, np.int16)


class ScriptedAvatar(AvatarRenderer):
    """Follows `AvatarSession`: a frame is spoken if the audio behind it has come, or its utterance has ended."""

    width, height, hold_s = 4, 2, 0.0

    def __init__(self, render_s: float = 0.02) -> None:
        self._utterances: deque[list[np.ndarray]] = deque()
        self._is_open = False
        self._render_s = render_s
        self.generation = 0
        self.is_closed = False
        self.pushed: list[np.ndarray | None] = []

    def push_audio(self, pcm: np.ndarray) -> None:
        self.pushed.append(pcm)
        if not self._is_open:
            self._utterances.append([])
            self._is_open = True
        self._utterances[-1].append(pcm)

    def flush(self) -> None:
        self.pushed.append(None)
        self._is_open = False

    def interrupt(self) -> None:
        self._utterances.clear()
        self._is_open = False
        self.generation += 1

    async def next_frame(self) -> AvatarFrame:
        generation = self.generation
        pcm = self._take()
        await asyncio.sleep(self._render_s)
        if pcm is None or generation != self.generation:
            return AvatarFrame(np.zeros((2, 4, 3), np.uint8), np.zeros(FRAME_SAMPLES, np.int16), False, self.generation)
        padded = np.concatenate([pcm, np.zeros(FRAME_SAMPLES - len(pcm), np.int16)])
        return AvatarFrame(np.full((2, 4, 3), pcm[0], np.uint8), padded, True, generation)

    def _take(self) -> np.ndarray | None:
        if not self._utterances:
            return None
        has_ended = len(self._utterances) > 1 or not self._is_open
        pcm = np.concatenate(self._utterances[0])
        if not has_ended and len(pcm) < FRAME_SAMPLES + LOOK_AHEAD:
            return None
        rest = pcm[FRAME_SAMPLES:]
        self._utterances[0] = [rest]
        if has_ended and not len(rest):
            self._utterances.popleft()
        return pcm[:FRAME_SAMPLES]

    async def close(self) -> None:
        self.is_closed = True
