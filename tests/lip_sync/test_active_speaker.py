"""The face to sync, of several: by its speech, by a point, or by boxes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dialogue import FACES, TURN, WIDTH, dialogue_frames, dialogue_samples, make_dialogue
from support.small_wav2lip import voice
from support.video_files import make_image, make_video

from inference.errors import InvalidRequest
from inference.faces import Landmarker
from inference.lip_sync import PARITY, ActiveSpeaker, BoxCache, LipSyncer, SyncOptions, SyncResult
from inference.lip_sync.box_cache import cache_key
from inference.lip_sync.face_table import FaceTable, tabulate_faces
from inference.lip_sync.speaker_choice import choose_speakers, find_at_point, find_lag, follow_face
from inference.lip_sync.speech_correlation import audio_levels, choose_path, is_silent, mouth_evidence, scaled
from inference.media import open_media
from inference.media.audio_convert import AudioFormat
from inference.media.audio_spool import AudioSpool

N_FRAMES = 2 * TURN
LEFT, RIGHT = 0, 1
SPEECH_S = 0.8  # 20 frames
CENTRES = [((left + right) // 2, (top + bottom) // 2) for left, top, right, bottom in FACES]


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory) -> bytes:
    return make_dialogue(tmp_path_factory.mktemp("dialogue"), audio=dialogue_samples())


@pytest.fixture(scope="module")
def table(landmarker: Landmarker) -> FaceTable:
    return tabulate_faces(dialogue_frames(), landmarker, N_FRAMES + 1)


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    with spooled(dialogue_samples()) as spool:
        found = audio_levels(spool, 25.0, N_FRAMES)
    assert found is not None
    return found


def spooled(samples: np.ndarray) -> AudioSpool:
    spool = AudioSpool(AudioFormat(16_000))
    spool.append(samples)
    return spool


def sides_of(table: FaceTable, chosen: np.ndarray) -> np.ndarray:
    """Return for each frame whether the chosen face is on the right; -1 if it is not there."""
    boxes = table.track_of(chosen).boxes
    return np.where(boxes[:, 6] == 1, boxes[:, 0] + boxes[:, 2] > WIDTH, -1)


def changed_sides(result: SyncResult, source: bytes) -> list[set[int]]:
    """Return for each frame of the output which halves were changed: random weights change a mouth much."""
    video = result.outputs[0].video
    assert video is not None
    with open_media(video) as synced, open_media(source) as given:
        pairs = zip(*([f for clip in one.read_clips(25) for f in clip.frames] for one in (synced, given)), strict=False)
        changes = [np.abs(after.astype(int) - before).max(axis=2) > 70 for after, before in pairs]
    return [{side for side in (LEFT, RIGHT) if half(one, side).sum() > 400} for one in changes]


def half(image: np.ndarray, side: int) -> np.ndarray:
    return image[:, : WIDTH // 2] if side == LEFT else image[:, WIDTH // 2 :]


def test_all_faces_are_tabulated(table: FaceTable):
    assert (table.n_frames, table.n_distinct, table.is_whole) == (N_FRAMES, N_FRAMES, True)
    assert [len(table.rows_of(number)) for number in (0, 1)] == [N_FRAMES, N_FRAMES]
    assert len(table.rows) == 2 * N_FRAMES


def test_the_face_that_speaks_is_chosen(table: FaceTable, levels: np.ndarray):
    sides = sides_of(table, choose_speakers(table, levels, 25.0))
    assert (sides[: TURN - 5] == LEFT).all()
    assert (sides[TURN + 12 :] == RIGHT).all()


def test_the_lag_of_a_file_is_found(table: FaceTable, levels: np.ndarray):
    assert find_lag(table, levels, 25.0) == 0
    late = np.concatenate([levels[3:], np.full(3, levels[-1])])  # the audio is three frames early
    assert find_lag(table, late, 25.0) == pytest.approx(3, abs=1)
    sides = sides_of(table, choose_speakers(table, late, 25.0))
    assert (sides[: TURN - 5] == LEFT).mean() > 0.9
    assert (sides[TURN + 12 :] == RIGHT).mean() > 0.9


def test_without_audio_the_largest_face_is_chosen(table: FaceTable):
    sides = sides_of(table, choose_speakers(table, None, 25.0))
    assert len(set(sides.tolist())) == 1


def test_a_change_of_the_face_ends_a_run_of_boxes(table: FaceTable, levels: np.ndarray):
    boxes = table.track_of(choose_speakers(table, levels, 25.0)).boxes
    assert np.flatnonzero(np.diff(boxes[:, 5])).tolist() == np.flatnonzero(np.abs(np.diff(boxes[:, 0])) > 100).tolist()


def test_only_the_mouth_of_the_speaker_is_synced(syncer: LipSyncer, dialogue: bytes):
    result = syncer.sync(dialogue, voice(N_FRAMES / 25), SyncOptions(active_speaker=ActiveSpeaker("auto")))
    sides = changed_sides(result, dialogue)
    assert sides[: TURN - 5] == [{LEFT}] * (TURN - 5)
    assert sides[TURN + 12 :] == [{RIGHT}] * (TURN - 12)
    assert (result.frames_without_face, result.warnings) == (0, syncer.warnings)


@pytest.mark.parametrize(("audio", "words"), [(None, "has no audio"), (np.zeros(4000, np.int16), "is silent")])
def test_a_video_without_speech_is_synced_with_a_warning(syncer: LipSyncer, tmp_path: Path, audio, words: str):
    video = make_dialogue(tmp_path, audio=audio)
    result = syncer.sync(video, voice(0.2), SyncOptions(active_speaker=ActiveSpeaker("auto")))
    assert result.warnings[-1] == f"active_speaker auto: the video {words}; the largest face of each shot is synced"
    assert all(len(sides) == 1 for sides in changed_sides(result, video))


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_the_face_at_a_point_is_followed(syncer: LipSyncer, dialogue: bytes, side: int):
    speaker = ActiveSpeaker(frame=15, point=CENTRES[side])
    result = syncer.sync(dialogue, voice(SPEECH_S), SyncOptions(active_speaker=speaker))
    assert changed_sides(result, dialogue) == [{side}] * 20


def test_points_are_pixels_of_the_input(syncer: LipSyncer, dialogue: bytes):
    speaker = ActiveSpeaker(frame=60, point=CENTRES[RIGHT])  # after the last frame of the output
    result = syncer.sync(dialogue, voice(0.2), SyncOptions(active_speaker=speaker, resize_factor=2, fps=12.5))
    assert (result.num_frames, result.width, result.frames_without_face) == (2, WIDTH // 2, 0)


def test_a_point_without_a_face_names_those_there(syncer: LipSyncer, dialogue: bytes):
    speaker = ActiveSpeaker(frame=3, point=(240, 280))
    words = r"no face at \[240, 280\] in frame 3; found faces at \[\d+, \d+, \d+, \d+\]; \[\d+, \d+, \d+, \d+\]"
    with pytest.raises(InvalidRequest, match=words):
        syncer.sync(dialogue, voice(0.2), SyncOptions(active_speaker=speaker))
    late = ActiveSpeaker(frame=N_FRAMES, point=CENTRES[LEFT])
    with pytest.raises(InvalidRequest, match="frame 68, counted from 0; the video has 68 frames"):
        syncer.sync(dialogue, voice(0.2), SyncOptions(active_speaker=late))


def test_boxes_choose_the_face_of_each_frame(syncer: LipSyncer, dialogue: bytes):
    boxes = [FACES[LEFT]] * 5 + [None] * 5 + [FACES[RIGHT]] * (N_FRAMES - 10)
    result = syncer.sync(dialogue, voice(SPEECH_S), SyncOptions(active_speaker=ActiveSpeaker(boxes=tuple(boxes))))
    assert changed_sides(result, dialogue) == [{LEFT}] * 5 + [set()] * 5 + [{RIGHT}] * 10
    assert result.frames_without_face == 5


def test_a_box_without_landmarks_is_taken_as_it_is(syncer: LipSyncer):
    wall = np.full((288, 480, 3), 120, np.uint8)
    wall[::8] = 60
    source = make_video([wall] * 5, crf=10)
    speaker = ActiveSpeaker(boxes=((280, 60, 400, 200),) * 5)
    assert changed_sides(syncer.sync(source, voice(0.2), SyncOptions(active_speaker=speaker)), source) == [{RIGHT}] * 5


def test_as_many_boxes_as_frames_are_expected(syncer: LipSyncer, dialogue: bytes):
    speaker = ActiveSpeaker(boxes=(FACES[LEFT],) * (N_FRAMES - 1))
    with pytest.raises(InvalidRequest, match="67 boxes; expected one for each of the 68 frames of the video, at 25"):
        syncer.sync(dialogue, voice(0.2), SyncOptions(active_speaker=speaker))


def test_an_image_may_have_several_faces(syncer: LipSyncer):
    image = make_image(dialogue_frames()[0])
    for speaker in (ActiveSpeaker(frame=0, point=CENTRES[RIGHT]), ActiveSpeaker(boxes=(FACES[RIGHT],))):
        result = syncer.sync(image, voice(0.2), SyncOptions(active_speaker=speaker))
        assert (result.num_frames, result.frames_without_face) == (5, 0)
    with pytest.raises(InvalidRequest, match="active_speaker auto: the face is an image"):
        syncer.sync(image, voice(0.2), SyncOptions(active_speaker=ActiveSpeaker("auto")))


def test_cached_boxes_are_those_of_the_same_speaker(
    checkpoints: list[Path], dialogue: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cached = LipSyncer(checkpoints[:1], device="cpu", precision="f32", tracks=BoxCache(tmp_path / "tracks"))
    found = {}
    speakers = {side: ActiveSpeaker(frame=2, point=CENTRES[side]) for side in (LEFT, RIGHT)}
    for side, speaker in speakers.items():
        found[side] = cached.sync(dialogue, voice(0.2), SyncOptions(active_speaker=speaker)).outputs[0].video
    monkeypatch.setattr("inference.lip_sync.first_pass.track_point", lambda *_: pytest.fail("tracked again"))
    for side, speaker in speakers.items():
        again = cached.sync(dialogue, voice(0.2), SyncOptions(active_speaker=speaker)).outputs[0].video
        assert again == found[side]
    assert found[LEFT] != found[RIGHT]
    keys = {
        cache_key("digest", Fraction(25), SyncOptions(active_speaker=one), "detector")
        for one in (None, ActiveSpeaker("auto"), *speakers.values(), ActiveSpeaker(boxes=(FACES[LEFT],)))
    }
    assert len(keys) == 5


def make_table(*tracks: tuple[int, range, tuple[float, float], int]) -> FaceTable:
    """Return a table of faces of 10 x 10 pixels. tracks: number, frames, left and top, shot."""
    rows = [
        (k, number, 0.1, left, top, left + 10, top + 10, 0.0, shot, 1.0)
        for number, frames, (left, top), shot in tracks
        for k in frames
    ]
    n_frames = max(row[0] for row in rows) + 1
    return FaceTable(np.array(sorted(rows)), np.arange(n_frames), n_frames, True)


def test_a_face_is_followed_over_losses_and_cuts_in_both_directions():
    table = make_table(
        (0, range(5), (0, 0), 0),
        (1, range(5), (50, 0), 0),
        (2, range(7, 12), (53, 0), 0),  # 1 again, found after a loss
        (3, range(7, 12), (0, 0), 0),
        (4, range(12, 15), (52, 2), 1),  # behind a cut, in the same place
        (5, range(15, 18), (20, 20), 2),  # elsewhere
    )
    for number, frame in ((1, 2), (2, 9), (4, 13)):
        start = next(row for row in table.at_frame(frame) if row[1] == number)
        assert follow_face(table, start).tolist() == [1] * 5 + [-1] * 2 + [2] * 5 + [4] * 3 + [-1] * 3
    boxes = table.track_of(follow_face(table, start)).boxes
    assert np.isnan(boxes[5]).all()
    assert boxes[16, 6] == 0  # another face: not synced


def test_the_nearest_of_two_faces_at_a_point():
    table = make_table((0, range(1), (0, 0), 0), (1, range(1), (6, 0), 0))
    assert find_at_point(table, 0, (8, 5), 1, "frame 0")[1] == 0
    assert find_at_point(table, 0, (9, 5), 1, "frame 0")[1] == 1
    assert find_at_point(table, 0, (24, 12), 2, "frame 0")[1] == 1


def test_a_path_follows_turns_but_no_syllables():
    evidence = [
        np.array([1.0] * 10 + [-1] * 3 + [1] * 10 + [-1] * 20),
        np.array([-1.0] * 10 + [1] * 3 + [-1] * 10 + [1] * 20),
    ]
    assert choose_path(evidence, cost=8).tolist() == [0] * 23 + [1] * 20
    assert choose_path([np.zeros(4)]).tolist() == [0] * 4


def test_a_still_mouth_gives_no_evidence():
    rng = np.random.default_rng(0)
    audio = scaled(rng.normal(0, 10, 75), 25, 1.0)
    still = np.full(75, 0.1) + rng.normal(0, 0.001, 75)
    moving = 0.1 + 0.04 * (audio - audio.min())
    assert abs(mouth_evidence(still, audio, 25.0).sum()) < 5
    assert mouth_evidence(moving, audio, 25.0).sum() > 25
    assert np.isfinite(mouth_evidence(np.array([0.1]), audio[:1], 25.0)).all()


@pytest.mark.parametrize("n_samples", [1, 639, 640, 641, 15_990])
def test_audio_may_end_anywhere(n_samples: int):
    with spooled(np.full(n_samples, 9000, np.int16)) as spool:
        levels = audio_levels(spool, 25.0, 30)
    assert levels is not None
    assert len(levels) == 30
    assert np.isfinite(levels).all()


def test_silence_has_no_levels():
    with spooled(np.zeros(16_000, np.int16)) as silent, spooled(np.full(16_000, 20, np.int16)) as quiet:
        assert is_silent(silent)
        assert audio_levels(quiet, 25.0, 25) is None
    t = np.arange(16_000) / 16_000
    with spooled((8000 * np.sin(2 * np.pi * 1000 * t) * (t > 0.5)).astype(np.int16)) as tone:
        levels = audio_levels(tone, 25.0, 30)
    assert levels is not None
    assert levels[20] - levels[5] > 40
    assert levels[27] == levels[0]  # after the end


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, 'expected either mode "auto", or frame and point, or boxes'),
        ({"mode": "auto", "frame": 1, "point": (1, 1)}, "expected either"),
        ({"mode": "loudest"}, "mode 'loudest'; expected \"auto\""),
        ({"frame": 1}, "frame and point go together"),
        ({"frame": -1, "point": (1, 1)}, "frame -1; expected a number from 0 up"),
        ({"frame": 0, "point": (-1, float("nan"))}, r"point \[-1, nan\]"),
        ({"boxes": ()}, "0 boxes; expected 1 to"),
        ({"boxes": (None, (5, 5, 5, 9))}, r"box 1 is \[5, 5, 5, 9\]; expected x1, y1, x2, y2"),
        ({"boxes": (None, None)}, "all 2 boxes are null"),
    ],
)
def test_impossible_values_are_named(fields, words: str):
    with pytest.raises(InvalidRequest, match=words):
        ActiveSpeaker(**fields)


def test_options_that_do_not_go_together_are_named():
    with pytest.raises(InvalidRequest, match="active_speaker: does not go with face 1"):
        SyncOptions(face=1, active_speaker=ActiveSpeaker("auto"))
    with pytest.raises(InvalidRequest, match="active_speaker: does not apply to parity"):
        SyncOptions(boxes=PARITY.boxes, active_speaker=ActiveSpeaker("auto"))


def test_the_faces_of_the_test_are_where_it_says(table: FaceTable):
    for row in table.at_frame(0):
        left, top, right, bottom = FACES[int(row[3] + row[5] > WIDTH)]
        assert cv2.norm(row[3:7] - np.array([left, top, right, bottom]), cv2.NORM_INF) < 25
