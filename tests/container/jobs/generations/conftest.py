"""A server whose generations do what the names of their videos say."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.job_server import JobServer, ObedientPool, running_job_server
from sync import Sync

from container.worker.messages import AnswerMessage, Failed, JobDone, JobOutput, Progress, WorkerRequest
from inference.error_responses import Failure
from inference.settings import Settings

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
TOKEN = "a-token-of-the-test"
MODELS = ["small", "large"]


class LipSyncPool(ObedientPool):
    """Workers that answer as `container.worker.routes.WorkerRoutes.run_job` does for lip sync.

    A video called fail.mp4 has no face, and one called wait.mp4 takes until `release`.
    """

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    async def run(self, request: WorkerRequest) -> AsyncGenerator[AnswerMessage]:
        self.bodies.append(request.body.read_bytes())
        fields = self.requests()[-1]
        url = fields.get("face_url", "")
        if url.endswith("fail.mp4"):
            yield Failed(Failure(400, "no_face_found", "no face in any frame"))
            return
        if url.endswith("gone.mp4"):
            yield Failed(Failure(404, "object_not_found", f"{url}: answered with status 404; expected 200"))
            return
        if url.endswith("wait.mp4"):
            yield Progress("syncing", 0.5)
            await self.released()
        (model,) = fields["models"]
        path = request.folder / f"{model}.mp4"
        path.write_bytes(b"a video of " + model.encode())
        details = {"model": model, "num_frames": 75, "duration_s": 3.0}
        result = {"status": "success", "outputs": [details], "num_frames": 75, "duration_s": 3.0}
        yield JobDone(result, (JobOutput(path.name, path, "video/mp4", details),), 812.5, None)


@contextmanager
def generation_server(settings: Settings, **headers: str) -> Iterator[JobServer]:
    with running_job_server(settings, LipSyncPool(), **headers) as jobs:
        jobs.server.pool.health = {"sync_models": MODELS}
        yield jobs


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", token=TOKEN, webhook_secret=SECRET)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[JobServer]:
    with generation_server(settings, **{"x-api-key": TOKEN}) as server:
        yield server


@pytest.fixture
def client(jobs: JobServer) -> Sync:
    """Return the unmodified client."""
    return Sync(base_url=str(jobs.client.base_url).rstrip("/"), api_key=TOKEN)
