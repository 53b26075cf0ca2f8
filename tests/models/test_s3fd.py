from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state

from inference.faces.s3fd import MEAN, S3fdDetector, decode_candidates, suppress_boxes, to_input
from inference.models import S3FD


@pytest.fixture(scope="module")
def net() -> S3FD:
    net = S3FD().eval()
    net.load_state_dict(seeded_state(net))
    return net


def test_names_and_outputs_equal_upstream(shared: Path, net: S3FD):
    listed = json.loads((shared / "golden" / "s3fd_state_dict.json").read_text())
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == dict(listed)
    with np.load(shared / "golden" / "s3fd.npz") as golden:
        image = to_input(golden["image_bgr"])
        np.testing.assert_allclose(image[:, :, ::8, ::8], golden["net_input"], atol=1e-6)
        with torch.inference_mode():
            maps = net(torch.from_numpy(image))
        names = [f"{kind}{i}" for i in range(1, 7) for kind in ("cls", "reg")]
        for name, found in zip(names, maps, strict=True):
            np.testing.assert_allclose(found, golden[name], atol=1e-4)


def empty_maps(height: int = 160, width: int = 128) -> list[np.ndarray]:
    """Return output maps without a face, for 160 x 128 pixels."""
    sizes = [(40, 32), (20, 16), (10, 8), (9, 8), (5, 4), (3, 2)]
    maps = []
    for rows, columns in sizes:
        logits = np.zeros((1, 2, rows, columns), np.float32)
        logits[:, 0], logits[:, 1] = 4, -4
        maps += [logits, np.zeros((1, 4, rows, columns), np.float32)]
    return maps


def put(maps: list[np.ndarray], cell: np.ndarray) -> None:
    level, row, column = (int(x) for x in cell[:3])
    maps[2 * level][0, :, row, column] = cell[3:5]
    maps[2 * level + 1][0, :, row, column] = cell[5:9]


def test_boxes_equal_upstream(shared: Path):
    with np.load(shared / "golden" / "s3fd.npz") as golden:
        for image in range(3):
            maps = empty_maps()
            cells = golden["decode_cells"]
            for cell in cells[cells[:, 0] == image]:
                put(maps, cell[1:])
            kept = S3fdDetector(lambda _, maps=maps: maps).detect(np.zeros((160, 128, 3), np.uint8))
            np.testing.assert_allclose(kept, golden[f"decode_kept_{image}"], atol=1e-3)
            box = S3fdDetector(lambda _, maps=maps: maps).detect_best(np.zeros((160, 128, 3), np.uint8))
            found = [-1] * 4 if box is None else [box.left, box.top, box.right, box.bottom]
            assert [found] == [golden["decode_final_xyxy"][image].tolist()] or (
                box is None and golden["decode_final_xyxy"][image][0] == -1
            )


def test_a_box_by_hand():
    """Scale 1 has strides of 8 px and anchors of 32: row 5, column 3 is at (28, 44); dx 1 moves it by 3.2 px."""
    maps = empty_maps()
    put(maps, np.array([1, 5, 3, -2, 2, 1, 0, 0, np.log(2) / 0.2]))
    found = decode_candidates(maps)
    score = 1 / (1 + np.exp(-4))
    np.testing.assert_allclose(found, [[28 + 3.2 - 16, 44 - 32, 28 + 3.2 + 16, 44 + 32, score]], atol=1e-4)


def test_overlapping_boxes_are_suppressed_by_score():
    boxes = np.array([[0, 0, 9, 9, 0.6], [1, 0, 10, 9, 0.9], [20, 20, 29, 29, 0.7]], np.float32)
    assert suppress_boxes(boxes)[:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_no_face_gives_no_box():
    detector = S3fdDetector(lambda _: empty_maps())
    assert detector.detect_best(np.zeros((160, 128, 3), np.uint8)) is None


def test_the_mean_is_subtracted_in_rgb():
    grey = to_input(np.full((8, 8, 3), 120, np.uint8))
    assert grey[0, :, 0, 0].tolist() == [120 - mean for mean in MEAN]
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[..., 0] = 255
    assert to_input(blue)[0, :, 0, 0].tolist() == [-104, -117, 255 - 123]
