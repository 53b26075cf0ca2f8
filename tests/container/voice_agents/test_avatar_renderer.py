"""Avatars in this process and on a server give a player the same speech."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from support.live_app import LiveApp, live_app, make_settings

from container.app import Server
from container.rejections import RequestRejected
from container.voice_agents import avatar_renderer
from container.voice_agents.avatar_renderer import SAMPLE_RATE, AvatarRenderer, RemoteAvatar, open_renderer
from container.voice_agents.speech_player import PlaybackLead, ShownImage, SpeechPlayer
from container.voice_agents.speech_timeline import PlayedAudio, ReachedMarker
from inference.avatar import AvatarPackage

PCM = (np.random.default_rng(1).standard_normal(SAMPLE_RATE // 2 - 100) * 5000).astype(np.int16)
GUARD_S = 60.0  # against hanging


async def speak(renderer: AvatarRenderer, *, interrupt: bool) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Speak PCM, after an interrupt in the middle of it if wanted. Return the images' shapes and the audio."""
    player = SpeechPlayer(renderer, PlaybackLead(audio_s=0.04))
    shapes: list[tuple[int, ...]] = []
    played: list[np.ndarray] = []
    player.push_audio(PCM)
    player.end_utterance()
    player.add_marker("end")
    async with asyncio.timeout(GUARD_S):
        async for item in player.play():
            if isinstance(item, ShownImage):
                shapes.append(item.image_rgb.shape)
            elif not isinstance(item, PlayedAudio):
                break
            elif interrupt and len(played) == 3:
                player.interrupt()
                played.clear()
                interrupt = False
                player.push_audio(PCM)
                player.end_utterance()
                player.add_marker("end")
            else:
                played.append(item.pcm)
    await player.close()
    return shapes, np.concatenate(played)


@pytest.mark.parametrize("interrupt", [False, True])
def test_in_this_process(avatar_package: AvatarPackage, tmp_path: Path, interrupt: bool):
    async def run() -> tuple[list[tuple[int, ...]], np.ndarray]:
        renderer = await open_renderer(avatar_package, settings=make_settings(tmp_path))
        return await speak(renderer, interrupt=interrupt)

    shapes, pcm = asyncio.run(run())
    assert set(shapes) == {(240, 320, 3)}
    assert np.array_equal(pcm, PCM)
    assert avatar_package.session() is not None  # it stays open


async def speak_over_a_cut(renderer: RemoteAvatar) -> np.ndarray:
    """Speak PCM in a session that is cut off after five frames, and return the audio."""
    player, played = SpeechPlayer(renderer, PlaybackLead()), []
    player.push_audio(PCM)
    player.end_utterance()
    player.add_marker("end")
    async with asyncio.timeout(GUARD_S):
        async for item in player.play():
            if isinstance(item, ReachedMarker):
                break
            if isinstance(item, PlayedAudio):
                played.append(item.pcm)
                if len(played) == 5:
                    renderer._session._client.close()
    assert renderer.n_sessions == 2
    await player.close()
    return np.concatenate(played)


async def take_frames(renderer: AvatarRenderer) -> None:
    async with asyncio.timeout(GUARD_S):
        while True:
            await renderer.next_frame()


def test_on_a_server_until_it_goes_down(avatar_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = make_settings(tmp_path, avatars=avatar_folder.parent, token="secret")

    async def run(app: LiveApp) -> tuple[list[tuple[int, ...]], np.ndarray]:
        found = await speak(await open_renderer("drawn", app.ws(""), settings), interrupt=True)
        assert np.array_equal(await speak_over_a_cut(await open_renderer("drawn", app.ws(""), settings)), PCM)
        renderer = await open_renderer("drawn", app.ws(""), settings)
        app.call(app.server.drain)
        monkeypatch.setattr(avatar_renderer, "RESTART_WAITS_S", (0.01,))
        with pytest.raises(RequestRejected, match="going down"):
            await take_frames(renderer)
        await renderer.close()
        return found

    with live_app(Server(settings)) as app:
        shapes, pcm = asyncio.run(run(app))
    assert set(shapes) == {(240, 320, 3)}
    assert np.array_equal(pcm, PCM)


def test_an_avatar_that_the_server_does_not_have(tmp_path: Path):
    settings = make_settings(tmp_path)
    with live_app(Server(settings)) as app, pytest.raises(RequestRejected) as found:
        asyncio.run(open_renderer("missing", app.ws(""), settings))
    assert found.value.code == "avatar_not_found"
