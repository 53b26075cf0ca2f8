"""The boxes of the active speaker: found by reading the video once more before it is synced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from inference.errors import InvalidRequest
from inference.faces import FaceBox, Landmarker
from inference.faces.cuts import CutDetector
from inference.lip_sync.active_speaker import ActiveSpeaker, Corners
from inference.lip_sync.box_cache import N_COLUMNS, NO_FACE, BoxTrack, row_of_located
from inference.lip_sync.face_group import region_of_box
from inference.lip_sync.face_table import tabulate_faces
from inference.lip_sync.locate import FaceTurn, LocatedFace
from inference.lip_sync.speaker_choice import choose_speakers, find_at_point, follow_face
from inference.lip_sync.speech_correlation import audio_levels, is_silent
from inference.media import Frame, VideoInfo
from inference.media.audio_spool import AudioSpool

NO_OWN_AUDIO = "active_speaker auto: the video {}; the largest face of each shot is synced"


def track_auto(
    frames: Iterable[Frame], landmarker: Landmarker, audio: AudioSpool | None, fps: Fraction, n_needed: int
) -> BoxTrack:
    """Return the boxes of the face that speaks. audio: of the video; without any, the largest face is taken."""
    table = tabulate_faces(frames, landmarker, n_needed)
    levels = None if audio is None else audio_levels(audio, float(fps), table.n_frames)
    return table.track_of(choose_speakers(table, levels, float(fps)))


def track_point(
    frames: Iterable[Frame],
    landmarker: Landmarker,
    speaker: ActiveSpeaker,
    rates: tuple[Fraction, Fraction],
    scale: int,
    n_needed: int,
) -> BoxTrack:
    """Return the boxes of the face at a point of a frame. rates: frames a second of the output, and of the video.

    scale: the resize factor of the frames. Raises: InvalidRequest if there is no such frame, or no face there.
    """
    assert speaker.frame is not None
    assert speaker.point is not None
    shown = int(speaker.frame * rates[0] / rates[1])
    table = tabulate_faces(frames, landmarker, max(n_needed, shown + 1))
    if shown >= table.n_frames:
        n_frames = int(table.n_frames * rates[1] / rates[0])
        raise InvalidRequest(f"active_speaker: frame {speaker.frame}, counted from 0; the video has {n_frames} frames")
    distinct = int(np.searchsorted(table.shown_at, shown, side="right")) - 1
    start = find_at_point(table, distinct, speaker.point, scale, f"frame {speaker.frame}")
    return table.track_of(follow_face(table, start))


def track_boxes(
    frames: Iterable[Frame],
    landmarker: Landmarker,
    boxes: tuple[Corners | None, ...],
    rates: tuple[Fraction, Fraction],
    scale: int,
    n_needed: int,
) -> BoxTrack:
    """Return the boxes of the face that a caller has found: framed by its landmarks, or as given if those fail."""
    rows: list[tuple[float, ...]] = []
    cuts, turn = CutDetector(), FaceTurn()
    last: Frame | None = None
    n_frames, is_whole = 0, True
    for frame in frames:
        if n_frames == n_needed:
            is_whole = False
            break
        if frame is not last:
            cuts.add(frame)
            box = boxes[min(int(n_frames * rates[1] / rates[0]), len(boxes) - 1)]
            located = None if box is None else locate_in_box(frame, landmarker, box, scale, turn)
            rows.append(NO_FACE if located is None else row_of_located(replace(located, shot=cuts.shot)))
        last = frame
        n_frames += 1
    return BoxTrack(np.array(rows, np.float64).reshape(-1, N_COLUMNS), n_frames, is_whole)


def locate_in_box(frame: Frame, landmarker: Landmarker, corners: Corners, scale: int, turn: FaceTurn) -> LocatedFace:
    """Return the face in a box of the input video."""
    box = FaceBox(*(value / scale for value in corners))
    face = landmarker.find_landmarks(frame, region_of_box(box))
    return LocatedFace(box) if face is None else replace(turn.locate(face), is_usable=True)


def input_rate(video: VideoInfo, output_fps: Fraction) -> Fraction:
    """Return the rate at which the frames of the video are counted: its own, that of the output for an image."""
    return output_fps if video.is_still or not video.fps else Fraction(video.fps).limit_denominator(1001)


def check_box_count(speaker: ActiveSpeaker, n_frames: int, fps: Fraction) -> None:
    """Raise InvalidRequest unless there is a box, or None, for each frame of the video."""
    if speaker.boxes is not None and len(speaker.boxes) != n_frames:
        raise InvalidRequest(
            f"active_speaker: {len(speaker.boxes)} boxes; expected one for each of the {n_frames} frames of the video, "
            f"at {float(fps):g} frames a second"
        )


def speaker_warnings(speaker: ActiveSpeaker | None, audio: AudioSpool | None) -> tuple[str, ...]:
    """Return what the caller should know of the choice. audio: of the video."""
    if speaker is None or not speaker.is_auto:
        return ()
    if audio is None:
        return (NO_OWN_AUDIO.format("has no audio"),)
    return (NO_OWN_AUDIO.format("is silent"),) if is_silent(audio) else ()
