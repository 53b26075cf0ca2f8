"""Several requests at a time in one worker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.small_wav2lip import voice
from support.synthetic_frames import talk
from support.video_files import make_video

from inference.engines import Engines, RequestCallbacks
from inference.engines.lanes import make_lanes
from inference.errors import Canceled, UnsupportedMedia
from inference.lip_reading import ReadOptions, Transcript
from inference.lip_sync import SyncOptions
from inference.requests import ReadRequest, SyncRequest

PATIENCE_S = 120.0
N = 3


@pytest.fixture(scope="module")
def lanes(engines: Engines) -> Iterator[list[Engines]]:
    found = make_lanes(engines, N)
    yield found
    for lane in found[1:]:  # the first has the decoder of `engines`
        lane.close()


def read(lane: Engines, video: bytes, callbacks: RequestCallbacks | None = None) -> Transcript:
    return lane.run(ReadRequest(video, ReadOptions()), callbacks or RequestCallbacks()).transcript


def test_one_lane_is_the_engines_as_they_are(engines: Engines):
    assert make_lanes(engines, 1) == [engines]


def test_lanes_read_at_the_same_time_what_one_reads(engines: Engines, lanes: list[Engines], talking_film: bytes):
    alone = read(engines, talking_film)
    with ThreadPoolExecutor(N) as threads:
        together = list(threads.map(read, lanes, [talking_film] * N))
    for one in together:
        assert (one.text, one.num_frames) == (alone.text, alone.num_frames)
        assert one.confidence == pytest.approx(alone.confidence, abs=1e-3)


def test_a_cancellation_and_a_bad_file_do_not_end_the_others(lanes: list[Engines], talking_film: bytes):
    """The canceled request stops while another one reads; the bad file fails before it."""
    both_run = threading.Barrier(2, timeout=PATIENCE_S)
    canceled = threading.Event()

    def wait_once(then: bool) -> RequestCallbacks:
        waited = threading.Event()

        def check() -> None:
            if not waited.is_set():
                waited.set()
                both_run.wait()
                if then:
                    canceled.set()
                    raise Canceled("the request was canceled")
                assert canceled.wait(PATIENCE_S)

        return RequestCallbacks(check)

    with ThreadPoolExecutor(N) as threads:
        ended = threads.submit(read, lanes[0], talking_film, wait_once(True))
        kept = threads.submit(read, lanes[1], talking_film, wait_once(False))
        bad = threads.submit(read, lanes[2], b"no video")
        with pytest.raises(UnsupportedMedia):
            bad.result(PATIENCE_S)
        with pytest.raises(Canceled):
            ended.result(PATIENCE_S)
        assert kept.result(PATIENCE_S).num_frames > 0
    assert read(lanes[0], talking_film).num_frames == kept.result().num_frames


def test_windows_of_several_requests_are_one_call(lanes: list[Engines]):
    """While a call runs, the others wait; they are then run together."""
    network = lanes[0].reader.model.network
    assert lanes[1].reader.model.network is network
    rng = np.random.default_rng(0)
    windows = [(rng.random((1, 3, 75, 64, 128), np.float32), rng.random((1, 75, 20, 2), np.float32)) for _ in range(N)]
    alone = [network(*window)[0] for window in windows]
    with ThreadPoolExecutor(N) as threads:
        together = list(threads.map(lambda window: network(*window)[0], windows))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3)


def test_lanes_sync_beside_one_that_reads(lanes: list[Engines], talking_film: bytes):
    request = SyncRequest(make_video(talk(10)), voice(0.4), SyncOptions())
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(read, lanes[0], talking_film)
        synced = threads.submit(lanes[1].run, request, RequestCallbacks())
        with contextlib.closing(synced.result(PATIENCE_S).owned_folder):
            assert synced.result().result.num_frames == 10
        assert reading.result(PATIENCE_S).num_frames == 75
