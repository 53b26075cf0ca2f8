"""Measure an avatar of a LiveKit agent: segments with interrupts at random, through LiveKit's own runner and tracks.

    python -m bench.livekit [--avatar starter] [--segments 40] [--seed 1]

Needs the extra livekit. The agent, the avatar's networks and the runner are in this process; there is no server, so the
tracks are published to a stand-in of a room. Prints one JSON object; times are in milliseconds:

  wrong_reports     of segments: none or several, or with a position that cannot be
  first_frame_ms    from a segment's first audio to its report of having started: median and highest
  finished_ms       from an interrupt to its report
  last_old_frame_ms from an interrupt to the last image of the old speech; at most 0 if none came after it
  first_new_frame_ms  from an interrupt to the first image afterwards, whose mouth is shut
  offset_ms         how much later an image of speech is given to its track than its audio is played: median, and the
                    99th percentile of its absolute value
  fps               images a second

Exits with status 1 if a report is wrong, or an old image comes more than 120 ms after an interrupt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner
from livekit.agents.voice.io import PlaybackFinishedEvent

from container.voice_agents.avatar_renderer import SAMPLE_RATE, AvatarRenderer, open_renderer
from container.voice_agents.livekit import AvatarVideoGenerator, LocalSpeechOutput, make_runner
from container.voice_agents.speech_player import ShownImage

MAX_OLD_MS = 120.0
PIECE = SAMPLE_RATE // 10  # samples that the agent pushes at a time
TOLERANCE_S = 0.011  # of a position after an interrupt: the track plays blocks of 10 ms


class EmptyRoom(rtc.EventEmitter[str]):
    """A room without other participants, in which each track counts as subscribed to."""

    def __init__(self) -> None:
        super().__init__()
        self.local_participant = SimpleNamespace(publish_track=self._publish)

    def isconnected(self) -> bool:
        """Return True: LiveKit's name."""
        return True

    async def _publish(self, track: Any, _options: Any) -> Any:
        async def wait_for_subscription() -> None:
            """Return at once."""

        return SimpleNamespace(track=track, wait_for_subscription=wait_for_subscription)


@dataclass
class SpokenSegment:
    """What was sent and reported of one segment. Times by the monotonic clock."""

    n_samples: int
    begun_s: float
    cleared_s: float | None = None
    started_s: list[float] = field(default_factory=list)
    finished: list[tuple[float, PlaybackFinishedEvent]] = field(default_factory=list)


@dataclass(frozen=True)
class HandedImage:
    """An image that the runner got.

    n_clears: interrupts before it. speech: its index among the images of speech since the last interrupt; None at rest.
    """

    frame: rtc.VideoFrame
    n_clears: int
    speech: int | None


class RecordingGenerator(AvatarVideoGenerator):
    """Records which images it hands out."""

    def __init__(self, renderer: AvatarRenderer) -> None:
        super().__init__(renderer)
        self.images: dict[int, HandedImage] = {}  # by the identity of their frames, which are kept
        self._n_speech: Counter[int] = Counter()  # by the number of interrupts before

    def _video_frame(self, shown: ShownImage) -> rtc.VideoFrame:
        frame = super()._video_frame(shown)
        n_clears = self.n_clears
        speech = self._n_speech[n_clears] if shown.is_speaking else None
        self._n_speech[n_clears] += shown.is_speaking
        self.images[id(frame)] = HandedImage(frame, n_clears, speech)
        return frame

    @property
    def n_clears(self) -> int:
        """Number of interrupts so far."""
        return self._player.generation


@dataclass
class Recording:
    """What the tracks got.

    shown: time of each image. audio_s: when each frame of speech was played, or would have been, by the number of
    interrupts before it: an interrupt drops the image of audio that was handed out 40 ms earlier.
    """

    segments: list[SpokenSegment]
    shown: list[tuple[float, HandedImage]]
    audio_s: defaultdict[int, list[float]]
    clears_s: list[float]

    def offsets_ms(self) -> list[float]:
        """Return how much later than its audio each image of speech was shown."""
        found: list[float] = []
        for at_s, one in self.shown:
            audio_s = self.audio_s[one.n_clears]
            if one.speech is not None and one.speech < len(audio_s):
                found.append(1000 * (at_s - audio_s[one.speech]))
        return found


def main() -> None:
    """Print one JSON object; exit with status 1 if a report is wrong or an image is late."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", default="starter", help="name or folder of a package")
    parser.add_argument("--segments", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    recording = asyncio.run(record(args.avatar, args.segments, random.Random(args.seed)))  # noqa: S311
    results = describe(recording)
    print(json.dumps(results, indent=1))
    raise SystemExit(results["wrong_reports"] > 0 or results["last_old_frame_ms"]["highest"] > MAX_OLD_MS)


async def record(avatar: str, n_segments: int, rng: random.Random) -> Recording:
    """Let an agent speak the segments, interrupting more than half of them."""
    generator = RecordingGenerator(await open_renderer(avatar))
    output = LocalSpeechOutput(sample_rate=SAMPLE_RATE, wait_playback_start=True)
    runner = make_runner(EmptyRoom(), output, generator)  # type: ignore[arg-type]
    recording = Recording([], [], defaultdict(list), [])
    record_events(output, recording)
    record_tracks(runner, generator, recording)
    await runner.start()
    await asyncio.sleep(1.0)
    for _ in range(n_segments):
        segment = SpokenSegment(rng.randint(SAMPLE_RATE // 5, 2 * SAMPLE_RATE), time.monotonic())
        recording.segments.append(segment)
        await speak(output, segment, rng)
        if rng.random() < 0.6:
            await asyncio.sleep(rng.uniform(0, 0.4 + segment.n_samples / SAMPLE_RATE))
            if not segment.finished:
                segment.cleared_s = time.monotonic()
                recording.clears_s.append(segment.cleared_s)
                output.clear_buffer()
        await output.wait_for_playout()
        await asyncio.sleep(rng.uniform(0.2, 0.5))
    await runner.aclose()
    await generator.aclose()
    return recording


async def speak(output: LocalSpeechOutput, segment: SpokenSegment, rng: random.Random) -> None:
    """Push a segment of noise that is loud and quiet as syllables are."""
    noise = np.random.default_rng(rng.randrange(1 << 30)).standard_normal(segment.n_samples)
    envelope = np.abs(np.sin(np.arange(segment.n_samples) * np.pi * 4 / SAMPLE_RATE))
    pcm = (4000 * noise * envelope).clip(-32768, 32767).astype(np.int16)
    for start in range(0, len(pcm), PIECE):
        piece = pcm[start : start + PIECE]
        await output.capture_frame(rtc.AudioFrame(piece.tobytes(), SAMPLE_RATE, 1, len(piece)))
    output.flush()


def record_events(output: LocalSpeechOutput, recording: Recording) -> None:
    """Record reports at the first segment that has not finished."""

    def current() -> SpokenSegment:
        return next((one for one in recording.segments if not one.finished), recording.segments[-1])

    events: rtc.EventEmitter[str] = output  # type: ignore[assignment]  # it is two kinds of emitters
    events.on("playback_started", lambda _event: current().started_s.append(time.monotonic()))
    events.on("playback_finished", lambda event: current().finished.append((time.monotonic(), event)))


def record_tracks(runner: AvatarRunner, generator: RecordingGenerator, recording: Recording) -> None:
    """Record when the runner gives images to their track, and when its audio is due behind what is queued."""
    video, audio = runner._video_source, runner._audio_source
    capture_video, capture_audio = video.capture_frame, audio.capture_frame

    def record_video(frame: rtc.VideoFrame) -> None:
        recording.shown.append((time.monotonic(), generator.images[id(frame)]))
        capture_video(frame)

    async def record_audio(frame: rtc.AudioFrame) -> None:
        recording.audio_s[generator.n_clears].append(time.monotonic() + audio.queued_duration)
        await capture_audio(frame)

    vars(video)["capture_frame"], vars(audio)["capture_frame"] = record_video, record_audio


def describe(recording: Recording) -> dict[str, Any]:
    """Return the figures of the module's docstring."""
    shown = recording.shown
    clears, offsets_ms = list(enumerate(recording.clears_s)), recording.offsets_ms()
    last_old = [max(at_s for at_s, one in shown if one.n_clears == n) - clear_s for n, clear_s in clears]
    first_new = [min(at_s for at_s, one in shown if one.n_clears > n) - clear_s for n, clear_s in clears]
    started = [one.started_s[0] - one.begun_s for one in recording.segments if one.started_s]
    finished = [one.finished[0][0] - one.cleared_s for one in recording.segments if one.cleared_s and one.finished]
    return {
        "segments": len(recording.segments),
        "interrupted": len(recording.clears_s),
        "wrong_reports": sum(is_wrong(one) for one in recording.segments),
        "first_frame_ms": summarize(started),
        "finished_ms": summarize(finished),
        "last_old_frame_ms": summarize(last_old),
        "first_new_frame_ms": summarize(first_new),
        "offset_ms": {
            "median": round(float(np.median(offsets_ms)), 1),
            "p99": round(float(np.percentile(np.abs(offsets_ms), 99)), 1),
        },
        "fps": round((len(shown) - 1) / (shown[-1][0] - shown[0][0]), 2),
    }


def is_wrong(segment: SpokenSegment) -> bool:
    """Return whether a segment's reports disagree with what was sent and when."""
    if len(segment.finished) != 1 or len(segment.started_s) > 1:
        return True
    finished_s, event = segment.finished[0]
    duration_s = segment.n_samples / SAMPLE_RATE
    if not event.interrupted:
        return segment.cleared_s is not None or abs(event.playback_position - duration_s) > 1 / SAMPLE_RATE
    if segment.cleared_s is None or (event.playback_position > 0) != (len(segment.started_s) == 1):
        return True
    # What was played is at most what there was time for, and no more than the segment.
    played_s = finished_s - segment.started_s[0] if segment.started_s else 0.0
    return event.playback_position > min(duration_s, played_s + TOLERANCE_S) + TOLERANCE_S


def summarize(seconds: list[float]) -> dict[str, float]:
    """Return the median and the highest, in milliseconds."""
    return {"median": round(1000 * float(np.median(seconds)), 1), "highest": round(1000 * max(seconds), 1)}


if __name__ == "__main__":
    main()
