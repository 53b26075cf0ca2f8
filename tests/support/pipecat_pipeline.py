"""A Pipecat pipeline in real time: a synthesiser, an avatar, and a transport that records what it plays.

The synthesiser and the transport are subclasses of Pipecat's own, which do all but make and send the audio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from container.voice_agents.avatar_renderer import AvatarRenderer
from container.voice_agents.pipecat import AvatarVideoService
from support.scripted_avatar import ScriptedAvatar, speech


class NumberSynthesiser(TTSService):
    """Speaks "7 1.5" as one and a half seconds of samples that all are 7, faster than it is played."""

    def __init__(self, rate: int, make_audio: Callable[[int, int], np.ndarray] = speech) -> None:
        """make_audio: returns samples, given the number and how many."""
        self._make_audio = make_audio
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(sample_rate=rate, push_start_frame=True, push_stop_frames=True, settings=settings)

    async def run_tts(self, text: str, context_id: str) -> AsyncIterator[Frame | None]:
        number, seconds = text.split()
        left = round(float(seconds) * self.sample_rate)
        while left:
            n = min(left, 2400)
            left -= n
            pcm = self._make_audio(int(number), n).tobytes()
            yield TTSAudioRawFrame(pcm, self.sample_rate, 1, context_id=context_id)


class RecordingTransport(BaseOutputTransport):
    """Plays in real time, as `SmallWebRTCOutputTransport` does: writing audio returns when it was played."""

    def __init__(self, **params: Any) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, video_out_enabled=True, **params))
        self.events: list[tuple[str, Any]] = []  # ("audio" or "image", its number), or ("frame", what was pushed on)
        self.arrived: list[tuple[str, int]] = []  # images and audio, as the service pushes them
        self.ready = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, OutputImageRawFrame):
            self.arrived.append(("image", frame.image[0]))
        elif isinstance(frame, OutputAudioRawFrame):
            self.arrived.append(("audio", int(np.frombuffer(frame.audio, np.int16)[0])))
        await super().process_frame(frame, direction)

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self.ready.set()

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.events.append(("audio", int(np.frombuffer(frame.audio, np.int16)[0])))
        await asyncio.sleep(len(frame.audio) / 2 / frame.sample_rate)
        return True

    async def write_video_frame(self, frame: OutputImageRawFrame) -> bool:
        self.events.append(("image", frame.image[0]))
        return True

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        if direction is FrameDirection.DOWNSTREAM and not isinstance(frame, OutputAudioRawFrame):
            self.events.append(("frame", frame))
        await super().push_frame(frame, direction)


class ScriptedVideoService(AvatarVideoService):
    """The service with a scripted avatar."""

    def __init__(self) -> None:
        super().__init__()
        self.renderer = ScriptedAvatar(render_s=0.0)

    async def _open_renderer(self) -> AvatarRenderer:
        return self.renderer


@dataclass
class RunningPipeline:
    """The parts of a pipeline."""

    worker: PipelineWorker
    transport: RecordingTransport
    avatar: AvatarVideoService

    async def wait_for(self, *kinds: type) -> None:
        """Return when the transport has pushed on a frame of each of these classes."""
        while not all(any(isinstance(frame, kind) for frame in self.frames()) for kind in kinds):
            await asyncio.sleep(0.01)

    def frames(self) -> list[Frame]:
        return [what for kind, what in self.transport.events if kind == "frame"]

    def numbers(self, kind: str) -> list[int]:
        """Return the numbers of the images or of the audio, in their order."""
        return [number for found, number in self.transport.events if found == kind]


@asynccontextmanager
async def running_pipeline(avatar: AvatarVideoService, *, rate: int = 24_000) -> AsyncIterator[RunningPipeline]:
    """Run until the end of the block, then end the pipeline in the frames' order."""
    transport = RecordingTransport(
        video_out_width=4, video_out_height=2, video_out_framerate=25, audio_out_end_silence_secs=0
    )
    async with running_worker([NumberSynthesiser(rate), avatar, transport]) as worker:
        await transport.ready.wait()
        yield RunningPipeline(worker, transport, avatar)


@asynccontextmanager
async def running_worker(processors: list[FrameProcessor]) -> AsyncIterator[PipelineWorker]:
    params = PipelineParams(audio_out_sample_rate=24_000)
    worker = PipelineWorker(Pipeline(processors), params=params, cancel_on_idle_timeout=False, enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        yield worker
    finally:
        await worker.queue_frame(EndFrame())
        await running
