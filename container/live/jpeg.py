"""Pictures as clients get them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.errors import VisemeError

PATCH_QUALITY = 90  # some 4 KB for 182 px
WHOLE_QUALITY = 85  # some 50 KB for 1280x720


def encode_jpeg(picture_bgr: npt.NDArray[np.uint8], quality: int) -> bytes:
    """(H, W, 3) uint8 BGR as a JPEG file."""
    import cv2

    is_done, packed = cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_done:
        raise VisemeError(f"a picture of {picture_bgr.shape} could not be encoded as a JPEG")
    return packed.tobytes()
