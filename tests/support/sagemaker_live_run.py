"""Sessions over SageMaker, in the environment with AWS's HTTP/2 SDK. Usage: python sagemaker_live_run.py SCENARIO.

Prints what it found as JSON. The stand-in's address and certificate are in the environment, as for AWS's own tools.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from container.client import LiveClient, SessionEvent

RATE = 16_000
URL = "sagemaker://viseme?region=eu-west-1"


def noise(n_samples: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(n_samples) * 5000).astype(np.int16)


def speak() -> dict[str, Any]:
    """Speak one second twice, and interrupt the second."""
    pcm = noise(RATE)
    with LiveClient(URL, "drawn", frames="whole") as client:
        frames = list(client.speak(pcm))
        spoken = np.concatenate([np.frombuffer(frame.pcm, "<i2") for frame in frames])
        interrupted = 0
        for _ in client.speak(pcm):
            interrupted += 1
            if interrupted == 2:
                client.interrupt()
        avatar = client.ready.fields["avatar"]
    return {
        "avatar": avatar,
        "is_same_audio": bool(np.array_equal(spoken[:RATE], pcm)),
        "n_frames": len(frames),
        "n_interrupted": interrupted,
        "largest": max(len(frame.jpeg) for frame in frames),
    }


def wait() -> dict[str, Any]:
    """Receive frames, each time first for less than a message takes, until five such waits were in vain."""
    n_timeouts, numbers = 0, []
    with LiveClient(URL, "drawn") as client:
        while n_timeouts < 5:
            client._timeout_s = 0.0
            try:
                message = client.receive()  # on a busy machine one may be there already
            except TimeoutError:
                n_timeouts += 1
                client._timeout_s = 60.0
                message = client.receive()
            if not isinstance(message, SessionEvent):
                numbers.append(message.frame)
    return {"numbers": numbers, "n_timeouts": n_timeouts}


def errors() -> dict[str, Any]:
    found = {}
    for name, avatar in (("viseme", "nobody"), ("broken", "drawn")):
        try:
            LiveClient(f"sagemaker://{name}?region=eu-west-1", avatar)
        except Exception as err:  # noqa: BLE001 - the test compares it
            found[f"{name} {avatar}"] = describe(err)
    with LiveClient(URL, "drawn") as client:
        pass
    try:
        client.receive()
    except Exception as err:  # noqa: BLE001
        found["closed"] = describe(err)
    return found


def connect() -> dict[str, Any]:
    try:
        LiveClient(URL, "drawn")
    except Exception as err:  # noqa: BLE001
        return {"error": describe(err)}
    return {"error": None}


def describe(err: Exception) -> list[str]:
    return [type(err).__name__, str(getattr(err, "code", "")), str(err)]


if __name__ == "__main__":
    scenarios = {one.__name__: one for one in (speak, wait, errors, connect)}
    print(json.dumps(scenarios[sys.argv[1]]()))
