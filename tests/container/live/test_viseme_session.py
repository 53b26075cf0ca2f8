"""The visemes of live sessions, in step with their frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from container.live.frame_encoder import FrameEncoder
from container.live.frame_messages import PATCH
from container.live.session import take_frame
from container.live.viseme_session import REST, VisemeAvatarSession
from inference.avatar import AvatarPackage
from inference.visemes import BLENDSHAPES, OCULUS_VISEMES, VisemeStream
from inference.visemes.network import load_network

RATE = 16_000


def glide(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (9000 * np.sin(2 * np.pi * (180 + 90 * np.sin(7 * t)) * t) * (np.sin(11 * t) > -0.5)).astype(np.int16)


def take_speech(session: VisemeAvatarSession) -> list:
    return list(session.frames())


def expected_visemes(samples: np.ndarray) -> list[str]:
    stream = VisemeStream(load_network())
    return [one.viseme for update in (stream.push(samples), stream.finish()) for one in update.frames]


def test_frames_have_the_visemes_of_their_own_audio(avatar_package: AvatarPackage):
    session, speech = VisemeAvatarSession(avatar_package, RATE), glide(1.2)
    found = []
    for start in range(0, len(speech), 1000):  # as it arrives: frames are taken as soon as they are ready
        session.push_audio(speech[start : start + 1000])
        found += take_speech(session)
    session.flush()
    found += take_speech(session)
    assert [one.frame for one in found] == list(range(30))
    assert [one.visemes["viseme"] for one in found] == expected_visemes(speech)
    assert all(tuple(one.visemes["weights"]) == OCULUS_VISEMES for one in found)
    assert all(tuple(one.visemes["blendshapes"]) == BLENDSHAPES for one in found)


def test_frames_of_an_avatar_that_looks_less_far_ahead_wait_for_their_visemes(avatar_package: AvatarPackage):
    manifest = avatar_package._manifest.model_copy(update={"look_ahead_windows": 1})
    session, speech, found = VisemeAvatarSession(AvatarPackage(manifest, avatar_package._parts), RATE), glide(1.2), []
    for start in range(0, len(speech), 160):
        session.push_audio(speech[start : start + 160])
        found += take_speech(session)
    session.flush()
    found += take_speech(session)
    assert [one.visemes["viseme"] for one in found] == expected_visemes(speech)


def test_rest_is_reported_once_after_speech(avatar_package: AvatarPackage):
    session = VisemeAvatarSession(avatar_package, RATE)
    assert take_frame(session).visemes is None
    session.push_audio(glide(0.2))
    session.flush()
    assert len(take_speech(session)) == 5
    assert take_frame(session).visemes == REST
    assert take_frame(session).visemes is None


def test_rest_is_reported_after_an_interrupt(avatar_package: AvatarPackage):
    """Also if the frame that reported it was dropped by the interrupt."""
    session = VisemeAvatarSession(avatar_package, RATE)
    session.push_audio(glide(0.2))
    session.flush()
    assert len(take_speech(session)) == 5
    assert take_frame(session).visemes == REST
    session.interrupt()
    assert take_frame(session).visemes == REST
    assert take_frame(session).visemes is None


def test_an_interrupt_drops_the_visemes_of_what_is_not_spoken(avatar_package: AvatarPackage):
    session = VisemeAvatarSession(avatar_package, RATE)
    session.push_audio(glide(2.0))
    for _ in range(3):
        next(session.frames())
    session.interrupt()
    second = glide(0.6)[::-1].copy()
    session.push_audio(second)
    session.flush()
    assert [one.visemes["viseme"] for one in take_speech(session)] == expected_visemes(second)


def test_each_utterance_has_its_own(avatar_package: AvatarPackage):
    session, first, second = VisemeAvatarSession(avatar_package, 24_000), glide(0.5, 24_000), glide(0.3, 24_000)
    for one in (first, second):
        session.push_audio(one)
        session.flush()
    found = take_speech(session)
    assert len(found) == 13 + 8
    # The last frame may be shorter than a step of the network: then it has none.
    assert all(one.visemes is not None for one in found[:-1])


def test_a_message_carries_its_event(avatar_package: AvatarPackage):
    session = VisemeAvatarSession(avatar_package, RATE)
    session.push_audio(glide(0.2))
    session.flush()
    message = FrameEncoder(avatar_package).make_message(take_frame(session), PATCH)
    event = json.loads(message.viseme_event or "")
    assert (event["type"], event["frame"], event["pts_ms"], event["generation"]) == ("visemes", 0, 0, 0)
    assert event["viseme"] in OCULUS_VISEMES
    assert sum(event["weights"].values()) == pytest.approx(1, abs=0.01)
