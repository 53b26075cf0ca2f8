"""An avatar in a Pipecat pipeline, between a synthesiser and a transport."""

from __future__ import annotations

import asyncio
from itertools import groupby

import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    InterruptionFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from support.pipecat_pipeline import RunningPipeline, ScriptedVideoService, running_pipeline

GUARD_S = 30.0  # against hanging


def indices(pipeline: RunningPipeline, kind: str, number: int | None = None) -> list[int]:
    return [i for i, (found, what) in enumerate(pipeline.transport.events) if (found, what) == (kind, number)]


def place_of(pipeline: RunningPipeline, frame_class: type) -> int:
    return next(i for i, (_, what) in enumerate(pipeline.transport.events) if isinstance(what, frame_class))


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_speech_is_played_with_its_images(rate: int):
    async def run() -> RunningPipeline:
        async with asyncio.timeout(GUARD_S), running_pipeline(ScriptedVideoService(), rate=rate) as pipeline:
            await pipeline.worker.queue_frame(TTSSpeakFrame("7 0.5"))
            await pipeline.worker.queue_frame(TTSSpeakFrame("9 0.3"))
        return pipeline

    pipeline = asyncio.run(run())
    audio = [number for number in pipeline.numbers("audio") if number in (7, 9)]
    if rate == 24_000:
        in_step = [("image", 7), ("audio", 7)] * 13 + [("image", 9), ("audio", 9)] * 8
        assert [one for one in pipeline.transport.arrived if one[1] in (7, 9)] == in_step
        assert [(number, len(list(run))) for number, run in groupby(audio)] == [(7, 13), (9, 8)]  # frames of 40 ms
    assert len(pipeline.numbers("audio")) in (21, 22, 23)
    assert {7, 9} <= set(pipeline.numbers("image"))  # the transport shows the last one by a clock of its own
    started, stopped = place_of(pipeline, BotStartedSpeakingFrame), place_of(pipeline, BotStoppedSpeakingFrame)
    assert started < indices(pipeline, "audio", 7)[1]
    assert stopped > indices(pipeline, "audio", 7)[-1]
    assert [frame.text for frame in pipeline.frames() if isinstance(frame, TTSTextFrame)] == ["7 0.5", "9 0.3"]
    # Behind what it says, but for the last piece, which the transport keeps until it is full or the speech stops.
    assert place_of(pipeline, TTSTextFrame) > indices(pipeline, "audio", 7)[-2]
    assert isinstance(pipeline.avatar, ScriptedVideoService)
    assert pipeline.avatar.renderer.is_closed


def test_an_interruption_stops_the_speech():
    async def run() -> tuple[RunningPipeline, int]:
        async with asyncio.timeout(GUARD_S), running_pipeline(ScriptedVideoService()) as pipeline:
            await pipeline.worker.queue_frame(TTSSpeakFrame("7 5"))
            await pipeline.wait_for(BotStartedSpeakingFrame)
            while len(indices(pipeline, "audio", 7)) < 3:
                await asyncio.sleep(0.01)
            await pipeline.worker.queue_frame(InterruptionFrame())
            await pipeline.wait_for(InterruptionFrame)
            at = len(pipeline.transport.events)
            await pipeline.worker.queue_frame(TTSSpeakFrame("9 0.2"))
            await pipeline.wait_for(TTSStoppedFrame)
        return pipeline, at

    pipeline, at = asyncio.run(run())
    assert 3 <= len(indices(pipeline, "audio", 7)) < 125 // 2
    assert [i for i in indices(pipeline, "audio", 7) if i > at] == []
    assert len([i for i in indices(pipeline, "image", 7) if i > at]) <= 5  # the transport repeats the last one
    assert len(indices(pipeline, "audio", 9)) == 5
    assert indices(pipeline, "image", 9)
    assert [frame.text for frame in pipeline.frames() if isinstance(frame, TTSTextFrame)] == ["9 0.2"]
