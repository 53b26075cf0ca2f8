"""Measure how soon a live avatar speaks a text.

    python -m bench.say [--avatar FOLDER] [--rounds 10] [--language en]

Opens a WebSocket session with a server that keeps real time, and sends texts of one and of several sentences, each once
the one before is spoken. VISEME_TTS chooses what speaks. Without --avatar it measures the starter avatar. Prints one
JSON object: milliseconds from the text to the first frame of speech, median and longest, by the length of the text, and
those of the synthesiser alone for the first part of the text.

Exits with status 1 if a first frame takes longer than 600 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from websockets.sync.client import ClientConnection, connect

from bench.live import provide_avatar, running_server
from bench.live_server import NAME
from container.live.frame_messages import unpack_frame
from container.speech.load import load_synthesizer
from container.speech.requests import SpeechRequest
from container.speech.spoken_parts import speak_parts
from inference.settings import Settings

MAX_FIRST_MS = 600.0
RATE = 16_000
TEXTS = {
    "a word": "Hello.",
    "a sentence": "Good morning, how can I help you today?",
    "a paragraph": "Thank you for calling. I have looked at your order, and it left our house this morning. It is "
    "expected to arrive tomorrow between nine and eleven. If no one is at home, the driver leaves it with a neighbour.",
}


def main() -> None:
    """Print one JSON object; exit with status 1 if a text is spoken too late."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", type=Path, help="folder of a package")
    parser.add_argument("--rounds", type=int, default=10, help="texts of each length")
    parser.add_argument("--language", default="en")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        provide_avatar(Path(folder), args.avatar)
        with running_server(Path(folder), is_paced=True) as server:
            url = f"ws://127.0.0.1:{server.port}/v1/avatars/{NAME}/session?sample_rate={RATE}"
            with connect(url, proxy=None, compression=None, max_size=None) as socket:
                time_text(socket, TEXTS["a word"], args.language)  # loads what speaks
                first_ms = {
                    name: [time_text(socket, text, args.language) for _ in range(args.rounds)]
                    for name, text in TEXTS.items()
                }
    speech_ms = {name: asyncio.run(time_speech(text, args.language, args.rounds)) for name, text in TEXTS.items()}
    results = {"first_frame_ms": first_ms, "synthesis_ms": speech_ms}
    print(
        json.dumps({key: {name: summarize(ms) for name, ms in each.items()} for key, each in results.items()}, indent=1)
    )
    raise SystemExit(max(map(max, first_ms.values())) > MAX_FIRST_MS)


def time_text(socket: ClientConnection, text: str, language: str) -> float:
    """Have a text spoken to its end; return the milliseconds until its first frame of speech arrived."""
    sent, first = time.perf_counter(), None
    socket.send(json.dumps({"type": "say", "text": text, "language": language}))
    while True:
        message = socket.recv()
        if isinstance(message, bytes):
            if first is None and unpack_frame(message).is_speaking:
                first = time.perf_counter()
            continue
        event = json.loads(message)
        if event["type"] == "error":
            raise RuntimeError(f"{event['code']}: {event['message']}")
        if event["type"] == "speech_finished" and first is not None:
            return (first - sent) * 1000


async def time_speech(text: str, language: str, n_rounds: int) -> list[float]:
    """Return the milliseconds until the first part of a text is synthesised, of each round after the first."""
    synthesizer, times_ms = load_synthesizer(Settings.from_env()), []
    for _ in range(n_rounds + 1):
        started = time.perf_counter()
        async for _samples in speak_parts(synthesizer, SpeechRequest(text=text, language=language), RATE):  # type: ignore[arg-type]
            times_ms.append((time.perf_counter() - started) * 1000)
            break
    return times_ms[1:]


def summarize(times_ms: list[float]) -> dict[str, Any]:
    return {"median": round(median(times_ms)), "longest": round(max(times_ms))}


if __name__ == "__main__":
    main()
