import json
import zlib

import numpy as np
import pytest
import torch

from inference.models import LipCoordNet


def seeded(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def seeded_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a seeded tensor as in the script that made the reference outputs."""
    x = seeded(key).standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return np.float32(np.sqrt(2.0 / np.prod(shape[1:]))) * x
    return np.float32(0.01) * x


@pytest.fixture(scope="module")
def seeded_net() -> LipCoordNet:
    net = LipCoordNet().eval()
    net.load_state_dict({k: torch.from_numpy(seeded_tensor(k, tuple(v.shape))) for k, v in net.state_dict().items()})
    return net


def inputs(size: str) -> tuple[torch.Tensor, torch.Tensor]:
    batch, n_frames = map(int, size.split("x"))
    video = seeded(f"lipcoordnet.video.{size}").random((batch, 3, n_frames, 64, 128), dtype=np.float32)
    coords = seeded(f"lipcoordnet.coords.{size}").standard_normal((batch, n_frames, 20, 2), dtype=np.float32)
    return torch.from_numpy(video), torch.from_numpy(coords)


def test_size_and_shape_are_as_published():
    net = LipCoordNet()
    assert sum(p.numel() for p in net.parameters()) == 6_776_572
    assert len(net.state_dict()) == 32
    with torch.inference_mode():
        assert net.eval()(*inputs("1x40")).shape == (1, 40, 28)


def test_a_batch_equals_its_items(seeded_net: LipCoordNet):
    video, coords = inputs("2x75")
    with torch.inference_mode():
        both = seeded_net(video, coords)
        alone = torch.cat([seeded_net(video[i : i + 1], coords[i : i + 1]) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-5)


def test_both_inputs_matter(seeded_net: LipCoordNet):
    video, coords = inputs("1x40")
    with torch.inference_mode():
        plain = seeded_net(video, coords)
        assert (plain - seeded_net(video * 0.5, coords)).abs().max() > 0.01
        assert (plain - seeded_net(video, coords * 0.5)).abs().max() > 0.01


@pytest.mark.parametrize("size", ["1x75", "1x40", "2x75"])
def test_logits_equal_upstream(shared, seeded_net: LipCoordNet, size: str):
    golden = np.load(shared / "golden" / "lipcoordnet.npz")
    video, coords = inputs(size)
    assert video.ravel()[:4].numpy() == pytest.approx(golden[f"video_probe_{size}"])
    with torch.inference_mode():
        logits = seeded_net(video, coords).numpy()
    assert np.abs(logits - golden[f"logits_{size}"]).max() <= 2e-5


def test_names_and_shapes_equal_upstream(shared):
    expected = json.loads((shared / "golden" / "lipcoordnet_state_dict.json").read_text())
    assert [[k, list(v.shape)] for k, v in LipCoordNet().state_dict().items()] == expected
