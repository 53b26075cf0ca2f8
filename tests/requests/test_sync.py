from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from inference.errors import InvalidRequest, UnsupportedContentType
from inference.lip_sync import PARITY, ActiveSpeaker, Pads, SyncOptions, SyncSegment
from inference.lip_sync.segments import MAX_SEGMENTS
from inference.media_types import SYNC_TYPES, AcceptHeader
from inference.requests import (
    JSON,
    MP4,
    OPTIONS_HEADER,
    S3Folder,
    S3Object,
    SyncRequest,
    UrlObject,
    parse_generate_request,
    parse_job_request,
    parse_request,
)

FACE, AUDIO = base64.b64encode(b"face").decode(), base64.b64encode(b"audio").decode()
INLINE = {"task": "lipsync", "face": FACE, "audio": AUDIO}
BY_S3 = {"task": "lipsync", "s3_bucket": "clips", "s3_video_key": "a.png", "s3_audio_key": "b.wav"}


def parse(fields: dict[str, Any], header: str = "") -> SyncRequest:
    found = parse_request(json.dumps(fields).encode(), JSON, {OPTIONS_HEADER: header})
    assert isinstance(found, SyncRequest)
    return found


def test_everything_by_s3():
    fields = BY_S3 | {
        "models": ["wav2lip", "wav2lip_gan"],
        "enhance": "none",
        "fps": 25,
        "resize_factor": 2,
        "pads": [1, 2, 3, 4],
        "nosmooth": False,
        "s3_output_prefix": "/results/films",
        "presigned": True,
    }
    request = parse(fields)
    options = SyncOptions(fps=25, resize_factor=2, pads=Pads(1, 2, 3, 4))
    assert (request.face, request.audio) == (S3Object("clips", "a.png"), S3Object("clips", "b.wav"))
    assert (request.options, request.models) == (options, ("wav2lip", "wav2lip_gan"))
    assert (request.output, request.is_presigned) == (S3Folder("clips", "results/films/"), True)


def test_a_sync_mode_is_an_option():
    assert parse(INLINE | {"sync_mode": "cut_off"}).options == SyncOptions(sync_mode="cut_off")
    with pytest.raises(InvalidRequest, match=r'"sync_mode": found .stretch.; .*loop.*remap'):
        parse(INLINE | {"sync_mode": "stretch"})


def test_segments_speak_several_audio_files():
    segments = [{"start_s": 1, "end_s": 2, "audio": 1}, {"start_s": 3, "audio_start_s": 0.5, "audio_end_s": 1}]
    request = parse({"task": "lipsync", "face": FACE, "audios": [AUDIO, FACE], "segments": segments})
    assert request.options.segments == (SyncSegment(1, 2, 1), SyncSegment(3, None, 0, 0.5, 1))
    assert (request.audios, request.audio, request.more_audio) == ((b"audio", b"face"), b"audio", (b"face",))
    keys = {"task": "lipsync", "s3_bucket": "clips", "s3_video_key": "a.mp4", "s3_audio_keys": ["b.wav", "c.wav"]}
    assert parse(keys | {"segments": segments}).audios == (S3Object("clips", "b.wav"), S3Object("clips", "c.wav"))
    urls = ["https://a.example/b.wav", "https://a.example/c.wav"]
    body = json.dumps({"task": "lipsync", "face": FACE, "audio_urls": urls, "segments": segments}).encode()
    job = parse_job_request(body, JSON, {})
    assert isinstance(job, SyncRequest)
    assert job.audios == tuple(UrlObject(url) for url in urls)
    with pytest.raises(InvalidRequest, match='"audio_url": only jobs fetch URLs'):
        parse_request(body, JSON, {})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"audios": [AUDIO, AUDIO]}, "2 audio files without segments"),
        ({"audios": [AUDIO], "audio": AUDIO}, 'found "audio", "audios"; expected one of them'),
        ({"s3_audio_keys": ["a"]}, '"s3_bucket" and "s3_audio_keys" go together'),
        (
            {"audio": AUDIO, "segments": [{"start_s": 1, "audio": 1}]},
            "segment 0: audio 1, counted from 0; found 1 audio",
        ),
        ({"audio": AUDIO, "segments": [{"start_s": 2, "end_s": 1}]}, "segment 0: ends at 1 s, but starts at 2 s"),
        ({"audio": AUDIO, "segments": [{"end_s": 1}]}, '"segments": found .*; Field required'),
        ({"audios": [AUDIO] * 21}, '"audios"'),
    ],
)
def test_audio_files_that_do_not_fit_are_named(fields: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        parse({"task": "lipsync", "face": FACE} | fields)


@pytest.mark.parametrize(
    ("fields", "speaker"),
    [
        ({"mode": "auto"}, ActiveSpeaker("auto")),
        ({"frame": 3, "point": [10, 20.5]}, ActiveSpeaker(frame=3, point=(10, 20.5))),
        ({"boxes": [[1, 2, 3, 4], None]}, ActiveSpeaker(boxes=((1, 2, 3, 4), None))),
    ],
)
def test_an_active_speaker(fields: dict[str, Any], speaker: ActiveSpeaker):
    assert parse(INLINE | {"active_speaker": fields}).options.active_speaker == speaker


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "loud"}, '"active_speaker": found .loud.'),
        ({"frame": 1}, "active_speaker: frame and point go together"),
        ({"frame": 1.5, "point": [1, 2]}, '"active_speaker": found 1.5'),
        ({"boxes": [[1, 2, 3]]}, '"active_speaker": found .1, 2, 3.'),
        ({"boxes": [[3, 2, 1, 4]]}, "active_speaker: box 0 is .3.0, 2.0, 1.0, 4.0.; expected x1, y1, x2, y2"),
        ({"mode": "auto", "boxes": [[1, 2, 3, 4]]}, "active_speaker: expected either"),
    ],
)
def test_a_wrong_active_speaker_is_named(fields: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        parse(INLINE | {"active_speaker": fields})


def test_a_box_for_each_frame_of_a_long_video():
    boxes = [[1, 2, 300, 400.25], None] * 30_000
    speaker = parse(INLINE | {"active_speaker": {"boxes": boxes}}).options.active_speaker
    assert speaker is not None
    assert speaker.boxes is not None
    assert len(speaker.boxes) == 60_000


def test_the_most_segments_fit_into_a_body():
    fields = {"start_s": 0, "end_s": 1, "audio": 0, "audio_start_s": 0, "audio_end_s": 1}
    segments = [fields | {"start_s": i, "end_s": i + 1} for i in range(MAX_SEGMENTS)]
    assert len(parse(INLINE | {"segments": segments}).options.segments) == MAX_SEGMENTS


def test_inline_with_the_defaults():
    assert parse(INLINE) == SyncRequest(b"face", b"audio", SyncOptions())


def test_one_by_s3_and_the_other_inline():
    request = parse({"task": "lipsync", "s3_bucket": "clips", "s3_video_key": "a.mp4", "audio": AUDIO})
    assert (request.face, request.audio) == (S3Object("clips", "a.mp4"), b"audio")


@pytest.mark.parametrize(
    ("prefix", "folder"),
    [
        ("", S3Folder("clips", "")),
        ("/", S3Folder("clips", "")),
        ("out", S3Folder("clips", "out/")),
        ("out/a b/", S3Folder("clips", "out/a b/")),
        ("s3://films/out", S3Folder("films", "out/")),
        ("s3://films", S3Folder("films", "")),
    ],
)
def test_output_folders(prefix: str, folder: S3Folder):
    assert parse(BY_S3 | {"s3_output_prefix": prefix}).output == folder


def test_options_alone_and_together():
    assert parse(INLINE | {"parity": True}).options == PARITY
    assert parse(INLINE | {"nosmooth": True, "loop": "restart"}).options == SyncOptions(
        smoothing="none", loop="restart"
    )
    assert parse(INLINE | {"reference": "each"}).options == SyncOptions(reference="each")
    assert parse(INLINE | {"parity": True, "reference": "steady"}).options == replace(PARITY, reference="steady")
    assert parse(INLINE | {"face_index": "1"}).options.face == 1


def test_options_in_the_body_override_the_header():
    request = parse(INLINE | {"resize_factor": 4}, '{"resize_factor": 2, "models": ["a"], "nosmooth": true}')
    assert (request.options.resize_factor, request.options.smoothing, request.models) == (4, "none", ("a",))


def test_the_header_may_name_the_task():
    assert parse({"face": FACE, "audio": AUDIO}, '{"task": "lipsync"}').face == b"face"
    with pytest.raises(InvalidRequest, match="takes a face and audio"):
        parse_request(b"film", "video/mp4", {OPTIONS_HEADER: '{"task": "lipsync"}'})


def test_only_jobs_name_urls():
    body = json.dumps({"task": "lipsync", "face_url": "https://a.example/f.png", "audio": AUDIO})
    request = parse_job_request(body, "application/json", {})
    assert isinstance(request, SyncRequest)
    assert (request.face, request.audio) == (UrlObject("https://a.example/f.png"), b"audio")
    with pytest.raises(InvalidRequest, match='"face_url": only jobs fetch URLs'):
        parse_request(body, "application/json", {})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no face": ({"task": "lipsync", "audio": AUDIO}, '"s3_video_key", or "face" in base64'),
    "no audio": ({"task": "lipsync", "face": FACE}, '"s3_audio_key", or "audio" in base64'),
    "two faces": (INLINE | BY_S3, 'expected either "s3_bucket" and "s3_video_key"'),
    "a face and a URL": (INLINE | {"face_url": "https://a.example/"}, 'or for jobs "face_url"'),
    "not a URL": ({"task": "lipsync", "face": FACE, "audio_url": "s3://a/b"}, '"audio_url": .*http or https'),
    "no bucket": ({"task": "lipsync", "s3_video_key": "a.mp4", "audio": AUDIO}, "go together"),
    "no bucket to write": (INLINE | {"s3_output_prefix": "out"}, '"s3_output_prefix": no bucket'),
    "a scheme alone": (INLINE | {"s3_output_prefix": "s3://"}, '"s3_output_prefix": no bucket'),
    "presigned nothing": (INLINE | {"presigned": True}, '"presigned": applies to videos in S3'),
    "not base64": (INLINE | {"face": "###"}, '"face": not base64'),
    "empty": (INLINE | {"audio": ""}, '"audio": is empty'),
    "models": (INLINE | {"models": "wav2lip"}, '"models": found '),
    "many models": (INLINE | {"models": ["a"] * 9}, '"models"'),
    "enhance": (INLINE | {"enhance": "gfpgan"}, '"enhance": found'),
    "factor": (INLINE | {"resize_factor": 3}, "resize_factor 3: expected 1, 2 or 4"),
    "fps": (INLINE | {"fps": 0}, "fps 0"),
    "not a number": (INLINE | {"fps": float("nan")}, "fps nan"),
    "pads": (INLINE | {"pads": [0, 10]}, '"pads"'),
    "pads of halves": (INLINE | {"pads": [0, 1.5, 0, 0]}, '"pads"'),
    "face index": (INLINE | {"face_index": "left"}, '"face_index"'),
    "a field of the other task": (INLINE | {"nbest": 3}, '"nbest": no such field; known: .*pads'),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_body_is_named(kind: str):
    fields, words = WRONG[kind]
    with pytest.raises(InvalidRequest, match=words) as caught:
        parse(fields)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("header", ['{"resize_factor": 2, "nbest": 1}', '{"face": "AAAA"}', "{"])
def test_a_wrong_header_is_named(header: str):
    with pytest.raises(InvalidRequest):
        parse(INLINE, header)


def test_which_types_can_contain_the_answer():
    parse(INLINE | {"models": ["a", "b"]}).check_type(JSON)
    parse(BY_S3).check_type(MP4)
    parse(BY_S3 | {"s3_output_prefix": "out"}).check_type(JSON)
    with pytest.raises(InvalidRequest, match="2 videos do not fit into one video/mp4"):
        parse(INLINE | {"models": ["a", "b"]}).check_type(MP4)
    with pytest.raises(InvalidRequest, match=r'"s3_output_prefix": missing; .*Accept: video/mp4'):
        parse(BY_S3).check_type(JSON)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("video/mp4", MP4),
        ("video/*", MP4),
        ("text/html, video/mp4", MP4),
        ("application/mp4", MP4),
        ("application/json;q=0.5, video/*", MP4),
        ("video/mp4;q=0, */*", JSON),
    ],
)
def test_the_type_of_the_highest_quality_is_chosen(accept: str | None, media_type: str):
    assert AcceptHeader.parse(accept).choose(SYNC_TYPES) == media_type


def test_a_generation():
    body = {"image": FACE, "audio": AUDIO, "resize_factor": 2}
    request = parse_generate_request(json.dumps(body), JSON, {OPTIONS_HEADER: '{"models": ["a"]}'})
    assert request == SyncRequest(b"face", b"audio", SyncOptions(resize_factor=2), ("a",), is_brief=True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"image": FACE}, '"audio"'),
        ({"image": FACE, "audio": AUDIO, "face": FACE}, '"face": no such field'),
        ({"image": FACE, "audio": AUDIO, "models": ["a", "b"]}, "one video is returned here"),
        ({"image": "?", "audio": AUDIO}, '"image": not base64'),
        ([], "a JSON list"),
    ],
)
def test_a_wrong_generation_is_named(body: object, words: str):
    with pytest.raises(InvalidRequest, match=words):
        parse_generate_request(json.dumps(body), JSON, {})
    with pytest.raises(UnsupportedContentType, match="expected application/json"):
        parse_generate_request(b"x", "image/png", {})
