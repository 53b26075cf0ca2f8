"""Every gRPC call, made by a client that is built from a table of fields."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from support.rpc_server import (
    PATIENCE_S,
    Client,
    Rpc,
    decode_jpeg,
    error_of,
    noise,
    split_chunks,
    through_jpeg,
)

from container.live.jpeg import WHOLE_QUALITY
from container.live.legacy.single_frames import VIDEO_TYPES
from inference.avatar import AvatarPackage
from inference.faces.paste import slices_of
from inference.settings import Settings

RATE = 16_000
CHUNK = RATE // 25


# The ten calls


def test_a_frame_is_the_networks_output_composed(client: Client, rehearsed: AvatarPackage):
    response = client.GenerateInference(model_name="rehearsed", frame_id=37)
    assert response.success
    assert not response.HasField("error")
    box = rehearsed.box(37)
    assert list(response.bounds) == [box.left, box.top, box.right, box.bottom]
    expected = rehearsed.background(37).copy()
    expected[slices_of(box)] = rehearsed.render(37, rehearsed.features_at(37))
    assert np.array_equal(decode_jpeg(response.prediction_data), through_jpeg(expected, WHOLE_QUALITY))
    assert response.prediction_shape == "x".join(map(str, expected.shape))
    assert (response.model_name, response.frame_id) == ("rehearsed", 37)
    assert response.inference_time_ms > 0
    times = response.prepare_time_ms + response.inference_time_ms + response.composite_time_ms
    assert times <= response.processing_time_ms + 1
    assert len(response.optimizations) > 0


def test_patch_frames_contain_the_face_alone(client: Client, rehearsed: AvatarPackage):
    patch = {"metadata": (("viseme-frames", "patch"),)}
    response = client.GenerateInference(patch, model_name="rehearsed", frame_id=37)
    expected = rehearsed.render(37, rehearsed.features_at(37))
    assert np.array_equal(decode_jpeg(response.prediction_data), through_jpeg(expected))
    assert response.prediction_shape == "x".join(map(str, expected.shape))
    [streamed] = client.StreamInference(iter([{"model_name": "rehearsed", "frame_id": 37}]), **patch)
    assert streamed.prediction_data == response.prediction_data
    with pytest.raises(grpc.RpcError) as caught:
        client.GenerateInference({"metadata": (("viseme-frames", "half"),)}, model_name="drawn")
    assert error_of(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_batch_keeps_the_requested_order(client: Client, rehearsed: AvatarPackage):
    batch = client.GenerateBatchInference(model_name="rehearsed", frame_ids=[5, 3, 5, 99])
    assert [(one.frame_id, one.success) for one in batch.responses] == [(5, True), (3, True), (5, True), (99, False)]
    assert batch.responses[0].prediction_data == batch.responses[2].prediction_data
    assert batch.responses[0].prediction_data != batch.responses[1].prediction_data
    assert "frame 99 of rehearsed: expected 0 to 74" in batch.responses[3].error
    assert batch.total_processing_time_ms == int(batch.avg_frame_time_ms * 4)


def test_frames_speak_the_audio_in_the_request(client: Client, drawn: AvatarPackage):
    """As in a session: after 8 chunks of context, the first frame is the session's ninth."""
    pcm = noise((8 + 3 + 7 + 6) * CHUNK)
    patch = {"metadata": (("viseme-frames", "patch"),)}
    batch = client.GenerateBatchWithAudio(
        patch, model_name="drawn", start_frame_id=20, frame_count=3, audio_chunks=split_chunks(pcm)
    )
    assert [one.frame_id for one in batch.responses] == [20, 21, 22]
    session = drawn.session(RATE)
    rows: list[np.ndarray] = []
    received, render = [], drawn.render
    session.push_audio(pcm)
    session.flush()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "render", lambda i, features: received.append(features) or render(i, features))
        rows = [frame.patch for frame in session.frames()]
    assert len(rows) == 24
    for response, features in zip(batch.responses, received[8:11], strict=True):
        expected = drawn.render(response.frame_id, features)
        assert np.array_equal(decode_jpeg(response.prediction_data), through_jpeg(expected))


def test_missing_frames_do_not_shift_the_audio_of_others(client: Client):
    """Frames -5 to -1 fail; the others get the same audio as in a request without them."""
    chunks = split_chunks(noise(24 * 640))
    nine = client.GenerateBatchWithAudio(model_name="drawn", start_frame_id=-5, frame_count=9, audio_chunks=chunks)
    assert [one.success for one in nine.responses] == [False] * 5 + [True] * 4
    four = client.GenerateBatchWithAudio(model_name="drawn", frame_count=4, audio_chunks=chunks[5:])
    assert nine.responses[8].prediction_data == four.responses[3].prediction_data


def test_other_audio_gives_other_mouths(client: Client):
    def request(chunks: list[bytes]) -> list[bytes]:
        batch = client.GenerateBatchWithAudio(model_name="drawn", start_frame_id=4, frame_count=2, audio_chunks=chunks)
        assert all(one.success for one in batch.responses)
        return [one.prediction_data for one in batch.responses]

    speech, silence = split_chunks(noise(17 * CHUNK)), split_chunks(np.zeros(17 * CHUNK, np.int16))
    assert request(speech) == request(speech)
    assert request(speech)[0] != request(silence)[0]
    assert request(speech)[1] != request(silence)[1]


def test_the_length_of_chunks_gives_the_sample_rate(client: Client, drawn: AvatarPackage):
    """A tone gives the same frames at 16 and at 48 kHz."""
    responses = []
    for rate in (16_000, 48_000):
        t = np.arange(rate * 17 // 25) / rate
        chunks = split_chunks((np.sin(2 * np.pi * 440 * t) * 9000).astype(np.int16), rate // 25)
        batch = client.GenerateBatchWithAudio(model_name="drawn", frame_count=2, audio_chunks=chunks)
        responses.append([decode_jpeg(one.prediction_data).astype(int) for one in batch.responses])
    assert np.abs(responses[0][0] - responses[1][0]).mean() < 2
    assert np.abs(responses[0][1] - responses[1][1]).mean() < 2


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([], "no audio chunks"),
        ([b"\0" * 1280] * 16, "16 chunks of audio for 2 frames; expected at least 17"),
        ([b"\0" * 1280] * 16 + [b"\0" * 1278], "1278, 1280 bytes; expected 40 ms"),
        ([b"\0" * 1281] * 17, "1281 bytes"),
        ([b""] * 17, "0 bytes"),
        ([b"\0\0"] * 17, "sample rate 25: expected 4000"),
    ],
)
def test_invalid_audio_is_explained_in_every_response(client: Client, chunks: list[bytes], reason: str):
    batch = client.GenerateBatchWithAudio(model_name="drawn", start_frame_id=7, frame_count=2, audio_chunks=chunks)
    assert [(one.success, one.frame_id) for one in batch.responses] == [(False, 7), (False, 8)]
    assert all(reason in one.error for one in batch.responses)


def test_without_features_the_mouth_rests(client: Client, drawn: AvatarPackage):
    response = client.GenerateInference({"metadata": (("viseme-frames", "patch"),)}, model_name="drawn", frame_id=0)
    expected = drawn.render(0, np.tile(drawn.encode_silence(), (16, 1)))
    assert np.array_equal(decode_jpeg(response.prediction_data), through_jpeg(expected))


@pytest.mark.parametrize("index", [-1, 75, 2**31 - 1, -(2**31)])
def test_a_missing_frame_is_an_error(client: Client, index: int):
    response = client.GenerateInference(model_name="rehearsed", frame_id=index)
    assert (response.success, response.frame_id) == (False, index)
    assert f"frame {index} of rehearsed" in response.error
    assert response.prediction_data == b""


def test_an_unknown_model_is_an_error_everywhere(client: Client):
    """The older servers fell back to their first package."""
    assert "'nobody'" in client.GenerateInference(model_name="nobody").error
    batches = [
        client.GenerateBatchInference(model_name="nobody", frame_ids=[1, 2]),
        client.GenerateBatchWithAudio(model_name="nobody", frame_count=2, audio_chunks=[b"\0\0"]),
    ]
    assert [["'nobody'" in one.error for one in batch.responses] for batch in batches] == [[True, True]] * 2
    for call in (client.GetStats, client.GetModelMetadata, client.GetVideoFrame):
        with pytest.raises(grpc.RpcError) as caught:
            call(model_name="nobody")
        code, details, stable = error_of(caught.value)
        assert (code, stable) == (grpc.StatusCode.NOT_FOUND, "avatar_not_found")
        assert "'nobody'" in details


def test_a_stream_keeps_the_order_and_survives_an_invalid_frame(client: Client):
    frames = [("rehearsed", 4), ("nobody", 5), ("rehearsed", 999), ("rehearsed", 6)]
    responses = list(client.StreamInference({"model_name": name, "frame_id": i} for name, i in frames))
    assert [(one.frame_id, one.success) for one in responses] == [(4, True), (5, False), (999, False), (6, True)]


def test_a_stream_alternates_requests_and_responses(client: Client):
    """Each response is sent before the next request: no response waits for a batch to fill."""
    received = threading.Semaphore(0)

    def requests() -> Iterator[dict[str, Any]]:
        for i in range(3):
            yield {"model_name": "rehearsed", "frame_id": i}
            assert received.acquire(timeout=PATIENCE_S)

    frame_ids = []
    for response in client.StreamInference(requests()):
        frame_ids.append(response.frame_id)
        received.release()
    assert frame_ids == [0, 1, 2]


def test_stats_count_rendered_frames(client: Client):
    before = client.GetStats(model_name="rehearsed")
    times = [client.GenerateInference(model_name="rehearsed", frame_id=i).inference_time_ms for i in range(3)]
    after = client.GetStats(model_name="rehearsed")
    assert after.total_requests == before.total_requests + 3
    total = [one.avg_inference_time_ms * one.total_requests for one in (before, after)]
    assert total[1] - total[0] == pytest.approx(sum(times), rel=1e-6)
    assert after.min_inference_time_ms <= min(times)
    assert after.max_inference_time_ms >= max(times)
    assert (after.frame_count, after.device, after.model_name) == (75, "cpu", "rehearsed")


def test_models_health_and_metadata(client: Client, rehearsed: AvatarPackage):
    models = client.ListModels()
    assert {"rehearsed", "drawn"} <= set(models.loaded_models)
    assert models.count == len(models.loaded_models)
    health = client.HealthCheck()
    assert (health.healthy, health.status, health.loaded_models) == (True, "SERVING", models.count)
    assert 0 <= health.uptime_seconds < 3600
    about = client.GetModelMetadata(model_name="rehearsed")
    assert (about.success, about.frame_count, list(about.available_videos)) == (True, 75, list(VIDEO_TYPES))
    box = rehearsed.box(0)
    assert list(about.bounds) == [box.left, box.top, box.right, box.bottom]


def test_video_types_of_old_packages(client: Client, rehearsed: AvatarPackage):
    def request(video: str) -> np.ndarray:
        response = client.GetVideoFrame(model_name="rehearsed", frame_id=9, video_type=video)
        assert (response.success, response.frame_id, response.video_type) == (True, 9, video)
        return decode_jpeg(response.frame_data)

    crop = rehearsed.crop(9)
    assert np.array_equal(request("full_body"), through_jpeg(rehearsed.background(9), WHOLE_QUALITY))
    assert np.array_equal(request("face_regions"), through_jpeg(crop, WHOLE_QUALITY))
    masked = request("masked_regions")
    assert masked.shape == (320, 320, 3)
    assert masked[20:300, 20:300].max() < 12  # black, apart from JPEG artefacts
    assert np.abs(masked[:4].astype(int) - crop[4:8, 4:324]).mean() < 12


@pytest.mark.parametrize(
    ("index", "video", "reason"), [(9, "", "video_type ''"), (9, "x" * 999, "xxx';"), (75, "full_body", "frame 75")]
)
def test_a_missing_video_frame_is_an_error(client: Client, index: int, video: str, reason: str):
    with pytest.raises(grpc.RpcError) as caught:
        client.GetVideoFrame(model_name="rehearsed", frame_id=index, video_type=video)
    assert error_of(caught.value)[::2] == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")
    assert reason in caught.value.details()
    assert len(caught.value.details()) < 300


def test_a_package_is_loaded_while_the_server_runs(client: Client, rpc: Rpc, rpc_settings: Settings):
    assert rpc_settings.avatars is not None
    assert "nobody" not in client.ListModels().loaded_models
    (rpc_settings.avatars / "later").symlink_to(rpc_settings.avatars / "drawn")
    try:
        response = client.LoadPackage(package_name="later")
        assert (response.success, response.package_name, response.frame_count, response.device) == (
            True,
            "later",
            75,
            "cpu",
        )
        assert (list(response.audio_features_shape), response.memory_mapped_audio) == ([], False)
        assert "later" in client.ListModels().loaded_models
    finally:
        (rpc_settings.avatars / "later").unlink()
        rpc.call(rpc.avatars.refresh)
    assert "later" not in client.ListModels().loaded_models
    assert "'later'" in client.GenerateInference(model_name="later").error


def test_loading_reports_the_packages_features(client: Client):
    response = client.LoadPackage(package_name="rehearsed", package_dir="rehearsed")
    assert (list(response.audio_features_shape), response.memory_mapped_audio) == ([75, 32], True)
    assert list(response.videos_loaded) == list(VIDEO_TYPES)


@pytest.mark.parametrize("given", ["rehearsed", "./rehearsed", "{home}/rehearsed", "{home_name}/rehearsed"])
def test_the_packages_own_folder_is_accepted(client: Client, rpc_settings: Settings, given: str):
    assert rpc_settings.avatars is not None
    given = given.format(home=rpc_settings.avatars, home_name=rpc_settings.avatars.name)
    assert client.LoadPackage(package_name="rehearsed", package_dir=given).success


@pytest.mark.parametrize("given", ["/etc", "..", "../..", "drawn", "rehearsed/..", "/", "x" * 9999, "rehearsed\0"])
def test_no_other_folder_is_read(client: Client, given: str):
    response = client.LoadPackage(package_name="rehearsed", package_dir=given)
    assert (response.success, response.message) == (False, "the package was not loaded")
    assert "expected nothing, or 'rehearsed'" in response.error
    assert len(response.error) < 200


@pytest.mark.parametrize("name", ["/etc", "../drawn", "", ".", "drawn\0", "x" * 9999])
def test_no_name_escapes_the_folder(client: Client, name: str):
    response = client.LoadPackage(package_name=name, package_dir=name)
    assert not response.success
    assert "no such name" in response.error


def test_calls_are_counted_by_name_and_status(rpc: Rpc, client: Client):
    before = len(rpc.counted)
    client.HealthCheck()
    with pytest.raises(grpc.RpcError):
        client.GenerateInference({"metadata": (("viseme-frames", "half"),)}, model_name="rehearsed")
    endless = client.StreamInference({"model_name": "rehearsed", "frame_id": i % 75} for i in iter(int, 1))
    assert next(endless).success
    endless.cancel()
    expected = [("grpc HealthCheck", "OK"), ("grpc GenerateInference", "INVALID_ARGUMENT")]
    expected.append(("grpc StreamInference", "CANCELLED"))
    give_up = time.monotonic() + PATIENCE_S
    while len(rpc.counted) < before + 3 and time.monotonic() < give_up:
        time.sleep(0.02)  # the server notices the end of a stream slightly later
    assert [(route, status) for route, status, _ in rpc.counted[before:]] == expected
    assert all(0 <= took_s < PATIENCE_S for *_, took_s in rpc.counted[before:])


# Visemes


def test_visemes_of_audio_that_arrives_are_those_of_the_whole(ours: Client):
    pcm = (noise(3 * RATE // 2) // 4).astype("<i2")
    chunks = [{"audio": pcm[i : i + 1111].tobytes()} for i in range(0, len(pcm), 1111)]
    responses = list(ours.StreamVisemes(iter(chunks)))
    assert len(responses) > 10
    frames = [frame for response in responses for frame in response.frames]
    segments = [segment for response in responses for segment in response.segments]
    assert not list(ours.StreamVisemes(iter([{"audio": b"", "sample_rate": RATE}])))
    assert [frame.frame for frame in frames] == list(range(38))
    assert all(len(frame.weights) == 15 and len(frame.blendshapes) == 13 for frame in frames)
    assert (segments[0].start_s, segments[-1].end_s) == (0, 1.5)


def test_the_rate_of_viseme_audio_may_be_any(ours: Client):
    at_48k = [{"audio": bytes(48_000), "sample_rate": 48_000}, {"audio": bytes(48_000)}]
    segments = [one for response in ours.StreamVisemes(iter(at_48k)) for one in response.segments]
    assert [(one.viseme, one.start_s, one.end_s) for one in segments] == [("sil", 0, 1)]


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([{"audio": b"\0"}], "whole samples"),
        ([{"audio": bytes(2 * RATE * 11)}], "at most 10 s"),
        ([{"sample_rate": 100}], "sample rate 100"),
        ([{"sample_rate": 8000}, {"sample_rate": 16_000}], "expected one rate"),
    ],
)
def test_invalid_viseme_audio_is_rejected(ours: Client, requests: list[dict[str, Any]], words: str):
    with pytest.raises(grpc.RpcError) as caught:
        list(ours.StreamVisemes(iter(requests)))
    assert error_of(caught.value)[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()
