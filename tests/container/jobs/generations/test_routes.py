"""Generations over HTTP: by sync.so's unmodified client, and by hand what that client does not do."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from support.job_server import JobServer
from support.waiting import wait_until
from sync import Sync
from sync.common import (
    ActiveSpeaker,
    Audio,
    ElevenLabs,
    GenerationOptions,
    GenerationSegment,
    SegmentAudioInput,
    Tts,
    Video,
)
from sync.common.errors import BadRequestError, NotFoundError, UnauthorizedError
from sync.common.types import Generation
from sync.core.api_error import ApiError

from inference.settings import Settings

from .conftest import MODELS, TOKEN, LipSyncPool, generation_server

FACE, FAIL, GONE, WAIT = (f"https://media.example/{name}.mp4" for name in ("face", "fail", "gone", "wait"))
VOICE = "https://media.example/voice.wav"
PARTS = [{"type": "video", "url": FACE}, {"type": "audio", "url": VOICE}]
BODY = {"model": "small", "input": PARTS}
FINAL = ("COMPLETED", "FAILED", "REJECTED")


def create(client: Sync, video: str = FACE, model: str = "small", **fields: Any) -> Generation:
    return client.generations.create(model=model, input=[Video(url=video), Audio(url=VOICE)], **fields)


def wait(client: Sync, generation_id: str) -> Generation:
    wait_until(lambda: client.generations.get(generation_id).status in FINAL)
    return client.generations.get(generation_id)


def download(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_a_client_submits_polls_and_downloads(client: Sync, jobs: JobServer):
    options = GenerationOptions(sync_mode="loop")
    created = create(client, options=options, output_file_name="my_video")
    assert created.status in ("PENDING", "PROCESSING", "COMPLETED")
    assert [one.url for one in created.input] == [FACE, VOICE]
    assert created.options is not None
    assert created.options.sync_mode == "loop"

    done = wait(client, created.id)
    assert (done.status, done.model, done.output_duration, done.error, done.error_code) == (
        "COMPLETED",
        "small",
        3.0,
        None,
        None,
    )
    assert done.created_at == created.created_at
    assert done.output_url is not None
    assert TOKEN not in done.output_url
    video = download(done.output_url)
    assert (video.status_code, video.content) == (200, b"a video of small")
    assert video.headers["content-type"] == "video/mp4"
    assert 'filename="my_video.mp4"' in video.headers["content-disposition"]
    assert isinstance(jobs.pool, LipSyncPool)
    assert jobs.pool.requests() == [
        {"task": "lipsync", "models": ["small"], "face_url": FACE, "audio_url": VOICE, "sync_mode": "loop"}
    ]


def test_a_generation_is_a_job(client: Sync, jobs: JobServer):
    done = wait(client, create(client).id)
    job = jobs.job(done.id)
    assert (job["state"], job["task"], job["outputs"][0]["name"]) == ("succeeded", "lipsync", "small.mp4")


def test_a_url_that_was_changed_downloads_nothing(client: Sync):
    url = wait(client, create(client).id).output_url
    assert url is not None
    end = "0" if url[-1] != "0" else "1"
    for wrong in (url[:-1] + end, url.partition("?")[0], url.replace("token=", "token=1")):
        denied = download(wrong)
        assert (denied.status_code, denied.json()["statusCode"]) == (403, 403)


def test_failures_have_the_codes_of_sync_so(client: Sync):
    failed = wait(client, create(client, FAIL).id)
    assert (failed.status, failed.error, failed.error_code, failed.output_url) == (
        "FAILED",
        "no face in any frame",
        "generation_input_video_invalid",
        None,
    )
    gone = wait(client, create(client, GONE).id)
    assert gone.error_code == "generation_input_video_inaccessible"


def test_a_running_generation_is_processing_and_a_canceled_one_rejected(client: Sync, jobs: JobServer):
    running = create(client, WAIT)
    wait_until(lambda: client.generations.get(running.id).status == "PROCESSING")
    pending = create(client)
    assert pending.status == "PENDING"
    jobs.client.delete(f"/v1/jobs/{running.id}")
    canceled = wait(client, running.id)
    assert (canceled.status, canceled.error, canceled.output_url) == ("REJECTED", "the generation was canceled", None)


def test_a_list_is_filtered_and_paged(client: Sync, jobs: JobServer):
    failed, done, second = (wait(client, create(client, url).id) for url in (FAIL, FACE, FACE))
    ids = [second.id, done.id, failed.id]
    jobs.submit()  # of another API
    assert [one.id for one in client.generations.list()] == ids
    assert [one.id for one in client.generations.list(status=["FAILED"])] == [failed.id]
    assert [one.id for one in client.generations.list(status=["COMPLETED", "PROCESSING"])] == ids[:2]
    assert [one.id for one in client.generations.list(ids=[failed.id, second.id, "0" * 32])] == [second.id, failed.id]
    listed = client.generations.list()[0]
    assert listed.output_url is not None
    assert download(listed.output_url).content == b"a video of small"
    assert listed.output_duration == 3.0

    page = jobs.client.get("/v2/generations?limit=2&status=COMPLETED,FAILED").json()
    assert [one["id"] for one in page] == ids[:2]
    rest = jobs.client.get("/v2/generations", params={"limit": 2, "cursor": page[-1]["id"]}).json()
    assert [one["id"] for one in rest] == ids[2:]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", '"limit": found'),
        ("limit=101", "expected 1 to 100"),
        ("cursor=0", 'expected "limit"'),
        ("status=DONE", "expected some of PENDING, PROCESSING, COMPLETED, FAILED, REJECTED"),
        ("projectId=1", '"projectId": not offered'),
    ],
)
def test_a_wrong_parameter_is_named(query: str, words: str, jobs: JobServer):
    refused = jobs.client.get(f"/v2/generations?{query}")
    assert refused.status_code == 400
    assert words in refused.json()["message"]
    assert jobs.client.get(f"/v2/generations?limit=1&cursor={'0' * 32}").status_code == 404


def test_the_models_of_this_server_are_listed(client: Sync):
    found = client.models.list()
    assert [one.id for one in found] == MODELS
    assert {one.type for one in found} == {"lipsync"}
    assert create(client, model="lipsync-2").model == "small"
    assert create(client, model="large").model == "large"


def test_errors_are_those_of_the_client(client: Sync, jobs: JobServer):
    with pytest.raises(BadRequestError) as refused:
        create(client, model="react-1")
    assert refused.value.body.status_code == 400
    assert "models of this server: small, large" in refused.value.body.message
    assert refused.value.body.errorCode == "generation_unsupported_model"
    with pytest.raises(NotFoundError) as missing:
        client.generations.get("0" * 32)
    assert missing.value.body.errorCode == "generation_not_found"
    with pytest.raises(UnauthorizedError) as denied:
        Sync(base_url=str(jobs.client.base_url), api_key="wrong").generations.list()
    assert denied.value.body.status_code == 401


def test_a_job_of_the_other_api_is_no_generation(client: Sync, jobs: JobServer):
    with pytest.raises(NotFoundError):
        client.generations.get(jobs.submit().json()["id"])


def test_what_is_not_offered_says_so_by_name(client: Sync):
    text = Tts(provider=ElevenLabs(voice_id="v", script="s"))
    with pytest.raises(BadRequestError, match="text-to-speech is not offered"):
        client.generations.create(model="small", input=[Video(url=FACE), text])
    with pytest.raises(BadRequestError, match="assets are not offered"):
        client.generations.create(model="small", input=[Video(asset_id="x"), Audio(url=VOICE)])
    with pytest.raises(BadRequestError, match='"prompt": not offered'):
        create(client, options=GenerationOptions(prompt="happy"))
    for call, words in (
        (client.assets.list, "assets are not offered"),
        (client.batch.list, "batches are not offered"),
        (lambda: client.generations.estimate_cost(model="small", input=[Video(url=FACE)]), "cost are not offered"),
    ):
        with pytest.raises(ApiError) as refused:
            call()
        assert refused.value.status_code == 404
        assert words in str(refused.value)


def test_private_addresses_are_refused_at_once(client: Sync):
    for url in ("http://127.0.0.1/a.mp4", "http://169.254.169.254/latest", "file:///etc/passwd"):
        with pytest.raises(BadRequestError):
            create(client, url)
        with pytest.raises(BadRequestError, match="webhookUrl"):
            create(client, webhook_url=url)


def test_files_are_uploaded_in_a_form(client: Sync, jobs: JobServer):
    created = client.generations.create_with_files(
        model="small", video=("face.mp4", b"a face"), audio=("voice.wav", b"a voice")
    )
    done = wait(client, created.id)
    assert done.status == "COMPLETED"
    assert [one.type for one in done.input] == ["audio", "video"]
    assert isinstance(jobs.pool, LipSyncPool)
    (fields,) = jobs.pool.requests()
    assert base64.b64decode(fields.pop("face")) == b"a face"
    assert base64.b64decode(fields.pop("audio")) == b"a voice"
    assert fields == {"task": "lipsync", "models": ["small"]}


def post_form(jobs: JobServer, files: dict[str, bytes], **data: str) -> httpx.Response:
    named = {name: (f"{name}.bin", content) for name, content in files.items()}
    return jobs.client.post("/v2/generate", files=named, data=data)


def test_a_form_may_have_its_other_fields_in_json(jobs: JobServer):
    options = json.dumps({"sync_mode": "cut_off"})
    for given in (json.dumps(PARTS[1:]), json.dumps(PARTS[1])):
        created = post_form(jobs, {"video": b"a face"}, model="small", input=given, options=options)
        assert created.status_code == 201, created.text
        assert created.json()["options"] == {"sync_mode": "cut_off"}


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ({"video": b"a"}, {"model": "small"}, "no audio"),
        ({"video": b""}, {"model": "small"}, '"video": the file is empty'),
        ({"film": b"a"}, {"model": "small"}, "expected one each of video, image, audio"),
        ({"video": b"a", "audio": b"a"}, {"model": "small", "options": "{"}, '"options": not JSON'),
        ({"video": b"a", "audio": b"a"}, {"model": "small", "fps": "25"}, "'fps': no such field"),
        ({"video": b"a", "audio": b"a"}, {}, '"model"'),
        ({"video": b"a"}, {"model": "small", "input": '[{"type": "audio"}]'}, 'input[0]: no "url"'),
    ],
)
def test_a_mistake_in_a_form_is_named(files: dict[str, bytes], data: dict[str, str], words: str, jobs: JobServer):
    refused = post_form(jobs, files, **data)
    assert refused.status_code == 400
    assert words in refused.json()["message"]


def test_other_bodies_are_refused(jobs: JobServer):
    refused = jobs.client.post("/v2/generate", content=b"a video", headers={"content-type": "video/mp4"})
    assert (refused.status_code, refused.json()["error"]) == (415, "Unsupported Media Type")
    large = jobs.client.post("/v2/generate", json=BODY | {"model": "x" * (1 << 20)})
    assert large.status_code == 413
    form = jobs.client.post("/v2/generate", content=b"--", headers={"content-type": "multipart/form-data"})
    assert "expected a boundary" in form.json()["message"]


def test_the_same_key_and_request_are_the_same_generation(jobs: JobServer):
    def post(key: str, body: dict[str, Any]) -> httpx.Response:
        return jobs.client.post("/v2/generate", json=body, headers={"idempotency-key": key})

    first = post("order-17", BODY)
    assert first.status_code == 201
    again = post("order-17", dict(reversed(BODY.items())))
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = post("order-17", BODY | {"model": "large"})
    assert (other.status_code, other.json()["errorCode"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert post("order-18", BODY).json()["id"] != first.json()["id"]


def test_a_form_that_is_sent_again_is_the_same_generation(jobs: JobServer):
    jobs.client.headers["idempotency-key"] = "form"
    files = {"video": b"a face", "audio": b"a voice"}
    first, again = (post_form(jobs, files, model="small") for _ in range(2))
    assert (first.status_code, again.status_code, again.json()["id"]) == (201, 200, first.json()["id"])
    assert post_form(jobs, files | {"audio": b"another"}, model="small").status_code == 409


@pytest.mark.parametrize("keys", [[""], ["a b"], ["x" * 129], ["a", "b"], ["ä"]])
def test_a_wrong_key_is_refused(keys: list[str], jobs: JobServer):
    headers = [("idempotency-key", key.encode("latin-1")) for key in keys]
    refused = jobs.client.post("/v2/generate", json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "INVALID_IDEMPOTENCY_KEY")


def test_segments_reach_the_engine(client: Sync, jobs: JobServer):
    parts = [Video(url=FACE), Audio(url=VOICE, ref_id="a"), Audio(url="https://media.example/b.wav", ref_id="b")]
    cut = SegmentAudioInput(ref_id="a", start_time=1, end_time=2)
    segments = [
        GenerationSegment(start_time=0, end_time=1, audio_input=SegmentAudioInput(ref_id="b")),
        GenerationSegment(start_time=1, end_time=2.5, audio_input=cut),
    ]
    created = client.generations.create(model="small", input=parts, segments=segments)
    done = wait(client, created.id)
    assert done.status == "COMPLETED"
    assert done.segments is not None
    assert done.segments[1].audio_input.end_time == 2
    assert isinstance(jobs.pool, LipSyncPool)
    (fields,) = jobs.pool.requests()
    assert fields["audio_urls"] == [VOICE, "https://media.example/b.wav"]
    assert [one["audio"] for one in fields["segments"]] == [1, 0]


@pytest.mark.parametrize(
    ("speaker", "expected"),
    [
        (ActiveSpeaker(auto_detect=True), {"mode": "auto"}),
        (ActiveSpeaker(frame_number=4, coordinates=[10, 20]), {"frame": 4, "point": [10, 20]}),
        (ActiveSpeaker(bounding_boxes=[[1, 2, 30, 40], None] * 1000), {"boxes": [[1, 2, 30, 40], None] * 1000}),
    ],
    ids=["auto", "point", "boxes"],
)
def test_a_chosen_speaker_reaches_the_engine(
    speaker: ActiveSpeaker, expected: dict[str, Any], client: Sync, jobs: JobServer
):
    done = wait(client, create(client, options=GenerationOptions(active_speaker_detection=speaker)).id)
    assert done.status == "COMPLETED"
    assert isinstance(jobs.pool, LipSyncPool)
    (fields,) = jobs.pool.requests()
    assert fields["active_speaker"] == expected


def test_a_server_that_loads_its_models_asks_to_return(jobs: JobServer):
    jobs.server.pool.health = {}
    refused = jobs.client.post("/v2/generate", json=BODY)
    assert (refused.status_code, refused.json()["errorCode"]) == (503, "generation_infra_service_unavailable")
    assert refused.headers["retry-after"]


def test_a_client_that_submits_too_often_gets_the_error_of_sync_so(settings: Settings):
    limited = settings.model_copy(update={"rate_limit": "1/hour", "job_workers": 0})
    with generation_server(limited, **{"x-api-key": TOKEN}) as jobs:
        assert jobs.client.post("/v2/generate", json=BODY).status_code == 201
        refused = jobs.client.post("/v2/generate", json=BODY)
        assert (refused.status_code, refused.json()["errorCode"]) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"]


def test_another_clients_generation_is_not_found(settings: Settings):
    open_to_all = settings.model_copy(update={"token": None, "trusted_proxies": 1, "job_workers": 0})
    mine, theirs = ({"x-forwarded-for": address} for address in ("203.0.113.1", "203.0.113.2"))
    with generation_server(open_to_all) as jobs:
        created = jobs.client.post("/v2/generate", json=BODY, headers=mine).json()
        assert jobs.client.get(f"/v2/generate/{created['id']}", headers=theirs).status_code == 404
        assert jobs.client.get("/v2/generations", headers=theirs).json() == []
        assert [one["id"] for one in jobs.client.get("/v2/generations", headers=mine).json()] == [created["id"]]


def test_urls_are_those_by_which_a_proxy_is_reached(settings: Settings):
    behind = settings.model_copy(update={"trusted_proxies": 1})
    named = {"x-forwarded-proto": "https", "x-forwarded-host": "lips.example.com"}
    with generation_server(behind, **{"x-api-key": TOKEN}) as jobs:
        created = jobs.client.post("/v2/generate", json=BODY).json()
        jobs.wait_for(created["id"])
        path = f"/v2/generate/{created['id']}"
        assert jobs.client.get(path, headers=named).json()["outputUrl"].startswith("https://lips.example.com/v2/")
        assert jobs.client.get(path).json()["outputUrl"].startswith(str(jobs.client.base_url))


def test_a_server_without_trusted_proxies_ignores_what_they_would_say(client: Sync, jobs: JobServer):
    done = wait(client, create(client).id)
    named = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
    shown = jobs.client.get(f"/v2/generate/{done.id}", headers=named).json()
    assert shown["outputUrl"].startswith(str(jobs.client.base_url))


def test_parameters_that_are_not_offered_are_named(jobs: JobServer):
    refused = jobs.client.get(f"/v2/generate/{'0' * 32}?wait=true")
    assert (refused.status_code, '"wait": not offered' in refused.json()["message"]) == (400, True)


def test_on_sagemaker_the_routes_are_off(settings: Settings):
    with generation_server(settings.model_copy(update={"on_sagemaker": True})) as jobs:
        missing = jobs.client.get("/v2/models")
        assert (missing.status_code, missing.json()["statusCode"]) == (404, 404)
