"""Appearance of a person and their room, and idle head motion.

An appearance depends on a seed only. Head motion, blinks and brows depend on time and seed, never on the spoken text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]  # BGR, 0..255

SKINS: tuple[Colour, ...] = (
    (158, 180, 220),
    (142, 168, 212),
    (128, 156, 204),
    (116, 148, 198),
    (92, 124, 176),
    (74, 102, 150),
    (62, 84, 124),
)
# Lip colour as blue, green and red factors of the skin colour.
LIP_TINTS = ((0.62, 0.56, 0.9), (0.74, 0.62, 0.92), (0.6, 0.48, 0.88), (0.72, 0.68, 0.88))
HAIR_COLOURS: tuple[Colour, ...] = (
    (22, 20, 22),
    (26, 32, 44),
    (34, 50, 76),
    (44, 72, 112),
    (84, 132, 176),
    (40, 66, 138),
    (150, 152, 156),
)
DARK_HAIRS = 3  # the first hair colours, which are combined with any skin
FAIR_SKINS = 4  # the first skins, which are combined with any hair
HAIR_STYLES = ("short", "parted", "long", "curly", "buzz", "bob")
EYES: tuple[Colour, ...] = ((40, 58, 84), (30, 42, 62), (128, 110, 78), (84, 106, 84), (150, 128, 96), (70, 92, 112))
CLOTHES: tuple[Colour, ...] = (
    (92, 62, 48),
    (52, 58, 48),
    (124, 120, 118),
    (60, 52, 128),
    (168, 160, 150),
    (58, 50, 52),
    (128, 104, 52),
    (84, 116, 132),
)
BACKGROUNDS = ("plain", "gradient", "shelf", "window", "lamps")
WALLS: tuple[Colour, ...] = (
    (178, 136, 62),
    (146, 150, 152),
    (120, 140, 106),
    (150, 118, 122),
    (104, 128, 160),
    (168, 172, 176),
    (92, 84, 78),
)

Times = npt.NDArray[np.floating]

N_WAVES = 4
SLOWEST_HZ, FASTEST_HZ = 0.07, 0.6
YAW, PITCH, ROLL = 0.07, 0.035, 0.025  # rad, standard deviation of head rotation at sway 1
SHIFT_X, SHIFT_Y = 3.0, 1.6  # px at 360x288, standard deviation of head position at sway 1
CLOSING_S, SHUT_S, OPENING_S = 0.08, 0.04, 0.13  # phases of a blink


@dataclass(frozen=True)
class Appearance:
    """Appearance of one person and one room. Lengths are in units of the canonical face mesh (cm), colours BGR 0..255.

    Factors are 1 for the canonical face. Directions: x to the viewer's right, y down, z towards the viewer.
    """

    seed: int  # for fine detail: mottled skin, strands of hair, books on a shelf
    skin: Colour
    lip_tint: tuple[float, float, float]  # lip colour divided by skin colour
    hair: Colour
    hair_style: str  # one of HAIR_STYLES
    hairline: float  # added height of the forehead
    part: float  # x of the hair parting
    beard: float  # 0..1, darkness of the shaven cheeks
    eyes: Colour
    clothes: Colour
    collar: bool
    face_width: float
    jaw_width: float
    chin_length: float  # added below the mouth
    lip_fullness: float
    mouth_width: float
    nose_width: float
    nose_length: float
    eye_size: float
    brow_weight: float  # thickness
    brow_height: float  # added
    light: tuple[float, float, float]  # unit vector towards the light
    light_strength: float  # of the directional light, in addition to `ambient`
    ambient: float
    warmth: float  # -1 (blue light) .. 1 (yellow)
    background: str  # one of BACKGROUNDS
    wall: Colour
    wall_far: Colour  # lower end of a gradient
    noise_sigma: float  # camera noise, in grey levels
    blur: float  # camera blur, sigma in px at 360x288
    distance: float  # 1 is the default face size in the frame; larger values make it smaller
    sway: float  # factor of the idle head motion
    blinks_per_min: float

    @classmethod
    def from_seed(cls, seed: int) -> Appearance:
        """Draw an appearance from `np.random.default_rng(seed)`; equal seeds give equal appearances."""
        rng = np.random.default_rng(seed)
        skin = int(rng.integers(len(SKINS)))
        fair = skin < FAIR_SKINS
        hair = int(rng.integers(len(HAIR_COLOURS) if fair else DARK_HAIRS))
        style = str(rng.choice(HAIR_STYLES))
        eyes = int(rng.integers(len(EYES) if fair else 2))
        light, strength, ambient = draw_light(rng)
        wall, wall_far = rng.permutation(len(WALLS))[:2]

        def near(middle: float, spread: float) -> float:
            return float(middle + spread * np.clip(rng.normal(0, 0.5), -1, 1))

        return cls(
            seed=seed,
            skin=jitter(rng, SKINS[skin], 5),
            lip_tint=LIP_TINTS[int(rng.integers(len(LIP_TINTS)))],
            hair=jitter(rng, HAIR_COLOURS[hair], 5),
            hair_style=style,
            hairline=near(0.0, 0.5),
            part=near(0.0, 3.0),
            beard=float(rng.uniform(0.2, 0.7)) if style in ("short", "buzz", "parted") and rng.random() < 0.5 else 0.0,
            eyes=EYES[eyes],
            clothes=jitter(rng, CLOTHES[int(rng.integers(len(CLOTHES)))], 12),
            collar=bool(rng.random() < 0.4),
            face_width=near(0.98, 0.06),
            jaw_width=near(0.95, 0.07),
            chin_length=near(0.0, 0.4),
            lip_fullness=near(0.88 if fair else 0.98, 0.15),
            mouth_width=near(1.04, 0.08),
            nose_width=near(0.95 if fair else 1.06, 0.1),
            nose_length=near(0.0, 0.3),
            eye_size=near(1.2, 0.1),
            brow_weight=near(0.8, 0.2),
            brow_height=near(0.0, 0.2),
            light=light,
            light_strength=strength,
            ambient=ambient,
            warmth=near(0.0, 0.8),
            background=BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))],
            wall=jitter(rng, WALLS[int(wall)], 14),
            wall_far=jitter(rng, WALLS[int(wall_far)], 14),
            noise_sigma=float(rng.uniform(1.0, 2.6)),
            blur=float(rng.uniform(0.35, 0.65)),
            distance=float(rng.uniform(0.95, 1.1)),
            sway=float(rng.uniform(0.6, 1.2)),
            blinks_per_min=float(rng.uniform(10, 22)),
        )


def draw_light(rng: np.random.Generator) -> tuple[tuple[float, float, float], float, float]:
    """Draw direction, strength and ambient light. Light comes from the front and above; side light has more ambient."""
    side = float(np.clip(rng.normal(0, 0.4), -0.85, 0.85))
    direction = np.array([side, -float(rng.uniform(0.25, 0.6)), 0.9])
    direction /= np.linalg.norm(direction)
    x, y, z = (float(v) for v in direction)
    ambient = 0.5 + 0.12 * abs(side) + float(rng.uniform(-0.03, 0.05))
    return (x, y, z), float(rng.uniform(0.52, 0.64)), ambient


def jitter(rng: np.random.Generator, colour: Colour, spread: int) -> Colour:
    blue, green, red = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in colour)
    return blue, green, red


@dataclass(frozen=True)
class HeadPose:
    """Head pose at one moment.

    Angles are in radians: yaw turns the nose to the viewer's right, pitch lifts it, roll tilts the head clockwise.
    x, y: shift in px at 360x288, right and down. blink: 1 is closed. brow: 1 is raised.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    blink: float = 0.0
    brow: float = 0.0


def head_motion(appearance: Appearance, seed: int, times_s: Times) -> list[HeadPose]:
    """Return the pose at each time, in seconds. A pose depends on its own time only, not on the other times given."""
    rng = np.random.default_rng([seed, 6])
    yaw, pitch, roll, x, y, brow = (sway(rng, times_s) for _ in range(6))
    still = float(rng.uniform(-0.05, 0.05))  # real heads are never quite straight
    blink = blinks(appearance, seed, times_s)
    rows = np.stack(
        [
            still + appearance.sway * YAW * yaw,
            appearance.sway * PITCH * pitch,
            appearance.sway * ROLL * roll,
            appearance.sway * SHIFT_X * x,
            appearance.sway * SHIFT_Y * y,
            blink,
            np.clip(0.15 + 0.25 * brow, 0, 1),
        ],
        axis=1,
    )
    return [HeadPose(*(float(value) for value in row)) for row in rows]


def sway(rng: np.random.Generator, times_s: Times) -> npt.NDArray[np.float64]:
    """Return a smooth random wave with a standard deviation of about 1; slow components are larger."""
    hz = np.exp(rng.uniform(np.log(SLOWEST_HZ), np.log(FASTEST_HZ), N_WAVES))
    phase = rng.uniform(0, 2 * np.pi, N_WAVES)
    size = hz**-0.5
    size *= np.sqrt(2 / np.sum(size**2))
    return np.asarray(np.sin(2 * np.pi * np.multiply.outer(times_s, hz) + phase) @ size)


def blinks(appearance: Appearance, seed: int, times_s: Times) -> npt.NDArray[np.float64]:
    """Return how far the eyes are closed at each time, 0..1.

    Time is divided into slots. Each slot's blink is drawn from the seed and the slot's number.
    """
    slot_s = 60 / appearance.blinks_per_min
    shut = np.zeros(len(times_s))
    slots = np.floor(np.asarray(times_s, np.float64) / slot_s).astype(int)
    for slot in range(int(slots.min(initial=0)) - 1, int(slots.max(initial=0)) + 1):
        at = (slot + np.random.default_rng([seed, 7, slot + 1_000_000]).uniform(0.1, 0.9)) * slot_s
        since = times_s - at
        closing = np.clip(since / CLOSING_S, 0, 1)
        opening = np.clip((since - CLOSING_S - SHUT_S) / OPENING_S, 0, 1)
        shut = np.maximum(shut, np.minimum(closing, 1 - opening))
    return shut * shut * (3 - 2 * shut)
