"""What a caller may ask of lip sync, and what comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.faces import FaceChoice

Loop = Literal["pingpong", "restart"]
Smoothing = Literal["centred", "upstream", "none"]
Paste = Literal["blend", "overwrite"]
Boxes = Literal["landmarks", "s3fd"]
Tail = Literal["whole", "drop"]
Enhance = Literal["none", "swin2sr"]
Shrinking = Literal["area", "bilinear"]
Reference = Literal["steady", "each"]
CHOICES: dict[str, tuple[str, ...]] = {
    "loop": ("pingpong", "restart"),
    "smoothing": ("centred", "upstream", "none"),
    "paste": ("blend", "overwrite"),
    "boxes": ("landmarks", "s3fd"),
    "tail": ("whole", "drop"),
    "enhance": ("none", "swin2sr"),
    "shrinking": ("area", "bilinear"),
    "reference": ("steady", "each"),
}
RESIZE_FACTORS = (1, 2, 4)
LOWEST_FPS, HIGHEST_FPS = 1.0, 120.0
STILL_FPS = 25.0  # of a picture that is made to talk; also of a film that does not say
MOST_PADDING = 2000  # px
MOST_OFFSET = 25  # frames


@dataclass(frozen=True)
class Pads:
    """Pixels added to a face's box, after the resize."""

    top: int = 0
    bottom: int = 10
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class SyncOptions:
    """One request. The defaults mend what upstream does badly; `PARITY` does as upstream.

    Raises: InvalidRequest for a value that is none.
    """

    fps: float | None = None  # None: the film's own; 25 for a picture
    resize_factor: int = 1  # the frames' sides are divided by it: 1, 2 or 4
    shrinking: Shrinking = "area"  # how: the mean of what falls together; upstream takes four pixels of it
    pads: Pads = Pads()
    face: FaceChoice = "largest"  # or which one, from 0, left to right, in the first frame with that many
    loop: Loop = "pingpong"  # what frames follow the last one: back again, or the first (a hard jump)
    smoothing: Smoothing = "centred"  # of boxes over five frames; upstream's window looks ahead, so boxes lead
    paste: Paste = "blend"  # a feathered lower face; upstream overwrites the whole box
    boxes: Boxes = "landmarks"  # where faces come from; s3fd is upstream's detector, slow, brought by the user
    tail: Tail = "whole"  # the film lasts as long as the voice; upstream drops the last frames
    enhance: Enhance = "none"  # what makes mouths sharper that are larger than the network's 96 pixels
    reference: Reference = "steady"  # the face shown whole: one while it fits; upstream shows each frame its own mouth
    mel_offset_frames: int = -1  # how Wav2Lip was trained; upstream's inference uses 0, a frame late

    def __post_init__(self) -> None:
        for name, expected in CHOICES.items():
            if getattr(self, name) not in expected:
                raise InvalidRequest(f"{name} {getattr(self, name)!r}: expected one of {', '.join(expected)}")
        if self.resize_factor not in RESIZE_FACTORS:
            raise InvalidRequest(f"resize_factor {self.resize_factor!r}: expected 1, 2 or 4")
        if self.fps is not None and not LOWEST_FPS <= self.fps <= HIGHEST_FPS:
            raise InvalidRequest(f"fps {self.fps!r}: expected {LOWEST_FPS:g} to {HIGHEST_FPS:g}")
        for side, pixels in asdict(self.pads).items():
            if not isinstance(pixels, int) or not abs(pixels) <= MOST_PADDING:
                raise InvalidRequest(f"pads: {side} {pixels!r}; expected at most {MOST_PADDING} pixels")
        if self.face != "largest" and not (type(self.face) is int and self.face >= 0):
            raise InvalidRequest(f"face {self.face!r}: expected 'largest' or a number from 0 up")
        if not abs(self.mel_offset_frames) <= MOST_OFFSET:
            raise InvalidRequest(f"mel_offset_frames {self.mel_offset_frames!r}: expected at most {MOST_OFFSET}")


PARITY = SyncOptions(
    loop="restart",
    smoothing="upstream",
    paste="overwrite",
    boxes="s3fd",
    tail="drop",
    mel_offset_frames=0,
    shrinking="bilinear",
    reference="each",
)


@dataclass(frozen=True)
class SyncOutput:
    """One film. model: the checkpoint's name. path: where it was written; None where `video` holds its bytes.

    ms_per_frame: spent in the network alone.
    """

    model: str
    sha256: str
    num_frames: int
    duration_s: float
    ms_per_frame: float = 0.0
    path: Path | None = None
    video: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SyncResult:
    """What was made: one film for each checkpoint, all of the same length, size and rate.

    frames_without_face: passed through untouched. timings_ms: wall time by stage, and "total".
    """

    outputs: tuple[SyncOutput, ...]
    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    frames_without_face: int
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without the films' bytes."""
        found = asdict(self)
        for one in found["outputs"]:
            one.pop("video")
            one["path"] = None if one["path"] is None else str(one["path"])
        return found
