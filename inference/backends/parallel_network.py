"""A narrow network that several threads run at the same time, each call on one core."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from inference.backends.openvino_network import HINTS, Array
from inference.backends.telemetry import import_openvino

if TYPE_CHECKING:
    import openvino as ov


class ParallelNetwork:
    """A compiled network for the CPU: as many calls run at a time as it has requests, and others wait for one.

    A network of small layers gains little from a second core: its threads wait for each other at each layer, and keep
    the core busy meanwhile. Its threads are not bound to cores, as OpenVINO's are by default: a bound one waits for the
    other programs of its core while another core is free.
    """

    def __init__(self, graph: ov.Model, precision: str, n_requests: int) -> None:
        """Compile a graph. precision: f32 or bf16."""
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": n_requests,
            "INFERENCE_NUM_THREADS": n_requests,  # of all requests together
            "ENABLE_CPU_PINNING": False,
        }
        network = import_openvino().Core().compile_model(graph, "CPU", config)
        self._requests: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(n_requests):
            self._requests.put(network.create_infer_request())

    def __call__(self, *inputs: Array) -> Sequence[Array]:
        """Run the network. Returns copies of its outputs."""
        request = self._requests.get()
        try:
            results = request.infer(dict(enumerate(inputs)), share_inputs=True)
            return [np.array(results[i]) for i in range(len(results))]
        finally:
            self._requests.put(request)
