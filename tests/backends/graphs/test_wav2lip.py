from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.face_networks import make_s3fd, make_wav2lip, run_module, s3fd_input, wav2lip_inputs
from support.golden_weights import seeded_state

from inference.backends import OpenVinoNetwork
from inference.backends.graphs.wav2lip import build_s3fd, build_wav2lip
from inference.models import Wav2Lip


@pytest.mark.parametrize("n", [1, 3])
def test_the_graph_of_wav2lip_equals_the_module(n: int):
    wav2lip = make_wav2lip()
    (expected,) = run_module(wav2lip, *wav2lip_inputs(n))
    (found,) = OpenVinoNetwork(build_wav2lip(wav2lip.state_dict()))(*wav2lip_inputs(n))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [(160, 128), (97, 131)])
def test_the_graph_of_s3fd_equals_the_module(size: tuple[int, int]):
    s3fd = make_s3fd()
    expected = run_module(s3fd, s3fd_input(*size))
    for one, other in zip(OpenVinoNetwork(build_s3fd(s3fd.state_dict()))(s3fd_input(*size)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_full_size_network_agrees_with_upstream(shared: Path):
    module = Wav2Lip().eval()
    module.load_state_dict(seeded_state(module))
    with np.load(shared / "golden" / "wav2lip.npz") as golden:
        output = OpenVinoNetwork(build_wav2lip(module.state_dict()))(*wav2lip_inputs())[0]
        np.testing.assert_allclose(output, golden["output"], atol=1e-4)
