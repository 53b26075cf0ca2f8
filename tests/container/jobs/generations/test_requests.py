"""Requests of generations: what is accepted, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from container.http.generation_errors import INVALID_INPUT, GenerationRejected
from container.jobs.generations.requests import (
    AUDIO_MISSING,
    INVALID_SEGMENTS,
    INVALID_SPEAKER,
    TOO_MANY_VISUAL,
    UNSUPPORTED_MODEL,
    VIDEO_MISSING,
    GenerationRequest,
)

MODELS = ("small", "large")
VIDEO = {"type": "video", "url": "https://media.example/face.mp4"}
AUDIO = {"type": "audio", "url": "https://media.example/a.wav"}
IMAGE = {"type": "image", "url": "https://media.example/face.png"}
A, B = AUDIO | {"refId": "a"}, {"type": "audio", "url": "https://media.example/b.wav", "refId": "b"}


def parse(**fields: Any) -> GenerationRequest:
    return GenerationRequest.parse({"model": "small", "input": [VIDEO, AUDIO]} | fields, MODELS)


def segment(start_s: float, end_s: float, ref: str, **cut: float) -> dict[str, Any]:
    return {"startTime": start_s, "endTime": end_s, "audioInput": {"refId": ref} | cut}


def test_a_video_and_an_audio_become_a_lip_sync():
    assert parse().job_fields() == {
        "task": "lipsync",
        "models": ["small"],
        "face_url": VIDEO["url"],
        "audio_url": AUDIO["url"],
    }


def test_fields_that_are_null_are_absent():
    fields = parse(options={"sync_mode": None, "temperature": None}, segments=None, webhookUrl=None).job_fields()
    assert fields == parse().job_fields()


@pytest.mark.parametrize("name", ["lipsync-2", "lipsync-2-pro", "lipsync-1.9.0-beta"])
def test_general_models_of_sync_so_are_the_first_of_this_server(name: str):
    request = parse(model=name)
    assert request.job_fields()["models"] == ["small"]
    assert request.record()["model"] == "small"


def test_a_checkpoint_is_chosen_by_its_name():
    assert parse(model="large").job_fields()["models"] == ["large"]


@pytest.mark.parametrize("mode", ["bounce", "loop", "cut_off", "silence", "remap"])
def test_sync_modes_are_passed_on(mode: str):
    assert parse(options={"sync_mode": mode}).job_fields()["sync_mode"] == mode


def test_an_image_has_no_length_that_a_mode_could_fit():
    fields = parse(input=[IMAGE, AUDIO], options={"sync_mode": "loop"}).job_fields()
    assert fields["face_url"] == IMAGE["url"]
    assert "sync_mode" not in fields


@pytest.mark.parametrize(
    ("speaker", "expected"),
    [
        ({"auto_detect": True}, {"mode": "auto"}),
        ({"auto_detect": False}, None),
        ({"frame_number": 3, "coordinates": [10, 20]}, {"frame": 3, "point": [10, 20]}),
        ({"coordinates": [10, 20.5]}, {"frame": 0, "point": [10, 20.5]}),
        ({"bounding_boxes": [[1, 2, 3, 4], None]}, {"boxes": [[1, 2, 3, 4], None]}),
    ],
)
def test_the_speaker_is_chosen(speaker: dict[str, Any], expected: dict[str, Any] | None):
    assert parse(options={"active_speaker_detection": speaker}).job_fields().get("active_speaker") == expected


def test_segments_name_their_audio_by_its_place():
    segments = [segment(2, 4.5, "a", startTime=1, endTime=3), segment(0, 2, "b")]
    fields = parse(input=[A, VIDEO, B], segments=segments).job_fields()
    assert fields["audio_urls"] == [A["url"], B["url"]]
    assert fields["segments"] == [
        {"start_s": 2, "end_s": 4.5, "audio": 0, "audio_start_s": 1, "audio_end_s": 3},
        {"start_s": 0, "end_s": 2, "audio": 1, "audio_start_s": 0, "audio_end_s": None},
    ]
    assert "audio_url" not in fields


def test_the_record_repeats_what_was_requested():
    segments = [segment(0, 2, "a")]
    record = parse(input=[VIDEO, A], segments=segments, outputFileName="one_2-3").record()
    assert record == {"model": "small", "input": [VIDEO, A], "segments": segments, "outputFileName": "one_2-3"}


REJECTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a model of others": ({"model": "react-1"}, UNSUPPORTED_MODEL, "models of this server: small, large, lipsync-2"),
    "no model": ({"model": None}, INVALID_INPUT, '"model"'),
    "no input": ({"input": []}, INVALID_INPUT, '"input"'),
    "an input that is no list": ({"input": {"type": "video"}}, INVALID_INPUT, '"input"'),
    "no video": ({"input": [AUDIO]}, VIDEO_MISSING, "expected one video or image"),
    "no audio": ({"input": [VIDEO]}, AUDIO_MISSING, "expected at least one"),
    "two videos": ({"input": [VIDEO, IMAGE, AUDIO]}, TOO_MANY_VISUAL, "2 videos and images"),
    "a video without url": ({"input": [{"type": "video"}, AUDIO]}, VIDEO_MISSING, r'input\[0\]: no "url"'),
    "an audio without url": ({"input": [VIDEO, {"type": "audio"}]}, AUDIO_MISSING, r'input\[1\]: no "url"'),
    "an asset": ({"input": [{"type": "video", "assetId": "x"}, AUDIO]}, INVALID_INPUT, '"assetId": assets are not'),
    "text": (
        {"input": [VIDEO, {"type": "text", "provider": {"name": "elevenlabs"}}]},
        INVALID_INPUT,
        "text-to-speech is not offered",
    ),
    "frames": ({"input": [VIDEO | {"segments_frames": [[0, 9]]}, AUDIO]}, INVALID_INPUT, '"segments_frames": depr'),
    "dubbing": ({"dubParams": {"targetLang": "fr"}}, INVALID_INPUT, '"dubParams": translation is not offered'),
    "a mode of models": ({"options": {"model_mode": "face"}}, INVALID_INPUT, '"model_mode": not offered'),
    "an emotion": ({"options": {"prompt": "happy"}}, INVALID_INPUT, '"prompt": not offered'),
    "a temperature": ({"options": {"temperature": 0.5}}, INVALID_INPUT, '"temperature": not offered'),
    "occlusion": ({"options": {"occlusion_detection_enabled": True}}, INVALID_INPUT, "expected false"),
    "boxes at a URL": (
        {"options": {"active_speaker_detection": {"bounding_boxes_url": "https://a.example"}}},
        INVALID_INPUT,
        '"bounding_boxes_url": not offered',
    ),
    "an unknown option": ({"options": {"zoom": 1}}, INVALID_INPUT, '"zoom": no such field; known: sync_mode'),
    "an unknown field": ({"callback": "x"}, INVALID_INPUT, '"callback": no such field'),
    "a wrong mode": ({"options": {"sync_mode": "stretch"}}, INVALID_INPUT, "\"sync_mode\": found 'stretch'"),
    "a file name": ({"outputFileName": "../a"}, INVALID_INPUT, '"outputFileName"'),
    "a file name with a line": ({"outputFileName": "a\n"}, INVALID_INPUT, '"outputFileName"'),
    "two ways": (
        {"options": {"active_speaker_detection": {"auto_detect": True, "coordinates": [1, 2]}}},
        INVALID_SPEAKER,
        '"auto_detect" and "coordinates"; expected one',
    ),
    "a frame alone": ({"options": {"active_speaker_detection": {"frame_number": 1}}}, INVALID_SPEAKER, "coordinates"),
    "an empty box": (
        {"options": {"active_speaker_detection": {"bounding_boxes": [[3, 0, 3, 4]]}}},
        INVALID_SPEAKER,
        "expected x1 < x2",
    ),
    "two audios": ({"input": [VIDEO, A, B]}, INVALID_SEGMENTS, '2 audios; expected "segments"'),
    "no refId": ({"segments": [segment(0, 1, "a")]}, INVALID_SEGMENTS, '"refId" of its own'),
    "a refId twice": ({"input": [VIDEO, A, A], "segments": [segment(0, 1, "a")]}, INVALID_SEGMENTS, "of its own"),
    "another refId": ({"input": [VIDEO, A], "segments": [segment(0, 1, "c")]}, INVALID_SEGMENTS, "refId 'c'"),
    "an unused audio": ({"input": [VIDEO, A, B], "segments": [segment(0, 1, "a")]}, INVALID_SEGMENTS, "audio 'b'"),
    "an empty segment": ({"input": [VIDEO, A], "segments": [segment(1, 1, "a")]}, INVALID_SEGMENTS, "a later end"),
    "an overlap": (
        {"input": [VIDEO, A], "segments": [segment(1, 3, "a"), segment(0, 2, "a")]},
        INVALID_SEGMENTS,
        "overlap at 1 s",
    ),
    "half a cut": ({"input": [VIDEO, A], "segments": [segment(0, 1, "a", startTime=1)]}, INVALID_SEGMENTS, "together"),
    "segments of an image": ({"input": [IMAGE, A], "segments": [segment(0, 1, "a")]}, INVALID_SEGMENTS, "an image"),
    "a speaker in an image": (
        {"input": [IMAGE, AUDIO], "options": {"active_speaker_detection": {"auto_detect": True}}},
        INVALID_SPEAKER,
        'expected "coordinates" in frame 0',
    ),
    "options of a segment": (
        {"input": [VIDEO, A], "segments": [segment(0, 1, "a") | {"optionsOverride": {}}]},
        INVALID_INPUT,
        r'segments\[0\]: "optionsOverride": not offered',
    ),
    "a time that is negative": ({"input": [VIDEO, A], "segments": [segment(-1, 1, "a")]}, INVALID_INPUT, '"startTime"'),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_what_is_not_offered_is_refused_by_name(kind: str):
    fields, code, words = REJECTED[kind]
    with pytest.raises(GenerationRejected, match=words) as raised:
        parse(**fields)
    assert raised.value.code == code


def test_a_server_without_weights_says_so():
    with pytest.raises(GenerationRejected, match="no lip-sync weights"):
        GenerationRequest.parse({"model": "lipsync-2", "input": [VIDEO, AUDIO]}, ())


def test_occlusion_detection_may_be_off():
    assert parse(options={"occlusion_detection_enabled": False}).job_fields() == parse().job_fields()
