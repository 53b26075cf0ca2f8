from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state, uniform

from inference.avatar.compose import compose_patch, cut_crop, cut_face
from inference.dimensions.avatar import MASKED_COLUMNS, MASKED_ROWS
from inference.faces import FaceBox
from inference.faces.paste import overwrite_face
from inference.models import AvatarGenerator, AvatarUNet


def upstreams_frame() -> np.ndarray:
    y, x = np.mgrid[0:720, 0:1280]
    blue, green = (7 * x + 3 * y) % 256, (x * x // 64 + y) % 256
    red = ((x // 8 + y // 8) % 2) * 200 + (x + y) % 56
    return np.stack([blue, green, red], axis=2).astype(np.uint8)


def box_of(golden: np.lib.npyio.NpzFile, name: str) -> FaceBox:
    top, bottom, left, right = map(int, golden[f"{name}_box_y1y2x1x2"])
    return FaceBox(left, top, right, bottom)


def said() -> np.ndarray:
    return (uniform("avatar.pred", (3, 320, 320)) * 255).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_crops_and_composed_frames_match_upstream(shared: Path, name: str):
    with np.load(shared / "golden" / "avatar_frame.npz") as golden:
        frame, box = upstreams_frame(), box_of(golden, name)
        assert zlib.crc32(frame.tobytes()) == int(golden["frame_crc32"])
        crop = cut_crop(frame, box)
        assert zlib.crc32(crop.tobytes()) == int(golden[f"{name}_crop328_crc32"])
        patch = compose_patch(crop, said(), box)
        if f"{name}_composed_box" in golden:
            check_resized(patch, golden[f"{name}_composed_box"])
            patch = golden[f"{name}_composed_box"]
        assert zlib.crc32(overwrite_face(frame, patch, box).tobytes()) == int(golden[f"{name}_composed_crc32"])


def check_resized(patch: np.ndarray, expected: np.ndarray) -> None:
    """Check a resized image to the byte, but for what differs by the CPU.

    OpenCV resizes with Intel's IPP, which has code of its own for each generation of CPUs (SSE4.2, AVX2, AVX-512):
    about one byte in 10^5 is rounded to the other side. OPENCV_IPP=sse42 shows it.
    """
    difference = cv2.absdiff(patch, expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1e-4 * difference.size


class Echo(AvatarUNet):
    """Returns the U-Net's input."""

    seen: torch.Tensor

    def forward(self, face: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        self.seen = face
        return face[:, :3]


def test_the_network_input_matches_upstream(shared: Path):
    with np.load(shared / "golden" / "avatar_frame.npz") as golden:
        roi = cut_face(golden["a_crop328"])
        np.testing.assert_array_equal(roi, golden["a_roi320"])
        echo = Echo("ave", (4, 4, 4, 4, 4))
        AvatarGenerator(echo)(torch.from_numpy(roi.copy())[None], torch.zeros(1, *echo.audio_shape))
        seen = echo.seen.numpy()
        np.testing.assert_array_equal(seen[:, :, ::4, ::4], golden["a_input6_every4"])
        assert zlib.crc32(seen.tobytes()) == int(golden["a_input6_crc32"])
        assert list(golden["mask_rows_cols"]) == [
            *(MASKED_ROWS.start, MASKED_ROWS.stop),
            *(MASKED_COLUMNS.start, MASKED_COLUMNS.stop),
        ]


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)


def test_the_whole_face_comes_first_and_the_masked_one_second():
    """Not as in Wav2Lip; and blue before red."""
    echo = Echo("ave", (4, 4, 4, 4, 4))
    face = np.zeros((1, 320, 320, 3), np.uint8)
    face[..., 0] = 255  # blue
    said = AvatarGenerator(echo)(torch.from_numpy(face), torch.zeros(1, *echo.audio_shape))
    assert torch.equal(echo.seen[0, :, 160, 160], torch.tensor([1.0, 0, 0, 0, 0, 0]))
    assert torch.equal(echo.seen[0, :, 2, 160], torch.tensor([1.0, 0, 0, 1, 0, 0]))  # above the mask
    assert said.numpy().tobytes() == face.tobytes()


def test_the_crop_is_cut_to_320_and_not_scaled():
    crop = picture(328, 328)
    np.testing.assert_array_equal(cut_face(crop), crop[4:324, 4:324])
    assert np.shares_memory(cut_face(crop), crop)


def test_only_the_inside_of_the_crop_is_replaced():
    """The patch of 320 px fills the crop except for 4 px on each side, which stay unchanged."""
    frame, box = picture(400, 400), FaceBox(30, 40, 358, 368)  # 328 px: nothing is resized
    crop = cut_crop(frame, box)
    np.testing.assert_array_equal(crop, frame[40:368, 30:358])
    patch = compose_patch(crop, np.zeros((320, 320, 3), np.uint8), box)
    assert not patch[4:324, 4:324].any()
    patch[4:324, 4:324] = crop[4:324, 4:324]
    np.testing.assert_array_equal(patch, crop)
    whole = overwrite_face(frame, compose_patch(crop, cut_face(crop), box), box)
    np.testing.assert_array_equal(whole, frame)  # pasted unchanged


def test_a_patch_has_the_size_of_its_box():
    frame, box = picture(300, 300), FaceBox(10, 20, 192, 202)
    patch = compose_patch(cut_crop(frame, box), cut_face(cut_crop(frame, box)), box)
    assert patch.shape == (182, 182, 3)
    assert np.abs(patch.astype(int) - frame[20:202, 10:192])[2:-2, 2:-2].mean() < 4  # except for the two resizes


def test_a_feathered_edge_shows_no_seam():
    """By hand: 8 px fade by 3t^2 - 2t^3, starting half a pixel in; the middle is the network's output only."""
    crop, box = np.full((328, 328, 3), 100, np.uint8), FaceBox(0, 0, 328, 328)
    said = np.full((320, 320, 3), 200, np.uint8)
    patch = compose_patch(crop, said, box, feather=8)[164, :, 0].astype(int)
    assert patch[:4].tolist() == [100] * 4
    t = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(patch[4:12], 100 + 100 * (3 * t**2 - 2 * t**3), atol=1)
    assert (patch[12:316] == 200).all()
    assert compose_patch(crop, said, box)[164, 4, 0] == 200  # as upstream, without a transition


def test_levels_are_truncated():
    net = AvatarUNet("ave", (4, 6, 8, 10, 12)).eval()
    net.load_state_dict(seeded_state(net, 1.0))
    generator = AvatarGenerator(net)
    face = torch.from_numpy(picture(320, 320))[None]
    audio = torch.ones(1, *net.audio_shape)
    with torch.inference_mode():
        whole = face.permute(0, 3, 1, 2).float() / 255
        masked = whole.clone()
        masked[:, :, 5:310, 5:315] = 0
        levels = (net(torch.cat([whole, masked], 1), audio).numpy() * 255).astype(np.uint8)
        np.testing.assert_array_equal(generator(face, audio).numpy(), levels.transpose(0, 2, 3, 1))
