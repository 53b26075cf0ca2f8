from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inference.faces import FaceBox, Landmarker
from inference.faces.landmarks import Landmarker as AnyLandmarker
from inference.faces.ssim import ssim
from inference.lip_sync.preprocess import SIDE, Shot, cut_face, stack_faces
from inference.models import Wav2Lip, Wav2LipWidths
from inference.speaker import SyntheticClip, SyntheticClipOptions
from inference.speaker.synthesis import synthesise, synthesise_with_formants
from inference.weights.checkpoint import load_into, read_tensors
from training.avatar.espeak import has_library
from training.lip_sync.audio_samples import Heard, change_sound, draw_heard, hear, silence, speak_voices, stretch_voice
from training.lip_sync.augmentation import Place, change_look, cut, draw_place, mirror, move_a_little, move_points
from training.lip_sync.evaluate import Moved, correlate, draw_film, look, measure, paste
from training.lip_sync.face_packs import (
    KEPT,
    MARGIN,
    TalkingClip,
    cut_with_margin,
    film_clip,
    film_rendered,
    load_talking,
    voice_of,
    write_pack,
)
from training.lip_sync.mouth_gain import GAINS, amplify, find_gain, last_norm, mean_heard
from training.lip_sync.samples import (
    Talking,
    add_mirrored,
    cut_plain,
    draw_batch,
    gap_of,
    join_halves,
    prepare,
    prepare_steady,
    shapes_of,
)
from training.lip_sync.stabilise import steady
from training.lip_sync.train import (
    LOWER_WEIGHT,
    MOUTH_WEIGHT,
    WIDTHS,
    Ear,
    Recipe,
    Scale,
    Telling,
    Training,
    edge_error,
    is_held_out,
    likeness,
    mirror_error,
    split_clips,
    train,
    weights_of,
)
from training.lip_sync import mouth_gain as lip_gain
from training.make_weights import main


@pytest.fixture(scope="module")
def clip(landmarker: Landmarker) -> TalkingClip:
    return film_rendered(3, landmarker)


@pytest.fixture(scope="module")
def talking(clip: TalkingClip) -> Talking:
    return prepare(clip)


@pytest.fixture(scope="module")
def steadied(clip: TalkingClip) -> Talking:
    return prepare_steady(clip)


def test_a_face_is_cut_as_lip_sync_cuts_it():
    rng = np.random.default_rng(1)
    frame = np.repeat(np.repeat(rng.integers(0, 255, (36, 45, 3), np.uint8), 8, 0), 8, 1)
    box = FaceBox(100, 60, 100 + SIDE, 60 + SIDE)
    points = np.zeros((68, 2), np.float32)
    points[48:] = (148, 120)
    face, lips = cut_with_margin(Shot(frame, box), points)
    assert face.shape == (KEPT, KEPT, 3)
    assert np.array_equal(cut_plain(face), cut_face(frame, box))
    assert lips.shape == (20, 2)
    assert (lips == (48, 60)).all()


def test_a_frame_without_a_face_is_named(landmarker: AnyLandmarker):
    empty = np.full((96, 128, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="wall: frame 0 shows no face"):
        film_clip("wall", "nobody", [empty], np.zeros(16000, np.int16), landmarker)


def test_packs_come_back_as_they_were_written(clip: TalkingClip, tmp_path: Path):
    other = replace(clip, name="r0", samples=clip.samples[:1000])
    write_pack([clip, other], tmp_path / "pack.npz")
    first, second = load_talking(tmp_path)
    assert (first.name, second.name) == ("r0", clip.name)
    for found, written in ((first, other), (second, clip)):
        assert found.person == written.person
        assert np.array_equal(found.strip_jpeg, written.strip_jpeg)
        assert np.array_equal(found.lips, written.lips)
        assert np.array_equal(found.samples, written.samples)
    assert second.faces().shape == (75, KEPT, KEPT, 3)
    with pytest.raises(FileNotFoundError, match=r"no \.npz packs"):
        load_talking(tmp_path / "none")


def test_lips_lie_in_the_mouth_and_part_when_it_talks(talking: Talking):
    assert talking.lips[..., 0].min() > 0.2 * SIDE
    assert talking.lips[..., 0].max() < 0.8 * SIDE
    assert talking.lips[..., 1].min() > 0.5 * SIDE
    gaps = gap_of(talking.lips)
    assert gaps.max() > gaps.min() + 2
    assert all(gaps[i] <= np.percentile(gaps, 15) for i in talking.quiet)


def test_a_frame_hears_the_sound_from_the_frame_before_on(clip: TalkingClip):
    loud = np.zeros(48000, np.int16)
    loud[16000:17600] = np.random.default_rng(0).integers(-9000, 9000, 1600)  # from 1.0 to 1.1 s: frames 25 to 27
    heard = [prepare(replace(clip, samples=loud)).sound.window(i) for i in (19, 23, 26, 29, 30)]
    assert [mel.shape for mel in heard] == [(80, 16)] * 5
    assert [bool(mel.max() > 0) for mel in heard] == [False, True, True, True, False]


def test_a_batch_never_shows_the_mouth_that_is_asked_for(steadied: Talking):
    batch = draw_batch([steadied], 16, np.random.default_rng(5))
    assert batch.shapes.shape == (16, 3)
    assert batch.faces.shape == (16, 6, SIDE, SIDE)
    assert batch.wanted.shape == (16, 3, SIDE, SIDE)
    assert batch.lips.shape == (16, 20, 2)
    assert not batch.faces[:, :3, SIDE // 2 :].any()
    assert torch.equal(batch.faces[:, :3, : SIDE // 2], batch.wanted[:, :, : SIDE // 2])
    shown = batch.faces[:, 3:]
    assert ((shown - batch.wanted).abs().flatten(1).amax(1) > 0.05).all()
    seen = batch.lips[:, 19, 1] - batch.lips[:, 13, 1]  # on faces of other sizes, bent and turned
    assert correlate(seen.numpy(), batch.shapes[:, 0].numpy()) > 0.9
    again = draw_batch([steadied], 16, np.random.default_rng(5))
    assert torch.equal(again.faces, batch.faces)
    assert torch.equal(again.shapes, batch.shapes)


def test_upper_halves_do_not_tell_the_mouth(talking: Talking, steadied: Talking):
    """A box that ends below the chin is higher with an open mouth, so that the nose lies higher in it."""
    nose = slice(MARGIN + 28, MARGIN + SIDE // 2), slice(MARGIN + 30, -MARGIN - 30)
    films = [one.faces[:, *nose].astype(int) for one in (talking, steadied)]
    apart = [float(np.abs(film - film[len(film) // 2]).mean()) for film in films]
    assert apart[1] < 0.6 * apart[0]
    assert correlate(steadied.gaps, talking.gaps) > 0.97


def test_steady_faces_lie_where_the_middle_one_does():
    rng = np.random.default_rng(3)
    face = cv2.resize(rng.integers(0, 255, (12, 12, 3), np.uint8), (KEPT, KEPT), interpolation=cv2.INTER_CUBIC)
    lips = np.full((1, 20, 2), (50.0, 70.0), np.float32)
    flatter = np.array([[1, 0, 1.5], [0, 0.97, 1]], np.float32)  # of pictures with their margin
    squeezed = cv2.warpAffine(face, flatter, (KEPT, KEPT), borderMode=cv2.BORDER_REPLICATE)
    there = lips @ flatter[:, :2].T + flatter[:, :2] @ np.full(2, MARGIN) + flatter[:, 2] - MARGIN
    faces, points = steady(np.stack([squeezed, face, face]), np.concatenate([there, lips, lips]).astype(np.float32))
    assert np.allclose(points, np.concatenate([lips] * 3), atol=0.3)
    inner = slice(MARGIN, -MARGIN)
    assert np.abs(faces[0][inner, inner].astype(int) - face[inner, inner]).mean() < 6
    nothing = np.zeros((KEPT, KEPT, 3), np.uint8)
    with pytest.raises(ValueError, match="frame 0: its upper half is not found"):
        steady(np.stack([nothing, face, face]), np.concatenate([lips] * 3))


def test_a_wanted_face_has_the_upper_half_that_is_given():
    upper, lower = np.full((SIDE, SIDE, 3), 200, np.uint8), np.full((SIDE, SIDE, 3), 40, np.uint8)
    joined = join_halves(upper, lower)[:, 0, 0]
    assert (joined[:44] == 200).all()
    assert (joined[53:] == 40).all()
    assert joined[48] == 120
    assert (np.diff(joined.astype(int)) <= 0).all()


def test_one_rendered_person_in_four_speaks_in_tones():
    film = SyntheticClip("bin blue", 8, SyntheticClipOptions(width=96, height=96, fps=25, length_s=1.2))
    assert np.array_equal(voice_of(film, 8), synthesise_with_formants(film.speech, 8))
    assert np.array_equal(voice_of(film, 9), synthesise(film.speech, 9))


def test_lips_move_with_their_picture(talking: Talking):
    marked = np.zeros((KEPT, KEPT, 3), np.uint8)
    point = np.array([[40, 60]], np.float32)
    marked[60 + MARGIN - 1 : 60 + MARGIN + 2, 40 + MARGIN - 1 : 40 + MARGIN + 2] = 255
    still = Place(np.array([[1, 0, 3], [0, 1, -2]], np.float32), np.zeros((SIDE, SIDE, 2), np.float32))
    assert move_points(point, still) == pytest.approx(np.array([[37, 62]]))
    rng = np.random.default_rng(4)
    for place in (still, *(draw_place(rng) for _ in range(20))):
        picture, seen = cut(marked, place), move_points(point, place)
        for faces, at in (([picture], seen), mirror([picture], np.repeat(seen, 20, 0))):
            rows, columns = np.nonzero(faces[0][..., 0] > 80)
            assert (columns.mean(), rows.mean()) == pytest.approx(tuple(at[0]), abs=0.7)


def test_another_frame_of_a_face_is_not_far_off():
    """Its corners: by the turn and the scale of half a side each, and the shift."""
    rng = np.random.default_rng(1)
    corners = np.array([(0, 0), (95, 0), (0, 95), (95, 95)], np.float32)
    moved = []
    for _ in range(50):
        place = draw_place(rng)
        straight = replace(place, bend=np.zeros_like(place.bend))
        other = move_a_little(straight, rng)
        moved.append(np.abs(move_points(corners, other) - move_points(corners, straight)).max())
    assert 0.5 < np.median(moved) < max(moved) < 6


def test_two_pictures_of_a_sample_change_alike(talking: Talking):
    face = cut_plain(talking.faces[0])
    for seed in range(8):
        first, second = change_look([face, face], np.random.default_rng(seed))
        assert first.shape == face.shape
        assert np.array_equal(first, second)
        assert not np.array_equal(first, face)


def test_the_audio_encoder_hears_sounds_with_their_mouths(talking: Talking):
    shapes = np.repeat(np.arange(talking.n_frames, dtype=np.float32)[:, None], 3, 1)
    measured = Heard(talking.sound, shapes, np.ones(3, np.float32), (5,))
    gap_only = Heard(talking.sound, shapes * np.array([1, 0, 0], np.float32), np.array([1, 0, 0], np.float32), (7,))
    mels, wanted, known = draw_heard([[measured], [gap_only]], 300, np.random.default_rng(3))
    assert mels.shape == (300, 1, 80, 16)
    assert wanted.shape == known.shape == (300, 3)
    assert {tuple(row) for row in known.tolist()} == {(1, 1, 1), (1, 0, 0)}
    assert (wanted[:, 1] == wanted[:, 0] * known[:, 1]).all()
    at_rest = (wanted[:, 0] == 5) | (wanted[:, 0] == 7)
    assert 0.06 < at_rest.float().mean() < 0.2  # of each kind a tenth, with silence
    loudest = mels.flatten(1).amax(1)
    assert loudest[at_rest].median() < loudest[~at_rest].median() - 1


def test_a_sound_has_roughened_copies_of_its_own_length(clip: TalkingClip):
    sound, again = (hear(clip.samples, 75, (1, 2)) for _ in range(2))
    assert len({mel.shape for mel in sound.mels}) == 1
    assert all(np.array_equal(a, b) for a, b in zip(sound.mels, again.mels, strict=True))
    plain, *others = (mel.astype(np.float32) for mel in sound.mels)
    assert all(0.05 < np.abs(other - plain).mean() < 4 for other in others)


@pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")
def test_of_spoken_voices_the_gap_alone_is_known():
    voices = speak_voices(3, seed=1)
    assert all(len(one.sound.mels[0][0]) > len(one.shapes) for one in voices)
    every = np.concatenate([one.shapes for one in voices])
    assert every[:, 0].mean() == pytest.approx(0, abs=1e-3)
    assert every[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert not every[:, 1:].any()
    assert all(one.known.tolist() == [1, 0, 0] for one in voices)


def test_a_gain_moves_the_audio_encoder_away_from_its_mean(talking: Talking):
    torch.manual_seed(2)
    network = Wav2Lip(WIDTHS).eval()
    outputs: list[torch.Tensor] = []
    last_norm(network).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    mels = torch.from_numpy(np.stack([talking.sound.window(i) for i in range(0, 75, 5)])[:, None])
    mean = mean_heard(network, [talking])
    assert mean.shape == (WIDTHS.audio_encoder[-1],)
    with torch.no_grad():
        network.audio_encoder(mels)
        amplify(network, mean, 2.0)
        network.audio_encoder(mels)
    before, after = outputs[-2:]
    assert torch.allclose(after.mean((0, 2, 3)), mean, atol=1e-4)
    assert torch.allclose(after - mean[:, None, None], 2 * (before - mean[:, None, None]), atol=1e-4)


def test_the_most_gain_is_taken_whose_lips_go_with_true_ones(talking: Talking, monkeypatch: pytest.MonkeyPatch):
    spoilt = dict.fromkeys(GAINS, 0.3)
    assert gain_of(talking, monkeypatch, spoilt | {1.0: 0.71, 1.5: 0.7, 2.0: 0.68}) == 1.5
    assert gain_of(talking, monkeypatch, spoilt | {1.0: 0.5, 1.5: 0.7, 2.0: 0.71}) == 2.0


def test_no_gain_is_taken_that_moves_lips_too_far(talking: Talking, monkeypatch: pytest.MonkeyPatch):
    assert gain_of(talking, monkeypatch, {1.0: 0.5, 1.5: 0.6, 2.0: 0.7, 2.5: 0.8}) == 2.0  # reaches 1.2 times as far


def gain_of(talking: Talking, monkeypatch: pytest.MonkeyPatch, correlations: dict[float, float]) -> float:
    """Which is found where the gains give these."""
    torch.manual_seed(2)
    network = Wav2Lip(WIDTHS).eval()
    before = last_norm(network).weight.detach().clone()

    def measure(network: Wav2Lip, *_: object) -> Moved:
        gain = float((last_norm(network).weight.detach() / before).mean())
        return Moved(correlations.get(round(gain, 1), 0.9), 0.6 * gain)

    monkeypatch.setattr(lip_gain, "measure", measure)
    gain, _ = find_gain(network, [talking], object())  # type: ignore[arg-type]
    assert torch.allclose(last_norm(network).weight, gain * before)
    return gain


def test_lips_are_found_in_the_strips_of_a_pack(talking: Talking, landmarker: Landmarker):
    found = look(list(talking.faces[:40]), landmarker)
    assert found is not None
    assert correlate(found, talking.gaps[:40]) > 0.9
    assert look([np.full((KEPT, KEPT, 3), 90, np.uint8)], landmarker) is None


def test_sound_is_changed_within_its_scale():
    rng = np.random.default_rng(2)
    mel = rng.uniform(-4, 4, (80, 16)).astype(np.float32)
    for _ in range(30):
        changed = change_sound(mel, rng)
        assert changed.shape == mel.shape
        assert -4 <= changed.min() <= changed.max() <= 4
        assert silence(rng).max() < 1
    tone = np.full((80, 16), -4, np.float32)
    tone[40] = 2
    assert stretch_voice(tone, 1.1).mean(1).argmax() == 44
    assert np.array_equal(stretch_voice(tone, 1.0), tone)


def test_errors_count_most_in_the_mouth():
    lips = torch.full((1, 20, 2), 60.0)
    lips[0, 0], lips[0, 6] = torch.tensor([30.0, 60.0]), torch.tensor([66.0, 70.0])
    weights = weights_of(lips)[0, 0]
    assert weights[65, 48] == MOUTH_WEIGHT
    assert weights[90, 48] == weights[65, 10] == LOWER_WEIGHT
    assert weights[20, 48] == 1
    flat, edge = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    edge[..., 48:] = 1
    assert edge_error(flat, flat + 0.5, torch.ones(1, 1, SIDE, SIDE)) == 0  # of another level, but as sharp
    assert edge_error(flat, edge, torch.ones(1, 1, SIDE, SIDE)) == pytest.approx(1 / (SIDE - 1))


def test_shapes_are_of_what_lips_do_and_not_of_what_they_are(talking: Talking):
    shapes = shapes_of(talking.lips)
    assert shapes.shape == (75, 3)
    assert np.array_equal(shapes[:, 0], talking.gaps)
    assert np.allclose(shapes[:, 1:].mean(0), 0, atol=1e-4)
    assert correlate(shapes[:, 1], talking.gaps) > 0.8  # a mouth that opens is higher
    thicker = talking.lips.copy()
    thicker[:, 9, 1] += 3
    assert np.allclose(shapes_of(thicker), shapes, atol=1e-4)
    scale = Scale.of([talking])
    standard = scale.standardise(talking.shapes)
    assert np.allclose((standard.mean(0), standard.std(0)), ([0] * 3, [1] * 3), atol=1e-4)


def test_the_audio_encoder_tells_what_its_ear_reads(talking: Talking):
    torch.manual_seed(3)
    network, telling = Wav2Lip(WIDTHS), Telling(5)
    ear, mels = Ear(network.audio_encoder), torch.from_numpy(talking.sound.window(30)[None, None])
    mels = torch.cat([mels, mels.flip(3), mels * 0.5])
    network.train()
    network.audio_encoder(mels)  # statistics of its own
    network.eval()
    telling.end(network.audio_encoder, ear.shape)
    told = telling(ear(mels))
    assert told.shape == (3, 256, 1, 1)
    torch.testing.assert_close(network.audio_encoder(mels), told, atol=1e-5, rtol=1e-4)
    same = Telling(5)(torch.zeros(1, 3))
    assert torch.equal(same, telling(torch.zeros(1, 3)))
    assert not torch.equal(same, Telling(6)(torch.zeros(1, 3)))
    near, far = telling(torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [2, 0, 0]])).flatten(1).diff(dim=0).norm(dim=1)
    assert 0 < near < far


def test_what_listens_and_what_draws_are_learnt_apart(clip: TalkingClip, tmp_path: Path):
    recipe = Recipe((tmp_path,), tmp_path, ear_steps=1, steps=1, batch=4, n_voices=0)
    training = Training(recipe, [prepare_steady(clip)], {})
    states = []
    for stage in ("", "ear", "drawing"):
        assert not stage or training.run_round()[0] == stage
        states.append({name: value.clone() for name, value in training.network.state_dict().items()})
    for name, (new, heard, drawn) in {name: [state[name] for state in states] for name in states[0]}.items():
        if "running_mean" in name and not name.startswith("audio_encoder.12."):
            listens = name.startswith("audio_encoder.")
            assert torch.equal(new, heard) != listens, name
            assert torch.equal(heard, drawn) == listens, name
    assert training.part_done() == 1


def test_a_score_is_of_each_folders_clips(clip: TalkingClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe((tmp_path,), tmp_path, ear_steps=0, steps=1, batch=4, n_voices=0)
    training = Training(recipe, [prepare_steady(clip)], {"a": [prepare(clip)], "b": []})
    moved = {1: Moved(0.51234, 0.7), 0: None}
    monkeypatch.setattr("training.lip_sync.train.measure", lambda _, clips, landmarker: moved[len(clips)])
    assert training.write() == {"a": {"correlation": 0.5123, "reach": 0.7}, "b": {}}
    assert Wav2LipWidths.of(read_tensors(tmp_path / "model.safetensors")) == WIDTHS


def test_the_likeness_that_is_learnt_is_the_one_that_is_measured(steadied: Talking):
    one, other = (cut_plain(steadied.faces[i]) for i in (0, 20))
    stacked = torch.from_numpy(np.ascontiguousarray(stack_faces([one, other])[:, 3:]))
    everywhere = torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool)
    found = likeness(stacked[:1], stacked[1:], everywhere).item()
    assert found == pytest.approx(ssim(one, other), abs=2e-3)  # of levels that are not rounded
    assert likeness(stacked[:1], stacked[:1], everywhere).item() == pytest.approx(1)
    upper = everywhere.clone()
    upper[..., SIDE // 2 :, :] = False
    assert likeness(stacked[:1], stacked[1:], upper).item() > found  # less moves there


def test_a_mirrored_face_is_to_be_drawn_as_the_face_is(steadied: Talking):
    batch = add_mirrored(draw_batch([steadied], 3, np.random.default_rng(2)))
    assert len(batch.faces) == len(batch.wanted) == len(batch.lips) == len(batch.shapes) == 6
    assert torch.equal(batch.faces[4], batch.faces[1].flip(2))
    assert torch.equal(batch.shapes[3:], batch.shapes[:3])
    gaps = gap_of(batch.lips.numpy())
    assert np.allclose(gaps[3:], gaps[:3])
    corners = batch.lips[:, 0, 0], batch.lips[:, 6, 0]
    assert (corners[0] < corners[1]).all()
    assert torch.allclose(corners[0][:3] + corners[1][3:], torch.full((3,), SIDE - 1.0))
    weights = weights_of(batch.lips)
    assert mirror_error(batch.wanted, weights) == 0
    one_sided = batch.wanted.clone()
    one_sided[..., : SIDE // 2] += 0.1  # on the left of both
    assert mirror_error(one_sided, weights) > 0.05


def test_a_film_is_drawn_with_one_face_shown(steadied: Talking):
    faces, mels = list(steadied.faces[:3]), np.zeros((3, 80, 16), np.float32)
    network, given = Wav2Lip(WIDTHS), []
    network.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    drawn = draw_film(network, faces, mels)
    assert (drawn.shape, drawn.dtype) == ((3, SIDE, SIDE, 3), np.uint8)
    plain = stack_faces([cut_plain(face) for face in faces])
    heard, seen = given[0]
    assert heard.shape == (3, 1, 80, 16)
    assert np.array_equal(seen[:, 3:], plain[:1, 3:].repeat(3, 0))
    assert np.array_equal(seen[:, :3], plain[:, :3])


def test_drawn_lips_are_measured_against_the_voices_own(
    talking: Talking, landmarker: Landmarker, monkeypatch: pytest.MonkeyPatch
):
    """What is drawn is here what was filmed, to the same voice and then to another one."""
    monkeypatch.setattr("training.lip_sync.evaluate.draw", lambda _, face, voice: list(face.faces))
    same = measure(Wav2Lip(WIDTHS), [talking], landmarker)
    assert same is not None
    assert same.correlation > 0.9
    assert 0.6 < same.reach < 1.1  # in so small a picture it sees less of it
    later = replace(talking, gaps=np.roll(talking.gaps, 9))
    other = measure(Wav2Lip(WIDTHS), [later], landmarker)
    assert other is not None
    assert other.correlation < 0.6
    nobody = replace(talking, faces=np.full_like(talking.faces, 90))
    assert measure(Wav2Lip(WIDTHS), [nobody], landmarker) is None


def test_a_drawn_face_is_pasted_where_it_was_cut(steadied: Talking):
    face = steadied.faces[0]
    assert np.array_equal(paste(face, cut_plain(face)), face)


def test_correlation():
    rising = np.arange(5.0)
    assert correlate(rising, rising * 2 + 1) == pytest.approx(1)
    assert correlate(rising, -rising) == pytest.approx(-1)
    assert correlate(rising, np.ones(5)) == 0


def test_the_same_clips_are_held_out_when_packs_are_added(clip: TalkingClip, tmp_path: Path):
    recipe = Recipe((tmp_path,), tmp_path, held_out=0.3)
    clips = [replace(clip, name=f"c{i}") for i in range(12)]
    write_pack(clips[:6], tmp_path / "a.npz")
    few, unseen = split_clips(recipe)
    write_pack(clips[6:], tmp_path / "b.npz")
    more, still_unseen = split_clips(recipe)
    assert {one.name for one in unseen[str(tmp_path)]} <= {one.name for one in still_unseen[str(tmp_path)]}
    assert {one.name for one in more} & {one.name for one in still_unseen[str(tmp_path)]} == set()
    assert len(more) + len(still_unseen[str(tmp_path)]) == 12
    assert all(is_held_out(one.name, recipe) for one in still_unseen[str(tmp_path)])
    assert len(few) < len(more)


def test_the_recipe_runs_end_to_end_and_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["sync", "--tiny", "-o", str(tmp_path)])
    made = tmp_path / "sync" / "made.safetensors"
    *_, gain, last = capsys.readouterr().out.splitlines()
    assert last == f"sync: {made}"
    assert gain.startswith(f"{made}: ")
    network = Wav2Lip(Wav2LipWidths.of(read_tensors(made)))
    assert network.widths == WIDTHS
    load_into(network, made)
    log = made.with_name("run") / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["ear", "drawing"]
    assert lines[-1]["part_done"] == 1
    score = lines[-1][str(tmp_path / "sync" / "drawn")]
    assert set(score) in (set(), {"correlation", "reach"})  # none where it does not draw faces yet
    ended = Recipe((tmp_path / "sync" / "drawn",), log.parent, ear_steps=1, steps=1, n_voices=0)
    train(ended)
    assert len(log.read_text().splitlines()) == 2
    train(replace(ended, steps=2, batch=2))
    assert json.loads(log.read_text().splitlines()[-1])["steps"] == 2


def test_the_same_seed_gives_the_same_weights(clip: TalkingClip, tmp_path: Path):
    clips = [replace(clip, name=f"c{i}") for i in range(3)]
    write_pack(clips, tmp_path / "pack.npz")
    made = []
    tiny = Recipe((tmp_path,), tmp_path, ear_steps=1, steps=2, batch=2, n_voices=0, threads=1)
    for name, seed, precision in (("a", 5, "bf16"), ("b", 5, "bf16"), ("c", 6, "bf16"), ("d", 5, "f32")):
        train(replace(tiny, run=tmp_path / name, seed=seed, precision=precision))
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1] != made[2]
    assert made[3] not in made[:3]
