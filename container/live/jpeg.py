"""JPEG encoding of frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.errors import VisemeError

PATCH_QUALITY = 90  # JPEG quality of a face patch: about 4 KB at 182 px
WHOLE_QUALITY = 85  # JPEG quality of a whole frame: about 50 KB at 1280x720


def encode_jpeg(image_bgr: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Encode an (H, W, 3) uint8 BGR image as a JPEG file."""
    import cv2

    is_encoded, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise VisemeError(f"an image of shape {image_bgr.shape} could not be encoded as JPEG")
    return jpeg.tobytes()
