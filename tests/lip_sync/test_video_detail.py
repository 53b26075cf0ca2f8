from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.audio_files import RATE, encode_audio, make_tone
from support.synthetic_frames import talk
from support.video_files import make_video

from inference.faces import FaceBox, FaceTracker, Landmarker
from inference.faces.ssim import ssim
from inference.lip_sync import LipSyncer, SyncOptions
from inference.lip_sync.active_speaker import ActiveSpeaker
from inference.lip_sync.compose import FaceFrameBatch, paste_face
from inference.lip_sync.first_pass import MIN_FRAMES_FOR_MOUTHS, FirstPass
from inference.lip_sync.locate import TrackingLocator
from inference.lip_sync.mouth_bank import EXCLUDED, MouthBank, StoredMouth, collect_mouths, cut_lower_face
from inference.lip_sync.mouth_shape import MeasuredMouth, measure_mouth
from inference.lip_sync.mouth_warp import ThinPlate, sample
from inference.lip_sync.options import Pads
from inference.lip_sync.preprocess import FaceFrame, cut_face, find_boxes, smooth_boxes
from inference.lip_sync.video_detail import LOOKAHEAD, add_detail, measure_softness
from inference.media import MediaLimits, open_media
from inference.stage_timer import StageClock

SOFTNESS = 1.5  # pixels of 96
N_FRAMES = 40
MOUTH = slice(170, 230), slice(140, 220)  # rows and columns of the rendered speaker's frames


@pytest.fixture(scope="module")
def face_frames(landmarker: Landmarker) -> tuple[FaceFrame, ...]:
    locate = TrackingLocator(FaceTracker(landmarker))
    return tuple(smooth_boxes(find_boxes(talk(N_FRAMES), locate, Pads()), "centred"))


@pytest.fixture(scope="module")
def bank(face_frames: tuple[FaceFrame, ...], landmarker: Landmarker) -> MouthBank:
    """Every second frame's mouth: the others are to be reconstructed."""
    return collect_mouths(face_frames[::2], landmarker)


def soften(face: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(face, (0, 0), SOFTNESS), np.uint8)


def soft_patches(face_frames: tuple[FaceFrame, ...]) -> list[np.ndarray]:
    """Stand in for a network: each frame's own face, as soft as networks make them."""
    return [soften(cut_face(one.frame, one.box)) for one in face_frames if one.box is not None]


def made_mouth(value: float, upper: float = 0.5) -> MeasuredMouth:
    vector = np.full(4, value, np.float32)
    return MeasuredMouth(np.zeros((68, 2)), vector, np.zeros((4, 3), np.float32), np.full((4, 3), upper, np.float32))


def example(value: float, shot: int = 0) -> StoredMouth:
    return StoredMouth(np.zeros((10, 10, 3), np.uint8), np.zeros(2), made_mouth(value), shot)


def test_a_full_bank_keeps_the_mouths_that_differ_most():
    bank = MouthBank(max_mouths=3)
    for value in (0.0, 0.1, 1.0, 1.05, 3.0, 0.01, 3.0):
        bank.add(example(value))
    assert [one.mouth.shape[0] for one in bank.examples] == [0.0, 1.0, 3.0]
    assert bank.n_bytes == 3 * 300
    small = MouthBank(max_bytes=700)
    for value in range(10):
        small.add(example(value))
    assert len(small.examples) == 2
    assert small.n_bytes <= 700


def test_mouths_of_another_shot_or_person_are_not_used():
    bank = MouthBank(max_mouths=2)
    bank.add(example(0.0))
    bank.add(example(0.0, shot=1))
    bank.add(example(0.1, shot=1))  # the pair of shot 1 is alike, that of shots 0 and 1 is not compared
    assert [one.shot for one in bank.examples] == [0, 1]
    assert bank.distances(made_mouth(0.0), shot=1).tolist() == [EXCLUDED, 0]
    assert bank.distances(made_mouth(0.0, upper=0.8), shot=1).tolist() == [EXCLUDED, EXCLUDED]


def test_a_mouth_is_warped_onto_itself_unchanged(face_frames: tuple[FaceFrame, ...], landmarker: Landmarker):
    one = face_frames[0]
    assert one.box is not None
    mouth = measure_mouth(one.frame, one.box, 0.0, landmarker)
    assert mouth is not None
    pixels, origin = cut_lower_face(one.frame, one.box, 0.0)
    size, top = (int(one.box.width), int(one.box.height)), 60
    at = ThinPlate(mouth, size, top).map_onto(StoredMouth(pixels, origin, mouth, 0))
    rows, columns = np.mgrid[top : size[1], 0 : size[0]]
    assert np.abs(at - np.stack([columns, rows], axis=-1) + origin).max() < 0.02
    patch = one.frame[int(one.box.top) : int(one.box.bottom), int(one.box.left) : int(one.box.right)]
    assert np.abs(sample(StoredMouth(pixels, origin, mouth, 0), at).astype(int) - patch[top:]).max() <= 6


def test_turned_and_upright_faces_are_cut_alike():
    frame = talk(1)[0]
    box = FaceBox(120, 100, 220, 220)
    (upright, low), (turned, turned_low) = (cut_lower_face(frame, box, angle) for angle in (0.0, 1e-9))
    assert low.tolist() == turned_low.tolist() == [-10, 36]
    assert np.array_equal(upright, turned)
    assert cut_lower_face(frame, FaceBox(-300, 10, -250, 60), 0.0) is None
    at_edge, low = cut_lower_face(frame, FaceBox(0, 100, 100, 220), 0.0)
    assert low.tolist() == [0, 36]
    assert np.array_equal(at_edge[:, :100], frame[136:238, :100])


def test_landmarks_are_those_of_the_patch(face_frames: tuple[FaceFrame, ...], landmarker: Landmarker):
    """The mouth of a patch is measured where a paste would put it, not that of the frame behind it."""
    shown, given = face_frames[0], max(face_frames, key=lambda one: opening(one, landmarker))
    assert shown.box is not None
    assert given.box is not None
    patch = cut_face(given.frame, given.box)
    measured = measure_mouth(shown.frame, shown.box, 0.0, landmarker, patch)
    pasted = measure_mouth(paste_face(shown, shown.box, patch, "blend"), shown.box, 0.0, landmarker)
    assert measured is not None
    assert pasted is not None
    assert np.abs(measured.points - pasted.points).max() < 1.5
    assert opening_of(measured) > opening(shown, landmarker) + 0.02


def opening(one: FaceFrame, landmarker: Landmarker) -> float:
    assert one.box is not None
    mouth = measure_mouth(one.frame, one.box, 0.0, landmarker)
    assert mouth is not None
    return opening_of(mouth)


def opening_of(mouth: MeasuredMouth) -> float:
    eyes = np.linalg.norm(mouth.points[45] - mouth.points[36])
    return float((mouth.points[66, 1] - mouth.points[62, 1]) / eyes)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_softness_of_a_network_is_measured(sigma: float):
    face = cut_face(talk(1)[0], FaceBox(120, 100, 240, 240)).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.float32)
    assert measure_softness(face[38:], soft[38:]) == pytest.approx(sigma, abs=0.3)
    assert measure_softness(face[38:], face[38:]) == 0


def test_true_detail_comes_back(face_frames: tuple[FaceFrame, ...], bank: MouthBank, landmarker: Landmarker):
    """Frames whose own mouths are not in the bank become more like the true frames, and the same in each run."""
    shown = face_frames[1::2]
    patches = soft_patches(shown)
    batch = FaceFrameBatch(tuple(shown), (), (patches, patches))
    found, again = (list(add_detail([batch], bank, landmarker)) for _ in range(2))
    assert [one.face_frames[0] for one in found] == list(shown)
    likeness = []
    for one, other, soft in zip(found, again, patches, strict=True):
        (face_frame,), (first,), (second,) = one.face_frames, *one.patches
        assert face_frame.box is not None
        assert np.array_equal(first, second)
        assert np.array_equal(first, other.patches[0][0])
        pasted = [paste_face(face_frame, face_frame.box, patch, "blend")[MOUTH] for patch in (soft, first)]
        likeness.append([ssim(frame, face_frame.frame[MOUTH]) for frame in pasted])
    soft_ssim, detailed_ssim = np.mean(likeness, axis=0)
    assert 1 - detailed_ssim < 0.75 * (1 - soft_ssim)


def test_without_a_near_mouth_the_generated_one_stays(
    face_frames: tuple[FaceFrame, ...], bank: MouthBank, landmarker: Landmarker
):
    """After a cut, none of the bank's mouths may be used; frames without a face keep their place."""
    shown = [replace(one, shot=1) for one in face_frames[: LOOKAHEAD + 3]]
    shown.insert(2, FaceFrame(shown[0].frame, None))
    patches = soft_patches(tuple(shown))
    for one in (bank, MouthBank()):
        found = list(add_detail([FaceFrameBatch(tuple(shown), (), (patches,))], one, landmarker))
        assert [batch.face_frames[0] for batch in found] == shown
        kept = [patch for batch in found for patch in batch.patches[0]]
        assert all(patch is given for patch, given in zip(kept, patches, strict=True))


@pytest.fixture
def soft_syncer(syncer: LipSyncer) -> LipSyncer:
    """A syncer whose network returns the reference face, softened."""

    def network(mels: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
        return [np.stack([[cv2.GaussianBlur(one, (0, 0), SOFTNESS) for one in face[3:]] for face in faces])]

    soft = copy.copy(syncer)
    soft.generators = [replace(syncer.generators[0], network=network)]
    return soft


def sync(syncer: LipSyncer, face: bytes, **options) -> Callable[[], object]:
    return syncer.sync(face, encode_audio(make_tone(0.4, RATE), RATE), SyncOptions(reference="each", **options))


def test_a_video_gets_its_detail_back(soft_syncer: LipSyncer):
    video = make_video(talk(12))
    plain, new, again = (sync(soft_syncer, video, enhance=name) for name in ("none", "video", "video"))
    assert new.outputs[0].video == again.outputs[0].video != plain.outputs[0].video
    assert new.num_frames == plain.num_frames
    assert new.warnings == plain.warnings
    assert "enhance" in new.timings_ms


def test_an_image_has_no_detail_to_give(soft_syncer: LipSyncer):
    image = cv2.imencode(".png", talk(1)[0])[1].tobytes()
    plain, new = (sync(soft_syncer, image, enhance=name) for name in ("none", "video"))
    assert new.outputs[0].video == plain.outputs[0].video
    assert [one for one in new.warnings if one not in plain.warnings] == [
        "enhance video: the face is an image, which has no other mouths; nothing was added"
    ]


@pytest.mark.parametrize(
    ("options", "n_located"),
    [
        (SyncOptions(), 10),
        (SyncOptions(enhance="video"), MIN_FRAMES_FOR_MOUTHS),
        (SyncOptions(enhance="video", active_speaker=ActiveSpeaker(mode="auto")), 10),
    ],
)
def test_cached_boxes_must_cover_all_mouths(options: SyncOptions, n_located: int):
    """Else the others were found by a tracker that does not know in which shot it is."""
    first = FirstPass(b"", open_media, MediaLimits(), options, StageClock())
    assert first.count_located(10) == n_located
