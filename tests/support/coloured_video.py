"""Videos and images of flat patches, under the matrices, ranges and curves that cameras and editors use."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import numpy.typing as npt

PATCH = 32  # px
# Red, green, blue: three strong colours, skin, four greys.
PATCHES = np.array(
    [(176, 32, 32), (32, 176, 32), (32, 32, 176), (200, 168, 144), (16, 16, 16), (128, 128, 128), (240, 240, 240)],
    np.float64,
)
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # red, blue; by H.273's number

# Display P3, adapted to D50, as Apple's profile has it.
P3_TO_PCS = np.array([(0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407)])


def encode_planes(levels: npt.NDArray[np.float64], matrix: int, *, is_full: bool, bits: int = 8) -> npt.NDArray:
    """Return Y, U, V (N, 3) of R'G'B' levels (N, 3), 0..1, by the arithmetic of the standards."""
    red, blue = LUMA_WEIGHTS[matrix]
    luma = levels @ np.array([red, 1 - red - blue, blue])
    of_blue, of_red = (levels[:, 2] - luma) / 2 / (1 - blue), (levels[:, 0] - luma) / 2 / (1 - red)
    top = (1 << bits) - 1
    spans = (top, top, 0) if is_full else (219 << bits - 8, 224 << bits - 8, 16 << bits - 8)
    planes = np.stack([luma * spans[0] + spans[2], *(part * spans[1] + (1 << bits - 1) for part in (of_blue, of_red))])
    return np.clip(np.round(planes), 0, top).T


def make_patches(
    matrix: int,
    *,
    is_full: bool = False,
    tagged: bool = True,
    levels: npt.NDArray[np.float64] = PATCHES / 255,
    bits: int = 8,
    height: int = 64,
    transfer: int = 2,
    primaries: int = 2,
    codec: str = "libx264",
    n_frames: int = 3,
) -> bytes:
    """Encode R'G'B' levels (N, 3), 0..1, as vertical bars of 32 pixels, losslessly."""
    planes = encode_planes(levels, matrix, is_full=is_full, bits=bits)
    full = {8: "yuv420p", 10: "yuv420p10le"}[bits]
    frame = av.VideoFrame(PATCH * len(levels), height, full)
    for i, plane in enumerate(frame.planes):
        samples = np.zeros((plane.height, plane.line_size * 8 // (8 if bits == 8 else 16)), "u1" if bits == 8 else "u2")
        samples[:, : plane.width] = np.repeat(planes[:, i], plane.width // len(levels))
        plane.update(samples.tobytes())
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska" if codec == "ffv1" else "mp4") as out:
        video = out.add_stream(codec, rate=25, options={"qp": "0"} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = frame.width, frame.height, full
        if tagged:
            context = video.codec_context
            context.colorspace, context.color_range = matrix, 2 if is_full else 1
            context.color_trc, context.color_primaries = transfer, primaries
        for i in range(n_frames):
            frame.pts = i
            out.mux(video.encode(frame))
        out.mux(video.encode())
    return buffer.getvalue()


def read_patches(frame: npt.NDArray[np.uint8], n_patches: int = len(PATCHES)) -> npt.NDArray[np.float64]:
    """Return R, G, B (N, 3), 0..255, of the inside of each bar of a BGR frame."""
    middle = frame[frame.shape[0] // 4 : frame.shape[0] * 3 // 4].astype(np.float64)
    bars = np.array_split(middle, n_patches, axis=1)
    return np.array([bar[:, PATCH // 4 : -PATCH // 4, ::-1].mean(axis=(0, 1)) for bar in bars])


def shown_patches(video: bytes, n_patches: int = len(PATCHES)) -> npt.NDArray[np.float64]:
    """Return what a player shows that believes the tags: R, G, B (N, 3), 0..255, not rounded."""
    with av.open(io.BytesIO(video)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name in ("yuv420p", "yuvj420p")
    samples = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[plane.height // 2, : plane.width]
        size = plane.width // n_patches
        samples.append([rows[i * size + size // 4 : (i + 1) * size - size // 4].mean() for i in range(n_patches)])
    luma, of_blue, of_red = np.array(samples)
    is_full = frame.color_range == 2
    luma = luma if is_full else (luma - 16) * 255 / 219
    of_blue, of_red = ((part - 128) * (1 if is_full else 255 / 224) for part in (of_blue, of_red))
    red, blue = LUMA_WEIGHTS[{5: 6}.get(frame.colorspace, frame.colorspace)]
    reds, blues = luma + 2 * (1 - red) * of_red, luma + 2 * (1 - blue) * of_blue
    return np.stack([reds, (luma - red * reds - blue * blues) / (1 - red - blue), blues], axis=1)


def make_profile(
    colorants: np.ndarray, space: bytes = b"RGB ", names: tuple[bytes, ...] = (b"rXYZ", b"gXYZ", b"bXYZ")
) -> bytes:
    """Return an ICC profile of three colorants, the columns of (3, 3)."""
    header = bytearray(128)
    header[16:20], header[36:40] = space, b"acsp"
    start = 128 + 4 + 12 * 3
    table = struct.pack(">I", 3) + b"".join(
        struct.pack(">4sII", name, start + 20 * i, 20) for i, name in enumerate(names)
    )
    values = [b"XYZ \0\0\0\0" + struct.pack(">3i", *np.round(column * 65536).astype(int)) for column in colorants.T]
    return bytes(header) + table + b"".join(values)
