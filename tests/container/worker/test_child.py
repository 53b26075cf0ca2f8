from __future__ import annotations

from multiprocessing import Pipe

import pytest

from container.worker import child
from container.worker.messages import LoadFailed
from container.worker.routes import WorkerRoutes
from inference.errors import NotReady
from inference.media.sandbox import confinement


def test_a_worker_denies_inspection_before_it_loads_models(monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []

    def fail(model_dir: str | None) -> WorkerRoutes:
        steps.append("load")
        raise NotReady("no weights")

    monkeypatch.setattr(confinement, "deny_inspection", lambda: steps.append("deny"))  # it would last
    monkeypatch.setattr(WorkerRoutes, "load", fail)
    monkeypatch.setattr(child.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(child, "set_up_logs", lambda: None)
    server_end, worker_end = Pipe()
    with server_end, worker_end:
        child.run_worker([(worker_end, None)], None, {})
        assert server_end.recv() == LoadFailed("no weights")
    assert steps == ["deny", "load"]
