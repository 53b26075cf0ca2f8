"""From HDR and wide gamuts to BT.709: the curves, as a cube of colours that FFmpeg looks up.

PQ and HLG become the light of a display (BT.2100; HLG that of 1000 cd/m2). The brightest of red, green and blue is
compressed by the EETF of ITU-R BT.2390 from the content's peak to 203 cd/m2, the white of BT.2408: for a peak of 1000,
what is darker than 90 cd/m2 stays as it is. The other two follow in proportion, so that hues stay. Then come the
primaries of BT.709, colours outside them clipped, and the gamma of 2.4 of BT.1886.

SDR of wide primaries (BT.2020, Display P3 and other ICC profiles) only changes its primaries, by the curve of sRGB if
it has that one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inference.media.colour import Colour

Light = npt.NDArray[np.float64]

CUBE_LEVEL = 6
CUBE_SIDE = CUBE_LEVEL**2  # colours along each edge; between them FFmpeg interpolates
SDR_WHITE_NITS = 203.0  # ITU-R BT.2408
SDR_GAMMA = 2.4  # ITU-R BT.1886
HLG_PEAK_NITS, HLG_GAMMA = 1000.0, 1.2  # ITU-R BT.2100, for the nominal display
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
PQ_PEAK_NITS = 10_000.0
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128  # SMPTE ST 2084
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
DARKEST_NITS = 1e-6  # so that black is not divided by zero


@lru_cache(maxsize=4)
def make_cube(colour: Colour) -> npt.NDArray[np.uint16]:
    """Return a HALD image: (L^3, L^3, 3) uint16 RGB for L = CUBE_LEVEL; red changes fastest, then green, then blue."""
    steps = np.linspace(0, 1, CUBE_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    levels = to_sdr(np.stack([red, green, blue], axis=-1).reshape(-1, 3), colour)
    return np.round(levels * 65535).astype(np.uint16).reshape(CUBE_LEVEL**3, CUBE_LEVEL**3, 3)


def to_sdr(levels: Light, colour: Colour) -> Light:
    """Convert levels (N, 3) red, green, blue, 0..1, to those of BT.709."""
    if colour.hdr is None:
        light = srgb_to_light(levels) if colour.is_srgb else np.power(levels, SDR_GAMMA)
    else:
        nits = hlg_to_nits(levels) if colour.hdr == "HLG" else pq_to_nits(levels)
        peak = nits.max(axis=1, keepdims=True)
        mapped = compress(peak, HLG_PEAK_NITS if colour.hdr == "HLG" else colour.peak_nits)
        light = nits * (mapped / np.maximum(peak, DARKEST_NITS)) / SDR_WHITE_NITS
    if colour.to_bt709 is not None:
        light = light @ np.array(colour.to_bt709).T
    light = np.clip(light, 0, 1)
    return light_to_srgb(light) if colour.is_srgb and colour.hdr is None else np.power(light, 1 / SDR_GAMMA)


def srgb_to_light(levels: Light) -> Light:
    """Source: IEC 61966-2-1."""
    return np.where(levels <= 0.04045, levels / 12.92, np.power((levels + 0.055) / 1.055, 2.4))


def light_to_srgb(light: Light) -> Light:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def compress(nits: Light, peak_nits: float) -> Light:
    """Compress light of 0..peak to 0..203 cd/m2. Source: ITU-R BT.2390, 5.4.1, with black at 0."""
    top = nits_to_pq(np.array(peak_nits))
    white = float(nits_to_pq(np.array(SDR_WHITE_NITS)) / top)
    level = np.minimum(nits_to_pq(nits) / top, 1)
    knee = 1.5 * white - 0.5
    if knee >= 1:
        return nits
    t = (level - knee) / (1 - knee)
    curve: Light = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return pq_to_nits(np.where(level < knee, level, curve) * top)


def pq_to_nits(levels: Light) -> Light:
    """Return the light of PQ levels, 0..1, in cd/m2."""
    root = np.power(np.clip(levels, 0, 1), 1 / PQ_M2)
    nits: Light = PQ_PEAK_NITS * np.power(np.maximum(root - PQ_C1, 0) / (PQ_C2 - PQ_C3 * root), 1 / PQ_M1)
    return nits


def nits_to_pq(nits: Light) -> Light:
    """Return the PQ levels, 0..1, of light in cd/m2."""
    root = np.power(np.clip(nits / PQ_PEAK_NITS, 0, 1), PQ_M1)
    level: Light = np.power((PQ_C1 + PQ_C2 * root) / (1 + PQ_C3 * root), PQ_M2)
    return level


def hlg_to_nits(levels: Light) -> Light:
    """Return the light of HLG levels (N, 3), 0..1, on the nominal display, in cd/m2."""
    scene = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - HLG_C) / HLG_A) + HLG_B) / 12)
    luminance = np.maximum(scene @ BT2020_LUMA, 0)[:, None]
    nits: Light = HLG_PEAK_NITS * np.power(luminance, HLG_GAMMA - 1) * scene
    return nits
