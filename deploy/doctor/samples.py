"""The requests that the checks send: the shipped clip and speech, as they are and in other lengths."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import Any

from deploy.doctor.http_calls import Call, Reply, post
from deploy.errors import RequestFailed
from deploy.smoke_test import CLIP, CLIP_FRAMES, CLIP_WORDS, JSON, MP4_BRAND, SPEECH, SPEECH_FRAMES

MP4 = "video/mp4"
STARTER = "starter"  # the name of the bundled weights, which read the clip's words


def read_clip(accept: str = JSON, n_bytes: int | None = None) -> Call:
    """Return a request to read the clip. n_bytes: pad its file with a free box to that size."""
    return post(clip_of(n_bytes), MP4, Accept=accept)


def clip_of(n_bytes: int | None) -> bytes:
    """Return the clip, in n_bytes. An MP4 may end with a box of type "free", which decoders skip."""
    clip = CLIP.read_bytes()
    if n_bytes is None:
        return clip
    n_free = n_bytes - len(clip)
    return clip + n_free.to_bytes(4, "big") + b"free" + bytes(n_free - 8)


def sync_clip(n_repeats: int = 1, accept: str = JSON) -> Call:
    """Return a request to sync the clip's face to the speech, which lasts one second, repeated."""
    request = {"task": "lipsync", "face": as_base64(CLIP.read_bytes()), "audio": as_base64(repeat_speech(n_repeats))}
    return post(json.dumps(request).encode(), JSON, Accept=accept)


def repeat_speech(n_repeats: int) -> bytes:
    """Return the speech as a WAV file, several times over."""
    with wave.open(str(SPEECH)) as source:
        parameters, samples = source.getparams(), source.readframes(source.getnframes())
    target = io.BytesIO()
    with wave.open(target, "wb") as repeated:
        repeated.setparams(parameters)
        repeated.writeframes(samples * n_repeats)
    return target.getvalue()


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def describe_reading(reply: Reply) -> str:
    """Return what was read. Raises: RequestFailed if the answer is not that of the clip."""
    answer = object_of(reply)
    text, n_frames = answer.get("text"), answer.get("num_frames")
    if not isinstance(text, str) or not isinstance(n_frames, int):
        raise RequestFailed(f'expected "text" and "num_frames", found {reply.quote()}')
    if n_frames != CLIP_FRAMES:
        raise RequestFailed(f"num_frames is {n_frames}; the clip has {CLIP_FRAMES}")
    return text


def weights_of(reply: Reply) -> str | None:
    """Return the name of the weights in an answer; None if it has none."""
    model = object_of(reply).get("model")
    name = model.get("weights") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def is_as_spoken(text: str) -> bool:
    return text.upper() == CLIP_WORDS


def describe_sync(reply: Reply, n_repeats: int = 1) -> str:
    """Return what was made. Raises: RequestFailed if the answer is not a video of the speech."""
    outputs = object_of(reply).get("outputs")
    output = outputs[0] if isinstance(outputs, list) and outputs and isinstance(outputs[0], dict) else {}
    n_frames, video = output.get("num_frames"), output.get("video")
    if n_frames != SPEECH_FRAMES * n_repeats:
        raise RequestFailed(f"num_frames is {n_frames!r}; expected {SPEECH_FRAMES * n_repeats}")
    if not isinstance(video, str):
        raise RequestFailed('the answer has no "video"')
    try:
        decoded = base64.b64decode(video, validate=True)
    except ValueError as err:
        raise RequestFailed(f"the video is no base64: {err}") from err
    if not is_mp4(decoded):
        raise RequestFailed("the video is no MP4")
    return f"{n_frames} frames with {output.get('model')}, a video of {len(decoded)} bytes"


def is_mp4(data: bytes) -> bool:
    return data[4:8] == MP4_BRAND


def object_of(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of a successful answer. Raises: RequestFailed, with what was found."""
    if reply.status != 200:
        raise RequestFailed(reply.quote())
    try:
        found = reply.json()
    except ValueError as err:
        raise RequestFailed(f"the answer is no JSON: {reply.quote()}") from err
    if not isinstance(found, dict):
        raise RequestFailed(f"the answer is no JSON object: {reply.quote()}")
    if found.get("status") not in (None, "success"):
        raise RequestFailed(f"status 200 with {reply.quote().removeprefix('200 ')}")
    return found
