"""When images, audio and markers are due, by a simulated clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.scripted_avatar import ScriptedAvatar, speech
from support.virtual_loop import run_virtually

from container.voice_agents import speech_player
from container.voice_agents.avatar_renderer import FRAME_SAMPLES, SAMPLE_RATE
from container.voice_agents.speech_player import PlaybackLead, ShownImage, SpeechPlayer
from container.voice_agents.speech_timeline import PlayedAudio

Played = list[tuple[float, str, Any]]  # time in frames, kind, and the number shown or the samples or the marker


def play(
    act: Callable[[SpeechPlayer, ScriptedAvatar], Any], for_s: float, lead: PlaybackLead, hold_s: float = 0.0
) -> Played:
    """Return what is played for so long, while `act` runs."""

    async def run() -> Played:
        loop = asyncio.get_running_loop()
        renderer = ScriptedAvatar(render_s=0.001)
        renderer.hold_s = hold_s
        player = SpeechPlayer(renderer, lead, loop.time)
        found: Played = []

        async def collect() -> None:
            async for item in player.play():
                at = round(loop.time() * 25, 2)
                if isinstance(item, ShownImage):
                    found.append((at, "image", int(item.image_rgb[0, 0, 0])))
                elif isinstance(item, PlayedAudio):
                    found.append((at, "audio", len(item.pcm)))
                else:
                    found.append((at, "marker", item.marker))

        collecting, acting = asyncio.create_task(collect()), asyncio.create_task(act(player, renderer))
        await asyncio.sleep(for_s)
        await acting
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        await player.close()
        return found

    found: Played = run_virtually(run())
    return found


async def speak_two_and_a_half_frames(player: SpeechPlayer, _renderer: ScriptedAvatar) -> None:
    await asyncio.sleep(0.1)
    player.push_audio(speech(7, 5 * FRAME_SAMPLES // 2))
    player.end_utterance()
    player.add_marker("end")


def spoken(found: Played) -> Played:
    return [(round(at - first_of(found), 2), kind, what) for at, kind, what in found if what != 0]


def first_of(found: Played) -> float:
    return next(at for at, kind, _ in found if kind == "audio")


def test_image_and_audio_are_due_together():
    found = play(speak_two_and_a_half_frames, 0.5, PlaybackLead())
    assert spoken(found) == [
        (0, "image", 7),
        (0, "audio", 960),
        (1, "image", 7),
        (1, "audio", 960),
        (2, "image", 7),
        (2, "audio", 480),
        (3, "marker", "end"),
    ]
    images = [at for at, kind, _ in found if kind == "image"]
    assert np.diff(images) == pytest.approx(np.ones(len(images) - 1), abs=0.1)  # no frame is late or early


def test_audio_may_be_early_but_for_the_first_frame():
    found = play(speak_two_and_a_half_frames, 0.5, PlaybackLead(audio_s=0.04))
    assert spoken(found) == [
        (0, "image", 7),
        (0, "audio", 960),
        (0, "audio", 960),
        (1, "image", 7),
        (1, "audio", 480),
        (2, "image", 7),
        (3, "marker", "end"),
    ]


def test_speech_from_a_server_is_held_back_once():
    found = play(speak_two_and_a_half_frames, 0.6, PlaybackLead(), hold_s=0.08)
    assert [at for at, kind, _ in spoken(found) if kind == "audio"] == [0, 1, 2]
    idle = [at for at, _, what in found if what == 0 and at < first_of(found)]
    assert first_of(found) - idle[-1] == pytest.approx(3, abs=0.1)


def test_an_interrupt_drops_what_is_due_next():
    async def interrupt(player: SpeechPlayer, renderer: ScriptedAvatar) -> None:
        player.push_audio(speech(7, SAMPLE_RATE))
        player.add_marker("kept")
        await asyncio.sleep(0.21)
        assert player.interrupt() == ["kept"]
        player.push_audio(speech(8, FRAME_SAMPLES))
        player.end_utterance()

    found = play(interrupt, 0.6, PlaybackLead(audio_s=0.04))
    numbers = [what for _, kind, what in found if kind == "image"]
    assert numbers.index(8) - max(i for i, number in enumerate(numbers) if number == 7) == 1
    assert "kept" not in [what for _, _, what in found]
    assert sum(what for _, kind, what in found if kind == "audio") < SAMPLE_RATE // 2


def test_a_marker_right_after_an_interrupt_is_kept():
    async def interrupt(player: SpeechPlayer, _renderer: ScriptedAvatar) -> None:
        await asyncio.sleep(0.11)  # in the middle of a frame
        player.interrupt()
        player.add_marker("kept")

    found = play(interrupt, 0.4, PlaybackLead())
    assert [what for _, kind, what in found if kind == "marker"] == ["kept"]


def test_audio_that_runs_out_is_spoken_to_its_end():
    async def stall(player: SpeechPlayer, renderer: ScriptedAvatar) -> None:
        player.push_audio(speech(7, FRAME_SAMPLES * 3 // 2))
        await asyncio.sleep(1.0)
        assert renderer.pushed[-1] is None
        player.push_audio(speech(7, FRAME_SAMPLES))
        player.end_utterance()
        player.add_marker("end")

    found = play(stall, 1.5, PlaybackLead())
    lengths = [what for _, kind, what in found if kind == "audio"]
    assert lengths == [960, 480, 960]
    assert found[-1][0] > 30
    assert [what for _, kind, what in found if kind == "marker"] == ["end"]


def test_pushing_waits_while_too_much_is_pending(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speech_player, "MAX_PENDING", 10 * FRAME_SAMPLES)
    waited: list[tuple[float, bool]] = []

    async def push(player: SpeechPlayer, renderer: ScriptedAvatar) -> None:
        now = asyncio.get_running_loop().time
        player.push_audio(speech(7, 15 * FRAME_SAMPLES))
        player.end_utterance()
        waited.append((now(), await player.wait_for_space()))
        waited.append((now(), player.is_silent))
        player.push_audio(speech(7, 15 * FRAME_SAMPLES))
        asyncio.get_running_loop().call_later(0.1, player.interrupt)
        waited.append((now(), await player.wait_for_space()))

    play(push, 1.0, PlaybackLead())
    (start_s, has_space), (later_s, is_silent), (_, is_same) = waited
    assert later_s - start_s == pytest.approx(0.22, abs=0.05)  # six frames are played
    assert (has_space, is_silent, is_same) == (True, False, False)
