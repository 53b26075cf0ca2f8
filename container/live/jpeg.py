"""Encoding of frames: JPEG, or with alpha WebP and PNG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.errors import VisemeError

PATCH_QUALITY = 90  # JPEG quality of a face patch: about 4 KB at 182 px
WHOLE_QUALITY = 85  # JPEG quality of a whole frame: about 50 KB at 1280x720


ALPHA_QUALITY = 85  # WebP quality of a patch with alpha, whose alpha is lossless: about 4 KB at 200 px


def encode_webp(image_bgr: npt.NDArray[np.uint8], matte: npt.NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) uint8 BGR image and its matte, (H, W) uint8, as a WebP file with alpha."""
    import cv2

    image = cv2.merge([*cv2.split(image_bgr), matte])
    is_encoded, webp = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, ALPHA_QUALITY])
    if not is_encoded:
        raise VisemeError(f"an image of shape {image.shape} could not be encoded as WebP")
    return webp.tobytes()


def encode_png(image_bgr: npt.NDArray[np.uint8], matte: npt.NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) uint8 BGR image and its matte, (H, W) uint8, as a PNG file without the background's colours.

    At 512x512 that takes a sixth of WebP's time, which is longer than a frame lasts.
    """
    import cv2

    image = cv2.merge([*cv2.split(np.where(matte[..., None] > 0, image_bgr, 0)), matte])
    fastest = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    is_encoded, png = cv2.imencode(".png", image, fastest)
    if not is_encoded:
        raise VisemeError(f"an image of shape {image.shape} could not be encoded as PNG")
    return png.tobytes()


def encode_jpeg(image_bgr: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Encode an (H, W, 3) uint8 BGR image as a JPEG file."""
    import cv2

    is_encoded, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise VisemeError(f"an image of shape {image_bgr.shape} could not be encoded as JPEG")
    return jpeg.tobytes()
