"""`viseme avatar livekit`: an avatar joins a LiveKit room and speaks for an agent."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from container.commands.console import EXIT_INTERNAL, DeviceOption, PrecisionOption, ThreadsOption, print_error
from inference.errors import InvalidRequest


def livekit(
    avatar: Annotated[str, typer.Argument(metavar="DIR|NAME", help="Package folder, or the name of an avatar.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="LiveKit server: ws:// or wss://.")],
    room: Annotated[str, typer.Option("--room", metavar="NAME", help="Room to join.")],
    agent: Annotated[
        str | None,
        typer.Option(metavar="IDENTITY", help="Agent to speak for. Default: the first one in the room."),
    ] = None,
    identity: Annotated[
        str, typer.Option(metavar="IDENTITY", help="Identity of the avatar in the room.")
    ] = "viseme-avatar",
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Viseme server that renders the avatar: ws:// or wss://. Default: render here.",
        ),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Join a LiveKit room and speak for the agent in it, until the agent leaves.

    The token to join is VISEME_LIVEKIT_TOKEN, or one signed with LIVEKIT_API_KEY and LIVEKIT_API_SECRET. Needs the
    extra livekit.
    """
    from container.rejections import RequestRejected
    from container.voice_agents.avatar_renderer import open_renderer
    from inference.settings import Settings

    try:
        from container.voice_agents.livekit_worker import RoomInvitation, join_token, run_in_room
    except ModuleNotFoundError as err:
        raise InvalidRequest(str(err)) from err
    from livekit.rtc import ConnectError

    settings = Settings.from_env().with_overrides(device=device, precision=precision, threads=threads)
    invitation = RoomInvitation(url, room, identity, agent)
    token = join_token(invitation, settings)

    async def run() -> None:
        renderer = await open_renderer(avatar, server, settings)
        try:
            await run_in_room(renderer, invitation, token)
        finally:
            await renderer.close()

    try:
        asyncio.run(run())
    except ConnectError as err:
        print_error(f"{url}: {err}")
        raise typer.Exit(EXIT_INTERNAL) from err
    except RequestRejected as err:
        print_error(f"{server}: {err} ({err.code})")
        raise typer.Exit(EXIT_INTERNAL) from err
