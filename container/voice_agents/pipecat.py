"""Pipecat: an avatar as a service between the synthesiser and the transport. Needs the extra `pipecat`.

    Pipeline([transport.input(), stt, user, llm, tts, AvatarVideoService("starter"), transport.output(), assistant])

Source: pipecat-ai 1.14.0, `pipecat.services.ai_service`, and what `pipecat.transports.base_output` does with images and
audio: an image with `sync_with_audio` waits in the queue of the audio, and an interruption empties that queue.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from container.voice_agents.avatar_renderer import SAMPLE_RATE, AvatarRenderer, open_renderer
from container.voice_agents.channels import mix_channels
from container.voice_agents.extras import require_extra
from container.voice_agents.speech_player import PlaybackLead, ShownImage, SpeechPlayer
from container.voice_agents.speech_timeline import PlayedAudio

with require_extra("pipecat"):
    from pipecat.audio.utils import create_stream_resampler
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        OutputTransportReadyFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage

# Two frames wait in the transport's queue, which an interruption empties: so it plays on if one is rendered late.
LEAD = PlaybackLead(image_s=0.08, audio_s=0.08)


@dataclass(frozen=True)
class SpeechContext:
    """Where the audio behind it belongs: of which response it is, and to which destination of the transport it goes."""

    context_id: str | None
    destination: str | None


class AvatarVideoService(AIService):
    """Takes the synthesiser's audio and pushes the avatar's images, 25 a second, with the same audio in step.

    Other frames keep their place between the audio, so that a transport ends the speech, and a context gets its words,
    when they were played. System frames pass at once. Images wait for the audio before them (`sync_with_audio`), which
    transports do unless `video_out_is_live` is set.
    """

    Settings = ServiceSettings

    def __init__(
        self,
        avatar: str | AvatarPackage = "starter",
        *,
        server: str | None = None,
        settings: ServiceSettings | None = None,
        **options: Any,
    ) -> None:
        """Name an avatar; it is loaded when the pipeline is set up.

        avatar: name or folder of a package, or a loaded one. server: ws:// URL of a Viseme server that renders it; else
        it is rendered in this process, which takes most of a CPU core. options: of Pipecat's processors.
        """
        stored = ServiceSettings(model=None)
        if settings is not None:
            stored.apply_update(settings)
        super().__init__(settings=stored, **options)
        self._avatar, self._server = avatar, server
        self._player: SpeechPlayer | None = None
        self._playing: asyncio.Task[None] | None = None
        self._context = SpeechContext(None, None)  # of the audio that is played
        self._pushed_context = self._context
        self._resampler = create_stream_resampler(clear_after_secs=None)
        self._input_rate = SAMPLE_RATE

    def can_generate_metrics(self) -> bool:
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as all of Pipecat's
        """Load the avatar. Raises: the errors of `open_renderer`."""
        await super().setup(setup)
        self._player = SpeechPlayer(await self._open_renderer(), LEAD)

    async def _open_renderer(self) -> AvatarRenderer:
        return await open_renderer(self._avatar, self._server)

    async def stop(self, frame: EndFrame) -> None:
        """End the session, after the speech."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """End the session at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """End the session, if the pipeline was never started."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take the synthesiser's audio; push every other frame on, in its place between the audio."""
        if isinstance(frame, EndFrame):
            await self._finish_speech()
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await self._interrupt()
            await self.push_frame(frame, direction)
        elif direction is FrameDirection.UPSTREAM:
            if isinstance(frame, OutputTransportReadyFrame):
                self._start_playing()
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame):
            await self._push_speech(frame)
        else:
            await self._keep_in_place(frame)

    async def _push_speech(self, frame: TTSAudioRawFrame) -> None:
        player = self._player
        if player is None:
            return
        context = SpeechContext(frame.context_id, frame.transport_destination)
        if context != self._pushed_context:
            player.add_marker(context)
            self._pushed_context = context
        await player.wait_for_space()
        if frame.sample_rate != self._input_rate:
            await self._flush_resampler(player)
            self._resampler = create_stream_resampler(clear_after_secs=None)
            self._input_rate = frame.sample_rate
        audio = mix_channels(frame.audio, frame.num_channels).tobytes()
        push(player, await self._resampler.resample(audio, frame.sample_rate, SAMPLE_RATE))

    async def _flush_resampler(self, player: SpeechPlayer) -> None:
        push(player, await self._resampler.flush())

    async def _keep_in_place(self, frame: Frame) -> None:
        """Push a frame on when the audio before it was played."""
        player = self._player
        if isinstance(frame, TTSStartedFrame):
            await self.start_ttfb_metrics()
        if player is not None and isinstance(frame, TTSStoppedFrame):
            await self._flush_resampler(player)
            player.end_utterance()
        if player is None or player.is_silent or isinstance(frame, SystemFrame | EndFrame):
            await self.push_frame(frame)
        else:
            player.add_marker(frame)

    async def _interrupt(self) -> None:
        """Drop the speech, and push what in it may not be interrupted."""
        if self._player is None:
            return
        markers = self._player.interrupt()
        self._resampler = create_stream_resampler(clear_after_secs=None)
        self._pushed_context = self._context
        for marker in markers:
            if isinstance(marker, asyncio.Event):
                marker.set()
            elif isinstance(marker, Frame) and not marker.interruptible:
                await self.push_frame(marker)

    async def _finish_speech(self) -> None:
        """Return when everything was played."""
        if self._player is None or self._playing is None or self._playing.done():
            return
        await self._flush_resampler(self._player)
        self._player.end_utterance()
        is_over = asyncio.Event()
        self._player.add_marker(is_over)
        waiting = asyncio.create_task(is_over.wait())
        await asyncio.wait({waiting, self._playing}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def _start_playing(self) -> None:
        if self._playing is None and self._player is not None:
            self._playing = self.create_task(self._play(self._player))

    async def _play(self, player: SpeechPlayer) -> None:
        """Push what is due until the session ends."""
        try:
            async for item in player.play():
                if isinstance(item, ShownImage):
                    await self.push_frame(image_frame(item))
                elif isinstance(item, PlayedAudio):
                    await self.stop_ttfb_metrics()
                    await self.push_frame(self._audio_frame(item))
                else:
                    await self._pass_marker(item.marker)
        except Exception as err:  # noqa: BLE001 - Pipecat reports errors as frames
            await self.push_error(f"the avatar's session ended: {err}", err, force_treat_as_permanent=True)

    async def _pass_marker(self, marker: object) -> None:
        if isinstance(marker, SpeechContext):
            self._context = marker
        elif isinstance(marker, asyncio.Event):
            marker.set()
        elif isinstance(marker, Frame):
            await self.push_frame(marker)

    def _audio_frame(self, item: PlayedAudio) -> TTSAudioRawFrame:
        frame = TTSAudioRawFrame(item.pcm.tobytes(), SAMPLE_RATE, 1, context_id=self._context.context_id)
        frame.transport_destination = self._context.destination
        return frame

    async def _close(self) -> None:
        player, self._player = self._player, None
        if self._playing is not None:
            await self.cancel_task(self._playing)
            self._playing = None
        if player is not None:
            await player.close()


def push(player: SpeechPlayer, audio: bytes) -> None:
    """Push 16-bit mono audio at SAMPLE_RATE, if there is any."""
    if audio:
        player.push_audio(np.frombuffer(audio, np.int16))


def image_frame(item: ShownImage) -> OutputImageRawFrame:
    """Return an image as a frame that waits for the audio before it."""
    height, width = item.image_rgb.shape[:2]
    frame = OutputImageRawFrame(item.image_rgb.tobytes(), (width, height), "RGB")
    frame.sync_with_audio = True
    return frame
