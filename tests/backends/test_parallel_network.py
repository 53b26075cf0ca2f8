from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from inference.avatar.network import make_generator
from inference.backends import Device
from inference.backends.graphs.model import import_ops, make_model
from inference.backends.parallel_network import ParallelNetwork
from inference.dimensions.avatar import FACE_SIDE
from inference.models import AvatarUNet
from inference.weights.architectures import weights_of


def test_each_call_gets_its_own_result_whatever_runs_at_the_same_time():
    ops = import_ops()
    x = ops.parameter([1, 64], np.float32)
    network = ParallelNetwork(make_model([ops.multiply(x, np.float32(2))], [x], ("x", "y"), "Double"), "f32", 2)

    def call(i: int) -> np.ndarray:
        (found,) = network(np.full((1, 64), i, np.float32))
        return found

    with ThreadPoolExecutor(5) as threads:  # more callers than requests
        found = list(threads.map(call, range(200)))
    np.testing.assert_array_equal(np.stack(found)[:, 0, 0], 2 * np.arange(200))


def test_a_narrow_unet_that_is_shared_returns_the_same_images():
    torch.manual_seed(2)
    unet = weights_of(AvatarUNet("ave", (4, 4, 4, 4, 4), 16))
    one, shared = (make_generator(unet, Device("cpu", "f32"), 1, is_shared=is_shared) for is_shared in (False, True))
    rng = np.random.default_rng(3)
    face = rng.integers(0, 256, (1, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    audio = rng.standard_normal((1, *unet.sizes.audio_shape)).astype(np.float32)
    assert isinstance(shared, ParallelNetwork)
    assert not isinstance(one, ParallelNetwork)
    np.testing.assert_array_equal(one(face, audio)[0], shared(face, audio)[0])
    wide = weights_of(AvatarUNet("ave", (16, 4, 4, 4, 4), 16))
    assert not isinstance(make_generator(wide, Device("cpu", "f32"), 1, is_shared=True), ParallelNetwork)
