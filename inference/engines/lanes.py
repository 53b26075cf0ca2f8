"""Engines for several requests at a time in one process."""

from __future__ import annotations

from inference.engines.engines import Engines
from inference.engines.read import ReadEngine
from inference.engines.remote_files import RemoteFiles
from inference.engines.sync import SyncEngine
from inference.media.sandbox.decoder import SandboxedDecoder


def make_lanes(engines: Engines, n: int) -> list[Engines]:
    """Return engines for so many requests at a time, each for one thread; of `engines`, only use the first of them.

    They share the weights: what several of them run through a network meanwhile is batched. Each has a decoder and face
    models of its own. For one request, the engines are returned as they are.
    """
    if n == 1:
        return [engines]
    reader = engines.reader.with_batching()
    syncer = engines.sync_engine.syncer and engines.sync_engine.syncer.with_batching()
    remote_files = RemoteFiles(engines.settings)
    lanes = []
    for i in range(n):
        decoder = engines.decoder if i == 0 else SandboxedDecoder(engines.settings.media_limits)
        own_reader = reader.for_thread(decoder.open, engines.settings.weight_sources)
        own_syncer = syncer and syncer.for_thread(decoder.open, decoder.spool_audio)
        sync_engine = SyncEngine(own_syncer, engines.sync_engine.missing, engines.settings, remote_files)
        lanes.append(Engines(engines.settings, ReadEngine(own_reader, remote_files), sync_engine, decoder))
    return lanes
