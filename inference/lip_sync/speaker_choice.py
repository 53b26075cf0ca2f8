"""The face to sync in each frame, chosen from a table of all faces."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidRequest
from inference.faces import FaceBox
from inference.faces.track import SAME_FACE_OVERLAP
from inference.lip_sync.active_speaker import Point
from inference.lip_sync.face_table import BOTTOM, BOX, FRAME, LEFT, NUMBER, OPENING, RIGHT, SHOT, TOP, FaceTable
from inference.lip_sync.speech_correlation import (
    LAG_GAIN,
    MAX_LAG_S,
    MIN_LEVEL_DEVIATION,
    TREND_S,
    Curve,
    choose_path,
    mouth_evidence,
    scaled,
)

NO_NUMBER = -1  # of a frame without the face
ABSENT = -0.2  # evidence for a face in a frame in which it is not found
# Around the box from brow to chin, in shares of its sides, a point is still on the face: ears, forehead and hair.
MARGIN_X, MARGIN_TOP, MARGIN_BOTTOM = 0.15, 0.6, 0.1

Rows = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]  # the number of the chosen face in each distinct frame, or NO_NUMBER


def choose_speakers(table: FaceTable, levels: Curve | None, fps: float) -> Numbers:
    """Return the face that speaks in each frame: per shot, the one whose mouth moves with the audio.

    It may change within a shot, if two people speak in turn. levels: of the audio, for each frame of the output; None
    if it is silent: then the face that is largest in the shot.
    """
    chosen = np.full(table.n_distinct, NO_NUMBER)
    curves = None if levels is None else curve_of(table, levels, find_lag(table, levels, fps), fps)
    for shot in np.unique(table.rows[:, BOX][:, SHOT]):
        rows = table.rows[table.rows[:, BOX][:, SHOT] == shot]
        first, last = int(rows[0, FRAME]), int(rows[-1, FRAME])
        numbers = np.unique(rows[:, NUMBER])
        if curves is None or len(numbers) == 1:
            chosen[first : last + 1] = largest_of(rows)
            continue
        evidence = [evidence_of(rows[rows[:, NUMBER] == one], curves, first, last, fps) for one in numbers]
        chosen[first : last + 1] = numbers[choose_path(evidence)]
    return chosen


def largest_of(rows: Rows) -> int:
    """Return the number of the face that takes most of a shot: its area, summed over its frames."""
    boxes = rows[:, BOX]
    areas = (boxes[:, RIGHT] - boxes[:, LEFT]) * (boxes[:, BOTTOM] - boxes[:, TOP])
    numbers, index = np.unique(rows[:, NUMBER], return_inverse=True)
    return int(numbers[np.bincount(index, areas).argmax()])


def curve_of(table: FaceTable, levels: Curve, lag: int, fps: float) -> Curve:
    """Return the scaled level of the audio for each distinct frame. lag: frames by which the video is late."""
    window = max(round(TREND_S * fps), 1)
    return scaled(levels, window, MIN_LEVEL_DEVIATION)[np.clip(table.shown_at - lag, 0, len(levels) - 1)]


def evidence_of(rows: Rows, curve: Curve, first: int, last: int, fps: float) -> Curve:
    """Return the evidence for one face in the frames first..last of its shot."""
    evidence = np.full(last - first + 1, ABSENT)
    frames = rows[:, FRAME].astype(int)
    evidence[frames - first] = mouth_evidence(rows[:, OPENING], curve[frames], fps)
    return evidence


def find_lag(table: FaceTable, levels: Curve, fps: float) -> int:
    """Return the number of frames by which the video of the file is late; 0 unless another fits clearly better.

    One for all shots: within a shot, the best lag of each face would favour those that do not speak.
    """
    reach = round(MAX_LAG_S * fps)
    fits = {lag: best_fit(table, curve_of(table, levels, lag, fps), fps) for lag in range(-reach, reach + 1)}
    best = max(fits, key=lambda lag: fits[lag])
    return best if fits[best] > LAG_GAIN * max(fits[0], 0.0) else 0


def best_fit(table: FaceTable, curve: Curve, fps: float) -> float:
    """Return the evidence for the best face of each shot, summed over the shots."""
    total = 0.0
    for shot in np.unique(table.rows[:, BOX][:, SHOT]):
        rows = table.rows[table.rows[:, BOX][:, SHOT] == shot]
        faces = (rows[rows[:, NUMBER] == one] for one in np.unique(rows[:, NUMBER]))
        total += max(
            float(mouth_evidence(face[:, OPENING], curve[face[:, FRAME].astype(int)], fps).sum()) for face in faces
        )
    return total


def find_at_point(table: FaceTable, distinct: int, point: Point, scale: float, label: str) -> Rows:
    """Return the row of the face at a point of a frame. scale: pixels of the input video in one of the table.

    Raises: InvalidRequest naming the faces that are there.
    """
    rows = table.at_frame(distinct)
    boxes = [FaceBox(*(scale * row[BOX][[LEFT, TOP, RIGHT, BOTTOM]]).tolist()) for row in rows]
    hits = [i for i, box in enumerate(boxes) if is_on_face(point, box)]
    if not hits:
        found = "; ".join(
            f"[{box.left:.0f}, {box.top:.0f}, {box.right:.0f}, {box.bottom:.0f}]"
            for box in sorted(boxes, key=lambda box: box.left)
        )
        raise InvalidRequest(
            f"active_speaker: no face at [{point[0]:g}, {point[1]:g}] in {label}; found "
            + (f"faces at {found}" if boxes else "none")
        )
    return np.asarray(rows[min(hits, key=lambda i: math.dist(boxes[i].centre, point))])


def is_on_face(point: Point, box: FaceBox) -> bool:
    x, y = point
    return (
        box.left - MARGIN_X * box.width <= x < box.right + MARGIN_X * box.width
        and box.top - MARGIN_TOP * box.height <= y < box.bottom + MARGIN_BOTTOM * box.height
    )


def follow_face(table: FaceTable, start: Rows) -> Numbers:
    """Return the face of one row of the table in each frame, before and after it.

    If it is lost, the next face near there continues it; behind a cut, one in the same place.
    """
    chosen = np.full(table.n_distinct, NO_NUMBER)
    tracks = [table.rows_of(number) for number in np.unique(table.rows[:, NUMBER])]
    own = next(track for track in tracks if track[0, NUMBER] == start[NUMBER])
    chosen[own[:, FRAME].astype(int)] = int(start[NUMBER])
    end = own[-1]
    for track in sorted(tracks, key=lambda one: one[0, FRAME]):
        if track[0, FRAME] > end[FRAME] and continues(end, track[0]):
            chosen[track[:, FRAME].astype(int)], end = int(track[0, NUMBER]), track[-1]
    end = own[0]
    for track in sorted(tracks, key=lambda one: -one[-1, FRAME]):
        if track[-1, FRAME] < end[FRAME] and continues(end, track[-1]):
            chosen[track[:, FRAME].astype(int)], end = int(track[0, NUMBER]), track[0]
    return chosen


def continues(end: Rows, other: Rows) -> bool:
    """Return whether the face of another track is the one that a track ended with."""
    one, two = (FaceBox(*row[BOX][[LEFT, TOP, RIGHT, BOTTOM]].tolist()) for row in (end, other))
    if end[BOX][SHOT] != other[BOX][SHOT]:
        return one.overlap(two) >= SAME_FACE_OVERLAP
    return math.dist(one.centre, two.centre) <= max(one.width, one.height)
