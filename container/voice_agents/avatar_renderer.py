"""Where the frames of a voice agent's avatar come from: this process, or a Viseme server."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from container.client import LiveClient, SessionEvent
from container.live.frame_clock import FPS
from container.live.frame_messages import FrameMessage
from container.rejections import RequestRejected
from container.speech_recording import decode_jpeg
from inference.audio.mel import Samples
from inference.settings import Settings

if TYPE_CHECKING:
    from inference.avatar import AvatarPackage, AvatarSession
    from inference.media import MediaLimits

logger = logging.getLogger("viseme.live")
SAMPLE_RATE = 24_000  # of the audio to and from an avatar: the rate of most synthesisers
FRAME_SAMPLES = SAMPLE_RATE // FPS  # 960, 40 ms
REMOTE_HOLD_S = 0.08  # by which speech from a server is held back, so that frames which come late are not missed
RESTART_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # between attempts to open a session that was cut off
PASSING_REJECTIONS = {"closed", "not_ready", "overloaded", "refused"}  # after which another attempt may succeed

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AvatarFrame:
    """A frame of an avatar.

    image_rgb: (H, W, 3) uint8 RGB. pcm: (n,) int16, the audio that the session returned with it. generation: the number
    of interrupts before it.
    """

    image_rgb: Image
    pcm: Samples
    is_speaking: bool
    generation: int


class AvatarRenderer(ABC):
    """A session with an avatar, for mono audio at SAMPLE_RATE. Use it in one event loop; no method but two blocks."""

    width: int
    height: int
    hold_s: float  # to hold back the first frame of speech
    n_sessions: int = 1  # if it rises, all speech that was not played has to be pushed again

    @abstractmethod
    def push_audio(self, pcm: Samples) -> None:
        """Push speech: (n,) int16, any n, at most two minutes before it is played."""

    @abstractmethod
    def flush(self) -> None:
        """End the utterance."""

    @abstractmethod
    def interrupt(self) -> None:
        """Drop all speech; frames of speech that come later have the next generation."""

    @abstractmethod
    async def next_frame(self) -> AvatarFrame:
        """Return the next frame: of speech if one is ready, or else of silence.

        Raises: RequestRejected, TimeoutError or OSError if a server ends the session for good.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the session."""


async def open_renderer(
    avatar: str | AvatarPackage, server: str | None = None, settings: Settings | None = None
) -> AvatarRenderer:
    """Open a session with an avatar.

    avatar: name or folder of a package, or a loaded package, which stays open. server: ws:// or wss:// URL of a Viseme
    server that has the avatar, or sagemaker://ENDPOINT; None for this process, whose models are loaded now.
    Raises: AvatarNotFound and the other errors of `AvatarPackage.load`; RequestRejected, OSError, TimeoutError.
    """
    settings = settings or Settings.from_env()
    if server is None:
        return await asyncio.to_thread(LocalAvatar.open, avatar, settings)
    name, token = avatar if isinstance(avatar, str) else avatar.name, settings.token

    def open_client() -> LiveClient:
        return LiveClient(server, name, sample_rate=SAMPLE_RATE, frames="whole", token=token)

    renderer = RemoteAvatar(open_client, settings.media_limits)
    await renderer.start()
    return renderer


class LocalAvatar(AvatarRenderer):
    """An avatar in this process. A frame is rendered when it is taken, as fast as the machine can."""

    hold_s = 0.0

    def __init__(self, package: AvatarPackage, *, owns_package: bool = False) -> None:
        """Start a session. Raises: WeightsNotFound if the package has no audio encoder."""
        self._package, self._owns_package = package, owns_package
        self.width, self.height = package.width, package.height
        self._session: AvatarSession = package.session(SAMPLE_RATE)
        self._thread = ThreadPoolExecutor(1, "viseme-avatar")

    @classmethod
    def open(cls, avatar: str | AvatarPackage, settings: Settings) -> LocalAvatar:
        """Load the package if it is not loaded. Raises: the errors of `AvatarPackage.load`."""
        from inference.avatar import AvatarPackage
        from inference.backends.threads import limit_threads

        if isinstance(avatar, AvatarPackage):
            return cls(avatar)
        limit_threads(settings.wanted_threads)
        # Lip reading and lip sync have int8 weights; avatars do not.
        precision = "auto" if settings.precision == "int8" else settings.precision
        return cls(AvatarPackage.load(avatar, settings.device, precision, settings), owns_package=True)

    def push_audio(self, pcm: Samples) -> None:
        self._session.push_audio(pcm)

    def flush(self) -> None:
        self._session.flush()

    def interrupt(self) -> None:
        self._session.interrupt()

    async def next_frame(self) -> AvatarFrame:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._render)

    def _render(self) -> AvatarFrame:
        import cv2

        timed = next(self._session.frames(), None) or self._session.idle()
        image = cv2.cvtColor(self._package.compose_frame(timed), cv2.COLOR_BGR2RGB)
        return AvatarFrame(np.asarray(image, np.uint8), timed.pcm, timed.is_speaking, timed.generation)

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        self._session.close()
        if self._owns_package:
            self._package.close()


class RemoteAvatar(AvatarRenderer):
    """An avatar on a Viseme server, which produces 25 frames a second. A session that is cut off is opened again."""

    hold_s = REMOTE_HOLD_S

    def __init__(self, open_client: Callable[[], LiveClient], limits: MediaLimits) -> None:
        """open_client: opens a session with whole frames at SAMPLE_RATE. Call `start` before anything else."""
        self._open_client, self._limits = open_client, limits
        self._session: RemoteSession | None = None
        self._n_interrupts = self._n_before = 0  # in all, and before the session was opened

    async def start(self) -> None:
        """Open the session. Raises: RequestRejected, OSError, TimeoutError."""
        client = await asyncio.to_thread(self._open_client)
        self.width, self.height = client.ready.fields["width"], client.ready.fields["height"]
        self._session, self._n_before = RemoteSession(client), self._n_interrupts

    def push_audio(self, pcm: Samples) -> None:
        if self._session is not None:
            self._session.submit(lambda client: client.send(pcm))

    def flush(self) -> None:
        if self._session is not None:
            self._session.submit(LiveClient.flush)

    def interrupt(self) -> None:
        self._n_interrupts += 1
        if self._session is not None:
            self._session.messages.clear()
            self._session.submit(LiveClient.interrupt)

    async def next_frame(self) -> AvatarFrame:
        message = await self._next_message()
        image = await asyncio.to_thread(self._decode, message.jpeg)
        pcm = np.frombuffer(message.pcm, "<i2").astype(np.int16, copy=False)
        return AvatarFrame(image, pcm, message.is_speaking, message.generation + self._n_before)

    async def _next_message(self) -> FrameMessage:
        while True:
            if self._session is None:
                raise ConnectionError("the session with the avatar is closed")
            try:
                return await self._session.next_message()
            except (RequestRejected, OSError, TimeoutError) as err:
                await self._restart(err)

    async def _restart(self, reason: BaseException) -> None:
        """Open another session. Raises: what prevents it."""
        logger.warning("an avatar's session is opened again", extra={"reason": str(reason)})
        session, self._session = self._session, None  # what is pushed meanwhile is pushed again
        if session is not None:
            await session.close()
        for wait_s in (*RESTART_WAITS_S, None):
            try:
                await self.start()
            except (RequestRejected, OSError, TimeoutError) as err:
                is_final = isinstance(err, RequestRejected) and err.code not in PASSING_REJECTIONS
                if wait_s is None or is_final:
                    raise
                await asyncio.sleep(wait_s)
            else:
                self.n_sessions += 1
                return

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _decode(self, jpeg: bytes) -> Image:
        return np.ascontiguousarray(decode_jpeg(jpeg, self._limits)[:, :, ::-1])


class RemoteSession:
    """A client whose blocking calls are made in threads. messages: frames that were received and not taken."""

    def __init__(self, client: LiveClient) -> None:
        """Receive from the client. Call it in the event loop."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self.messages: deque[FrameMessage] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._is_closing = False
        self._sender = ThreadPoolExecutor(1, "viseme-avatar-send")  # one, so that messages keep their order
        self._receiver = threading.Thread(target=self._receive, name="viseme-avatar-receive", daemon=True)
        self._receiver.start()

    def submit(self, send: Callable[[LiveClient], None]) -> None:
        """Call a function of the client behind all that were submitted before."""
        self._sender.submit(send, self._client).add_done_callback(self._check_sent)

    async def next_message(self) -> FrameMessage:
        """Return the next frame. Raises: RequestRejected, OSError, TimeoutError if the session has ended."""
        while not self.messages:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self.messages.popleft()

    async def close(self) -> None:
        """End the session."""
        self._is_closing = True
        self._sender.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._client.close)
        await asyncio.to_thread(self._receiver.join)

    def _check_sent(self, sent: Future[None]) -> None:
        if not sent.cancelled() and (err := sent.exception()) is not None:
            self._call_in_loop(self._fail, err)

    def _receive(self) -> None:
        """Pass on frames until the session ends; run it in a thread of its own."""
        try:
            while True:
                message = self._client.receive()
                if not isinstance(message, SessionEvent):
                    self._call_in_loop(self._add, message)
        except Exception as err:  # noqa: BLE001 - whatever ended the session is raised by `next_message`
            self._call_in_loop(self._fail, err)

    def _call_in_loop(self, function: Callable[..., None], *args: object) -> None:
        if not self._is_closing:
            self._loop.call_soon_threadsafe(function, *args)

    def _add(self, message: FrameMessage) -> None:
        """Queue a frame, in place of a silent one that was not taken: a pause must not delay the speech after it."""
        last = self.messages[-1] if self.messages else None
        if last is not None and not last.is_speaking and len(last.pcm) == 2 * FRAME_SAMPLES:
            self.messages.pop()
        self.messages.append(message)
        self._changed.set()

    def _fail(self, err: BaseException) -> None:
        self._error = self._error or err
        self._changed.set()
