"""An avatar that joins a LiveKit room and speaks for an agent in it. Needs the extra `livekit`."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from container.voice_agents.avatar_renderer import AvatarRenderer
from container.voice_agents.extras import require_extra
from container.voice_agents.livekit import AvatarVideoGenerator, RoomSpeechReceiver, make_runner
from inference.errors import InvalidRequest
from inference.settings import Settings

with require_extra("livekit"):
    from livekit import api, rtc
    from livekit.agents.utils import wait_for_participant
    from livekit.agents.voice.room_io import ATTRIBUTE_PUBLISH_ON_BEHALF

logger = logging.getLogger("viseme.live")
TOKEN_LIFE = timedelta(hours=1)  # to join; afterwards LiveKit's server renews the token


@dataclass(frozen=True)
class RoomInvitation:
    """Where an avatar joins. agent: identity of the agent whose speech it speaks, None for the first one there."""

    url: str
    room: str
    identity: str
    agent: str | None = None


def join_token(invitation: RoomInvitation, settings: Settings) -> str:
    """Return the token of the settings, or one signed with their key.

    It joins as an agent, so that no agent takes the avatar for a user, and says for whom it publishes.
    Raises: InvalidRequest if the settings have neither.
    """
    if settings.livekit_token is not None:
        return settings.livekit_token
    if settings.livekit_api_key is None or settings.livekit_api_secret is None:
        raise InvalidRequest("no token: set VISEME_LIVEKIT_TOKEN, or LIVEKIT_API_KEY and LIVEKIT_API_SECRET")
    grants = api.VideoGrants(room_join=True, room=invitation.room)
    token = api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret)
    token = token.with_identity(invitation.identity).with_kind("agent").with_grants(grants).with_ttl(TOKEN_LIFE)
    if invitation.agent is not None:
        token = token.with_attributes({ATTRIBUTE_PUBLISH_ON_BEHALF: invitation.agent})
    return token.to_jwt()


async def run_in_room(renderer: AvatarRenderer, invitation: RoomInvitation, token: str) -> None:
    """Join the room, and speak for the agent until the room is closed or this is canceled.

    Raises: rtc.ConnectError if the room cannot be joined; what the renderer raises when its session ends.
    """
    room = rtc.Room()
    await room.connect(invitation.url, token)
    try:
        await speak_in_room(room, renderer, invitation.agent)
    finally:
        await room.disconnect()


async def speak_in_room(room: rtc.Room, renderer: AvatarRenderer, agent: str | None) -> None:
    """Speak for the agent in a room that was joined, until the room is closed or the agent leaves.

    agent: its identity; None for the first agent in the room, for which this waits.
    """
    sender = await wait_for_agent(room, agent)
    generator = AvatarVideoGenerator(renderer)
    runner = make_runner(room, RoomSpeechReceiver(room, sender_identity=sender), generator)
    has_ended = asyncio.Event()

    def on_disconnected(*_details: object) -> None:
        has_ended.set()

    def on_participant_disconnected(participant: rtc.RemoteParticipant) -> None:
        if participant.identity == sender:
            has_ended.set()

    room.on("disconnected", on_disconnected)
    room.on("participant_disconnected", on_participant_disconnected)
    await runner.start()
    logger.info("an avatar speaks for an agent", extra={"room": room.name, "agent": sender})
    ended, completed = asyncio.create_task(has_ended.wait()), asyncio.create_task(runner.wait_for_complete())
    try:
        done, _ = await asyncio.wait({ended, completed}, return_when=asyncio.FIRST_COMPLETED)
        if completed in done:
            completed.result()
    finally:
        room.off("disconnected", on_disconnected)
        room.off("participant_disconnected", on_participant_disconnected)
        ended.cancel()
        completed.cancel()
        await asyncio.gather(ended, completed, return_exceptions=True)
        await runner.aclose()
        await generator.aclose()


async def wait_for_agent(room: rtc.Room, identity: str | None) -> str:
    """Return the identity of the agent once it is in the room. Raises: RuntimeError if the room is closed before."""
    if identity is not None:
        return (await wait_for_participant(room, identity=identity)).identity
    return (await wait_for_participant(room, kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)).identity
