"""Options and results of lip sync."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.faces import FaceChoice
from inference.lip_sync.active_speaker import ActiveSpeaker
from inference.lip_sync.segments import SyncSegment, check_segments

LoopMode = Literal["pingpong", "restart"]
SmoothingMode = Literal["centred", "upstream", "none"]
PasteMode = Literal["blend", "overwrite"]
FaceDetectorName = Literal["landmarks", "s3fd"]
TailPolicy = Literal["whole", "drop"]
EnhancerName = Literal["none", "video", "swin2sr"]
VIDEO_DETAIL: EnhancerName = "video"
ResizeFilter = Literal["area", "bilinear"]
ReferenceMode = Literal["steady", "each"]
SyncMode = Literal["loop", "bounce", "cut_off", "silence", "remap"]
CHOICES: dict[str, tuple[str, ...]] = {
    "loop": ("pingpong", "restart"),
    "smoothing": ("centred", "upstream", "none"),
    "paste": ("blend", "overwrite"),
    "boxes": ("landmarks", "s3fd"),
    "tail": ("whole", "drop"),
    "enhance": ("none", "video", "swin2sr"),
    "shrinking": ("area", "bilinear"),
    "reference": ("steady", "each"),
}
SYNC_MODES: tuple[SyncMode, ...] = ("loop", "bounce", "cut_off", "silence", "remap")
LOOP_OF_MODE: dict[SyncMode | None, LoopMode] = {"loop": "restart", "bounce": "pingpong"}
RESIZE_FACTORS = (1, 2, 4)
MIN_FPS, MAX_FPS = 1.0, 120.0
DEFAULT_FPS = 25.0  # frames per second of the output for a still image, and for a video that does not declare its rate
MAX_PADDING = 2000  # pixels
MAX_MEL_OFFSET = 25  # frames, of the mel windows


@dataclass(frozen=True)
class Pads:
    """Pixels added to each side of a face's box, after the resize."""

    top: int = 0
    bottom: int = 10
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class SyncOptions:
    """Options of one request. The defaults fix what upstream does badly; `PARITY` does as upstream.

    Raises: InvalidRequest if an option is invalid.
    """

    fps: float | None = None  # None: the rate of the video; 25 for a still image
    resize_factor: int = 1  # divides the sides of the frames: 1, 2 or 4
    shrinking: ResizeFilter = "area"  # resize filter: averages all merged pixels; upstream interpolates between four
    pads: Pads = Pads()
    face: FaceChoice = "largest"  # or an index from 0, left to right, in the first frame with that many faces
    loop: LoopMode = "pingpong"  # frames after the last one: backwards, or from the first again (a visible jump)
    smoothing: SmoothingMode = "centred"  # average of boxes over five frames; upstream's window leads by two frames
    paste: PasteMode = "blend"  # feathers the lower face; upstream overwrites the whole box
    boxes: FaceDetectorName = "landmarks"  # face detector; s3fd is the one of upstream, slow and supplied by the user
    tail: TailPolicy = "whole"  # the video is as long as the audio; upstream drops the last frames
    enhance: EnhancerName = "none"  # detail from the video's own mouths, or super-resolution of large faces
    reference: ReferenceMode = "steady"  # reference face: one while it fits, or each frame's own, as upstream does
    mel_offset_frames: int = -1  # alignment in Wav2Lip's training; upstream's inference uses 0, which is a frame late
    sync_mode: SyncMode | None = None  # if audio and video differ in length; None: `loop`, for as long as the audio
    segments: tuple[SyncSegment, ...] = ()  # the parts that speak; the output is as long as the video
    active_speaker: ActiveSpeaker | None = None  # which face, if there are several; None: `face`

    def __post_init__(self) -> None:
        for name, expected in CHOICES.items():
            if getattr(self, name) not in expected:
                raise InvalidRequest(f"{name} {getattr(self, name)!r}: expected one of {', '.join(expected)}")
        if self.resize_factor not in RESIZE_FACTORS:
            raise InvalidRequest(f"resize_factor {self.resize_factor!r}: expected 1, 2 or 4")
        if self.fps is not None and not MIN_FPS <= self.fps <= MAX_FPS:
            raise InvalidRequest(f"fps {self.fps!r}: expected {MIN_FPS:g} to {MAX_FPS:g}")
        for side, pixels in asdict(self.pads).items():
            if not isinstance(pixels, int) or not abs(pixels) <= MAX_PADDING:
                raise InvalidRequest(f"pads: {side} {pixels!r}; expected at most {MAX_PADDING} pixels")
        self._check_sync_mode()
        self._check_segments()
        self._check_speaker()
        if self.face != "largest" and not (type(self.face) is int and self.face >= 0):
            raise InvalidRequest(f"face {self.face!r}: expected 'largest' or a number from 0 up")
        if not abs(self.mel_offset_frames) <= MAX_MEL_OFFSET:
            raise InvalidRequest(f"mel_offset_frames {self.mel_offset_frames!r}: expected at most {MAX_MEL_OFFSET}")

    @property
    def video_loop(self) -> LoopMode:
        """How the video goes on if the audio is longer: as `sync_mode` says, else `loop`."""
        return LOOP_OF_MODE.get(self.sync_mode, self.loop)

    @property
    def needs_own_audio(self) -> bool:
        """Whether the audio track of the video is used."""
        return bool(self.segments) or (self.active_speaker is not None and self.active_speaker.is_auto)

    def _check_sync_mode(self) -> None:
        if self.sync_mode is None:
            return
        if self.sync_mode not in SYNC_MODES:
            raise InvalidRequest(f"sync_mode {self.sync_mode!r}: expected one of {', '.join(SYNC_MODES)}")
        if self.tail == "drop":
            raise InvalidRequest(f"sync_mode {self.sync_mode!r}: does not apply to parity, which does as upstream")

    def _check_segments(self) -> None:
        if not self.segments:
            return
        check_segments(self.segments)
        if self.tail == "drop":
            raise InvalidRequest("segments: do not apply to parity, which does as upstream")
        if self.sync_mode == "remap":
            raise InvalidRequest(
                "sync_mode 'remap': changes the speed of the video; expected another one with segments, which keep it"
            )

    def _check_speaker(self) -> None:
        if self.active_speaker is None:
            return
        if self.face != "largest":
            raise InvalidRequest(f"active_speaker: does not go with face {self.face!r}; expected one of them")
        if self.boxes == "s3fd":
            raise InvalidRequest("active_speaker: does not apply to parity, which does as upstream")


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
    """One output video.

    model: name of the checkpoint. path: where it was written; None if `video` holds its bytes.
    ms_per_frame: time in the network alone.
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
    """The output videos: one for each checkpoint, all of the same length, size and rate.

    frames_without_face: frames passed through unchanged, as no face was found. timings_ms: wall time by stage, and
    "total". frames_passed_on: frames passed through unchanged, as their face is in profile, unclear or another one.
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
    frames_passed_on: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the bytes of the videos."""
        found = asdict(self)
        for one in found["outputs"]:
            one.pop("video")
            one["path"] = None if one["path"] is None else str(one["path"])
        return found
