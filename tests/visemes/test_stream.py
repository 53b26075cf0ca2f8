from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from inference.errors import WeightsNotFound, WrongWeights
from inference.visemes import LOOK_AHEAD_MS, OCULUS_VISEMES, VisemeFrame, VisemeSegment, VisemeStream
from inference.visemes.network import CLASSES_KEY, load_network, read_network
from inference.weights.checkpoint import read_arrays
from inference.weights.registry import REGISTRY, STARTER_VISEMES
from training.common.espeak import Espeak, has_library
from training.common.mouth_examples import BILABIALS
from training.common.speech import resample, to_int16
from training.lip_sync.export_visemes import export
from training.lip_sync.train_audio import make_encoder, write_encoder

RATE, FRAME = 16_000, 640
needs_espeak = pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")


def run(samples: np.ndarray, *, piece: int | None = None) -> tuple[list[VisemeFrame], list[VisemeSegment]]:
    stream = VisemeStream(load_network())
    pieces = [samples[i : i + piece] for i in range(0, len(samples), piece)] if piece else [samples]
    updates = [*(stream.push(one) for one in pieces), stream.finish()]
    return [f for one in updates for f in one.frames], [s for one in updates for s in one.segments]


def tones(seconds: float) -> np.ndarray:
    """Return a gliding tone with pauses: (N,) int16, 16 kHz."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * (200 + 150 * np.sin(3 * t)) * t) * (np.sin(5 * t) > 0)).astype(np.int16)


def test_frames_and_segments_cover_the_audio_without_gaps():
    frames, segments = run(tones(3.01))
    assert [one.index for one in frames] == list(range(76))
    assert (segments[0].start_s, segments[-1].end_s) == (0, 3.01)
    assert [one.end_s for one in segments[:-1]] == pytest.approx([one.start_s for one in segments[1:]])
    for one in (*frames, *segments):
        assert one.weights.shape == (15,)
        assert one.weights.sum() == pytest.approx(1, abs=1e-4)
        assert one.viseme in OCULUS_VISEMES


def test_pieces_give_what_the_whole_gives():
    samples = tones(2)
    whole, pieces = run(samples), run(samples, piece=997)
    assert [vars(s) | {"weights": 0, "blendshapes": 0} for s in pieces[1]] == [
        vars(s) | {"weights": 0, "blendshapes": 0} for s in whole[1]
    ]
    for one, other in zip(pieces[0], whole[0], strict=True):
        assert one.weights == pytest.approx(other.weights, abs=1e-4)
        assert one.blendshapes == pytest.approx(other.blendshapes, abs=1e-4)


def test_a_frame_is_known_once_its_look_ahead_has_arrived():
    samples, stream, n = tones(2), VisemeStream(load_network()), 0
    look_ahead = round(LOOK_AHEAD_MS * RATE / 1000)
    for end in range(100, len(samples), 100):
        n += len(stream.push(samples[end - 100 : end]).frames)
        assert n >= (end - look_ahead) // FRAME + (end >= look_ahead)


@pytest.mark.parametrize("n", [0, 1, 200, 639])
def test_audio_of_less_than_a_frame(n: int):
    frames, segments = run(np.zeros(n, np.int16))
    assert len(frames) == len(segments) == (n > 0)
    assert all(one.viseme == "sil" and one.end_s == n / RATE for one in segments)


def test_silence_rests():
    frames, segments = run(np.zeros(RATE, np.int16))
    assert [one.viseme for one in segments] == ["sil"]
    assert max(one.blendshapes.max() for one in frames) < 0.1


def test_memory_does_not_grow_with_the_audio():
    stream, second = VisemeStream(load_network()), tones(1)
    for _ in range(8):
        stream.push(second)
        assert stream._samples.end - stream._samples._first < RATE // 2
        assert len(stream._undecided) < 20


@needs_espeak
def test_b_m_and_p_are_shut_at_their_time_in_real_speech():
    speech = Espeak().synthesise("Baby Peter may map my pumpkin.", "gmw/en-US")
    samples = to_int16(resample(speech.samples, round(len(speech.samples) / speech.rate * RATE)))
    frames, segments = run(samples)
    closures = [one for one in speech.phonemes if one.name in BILABIALS]
    assert len(closures) > 8
    shut = [
        any(s.viseme == "PP" and abs((s.start_s + s.end_s) / 2 - (p.start_s + p.end_s) / 2) < 0.04 for s in segments)
        for p in closures
    ]
    assert sum(shut) >= 0.75 * len(closures)
    vowel = next(one for one in speech.phonemes if one.name == "aI")
    jaw_at = {one.index: one.blendshapes[0] for one in frames}
    assert jaw_at[int((vowel.start_s + 0.03) * 25)] > 0.2


def test_the_network_is_the_trained_module(tmp_path: Path):
    encoder = make_encoder()
    with torch.no_grad():
        for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.running_var.uniform_(0.5, 2)
            norm.running_mean.uniform_(-0.5, 0.5)
    write_encoder(encoder, tmp_path / "encoder.safetensors")
    export(tmp_path / "encoder.safetensors", tmp_path / "model.safetensors")
    mels = np.random.default_rng(3).uniform(-4, 4, (3, 80, 16)).astype(np.float32)
    found = read_network(tmp_path / "model.safetensors")(mels)
    with torch.no_grad():
        expected = encoder.eval()(torch.from_numpy(mels[:, None]))
    assert found.shapes == pytest.approx(expected.shapes.numpy(), abs=0.02)  # float16 is stored
    assert found.posteriors == pytest.approx(torch.softmax(expected.classes, 1).numpy(), abs=0.01)
    assert found.contacts == pytest.approx(torch.sigmoid(expected.contacts).numpy(), abs=0.01)


def test_files_that_are_no_speech_encoder_are_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(WeightsNotFound):
        read_network(path)
    path.write_bytes(b"<html>")
    with pytest.raises(WrongWeights, match="not a safetensors file"):
        read_network(path)
    for classes, message in ((["_", "p", "xyz"], "'xyz' has no viseme"), ({}, "no list"), (["_"], "another model")):
        save_file({"x": np.zeros(1, np.float32)}, path, {CLASSES_KEY: json.dumps(classes)})
        with pytest.raises(WrongWeights, match=message):
            read_network(path)
    assert STARTER_VISEMES.shipped_in is not None
    shipped = read_arrays(STARTER_VISEMES.shipped_in / "model.safetensors")
    save_file(shipped, path, {CLASSES_KEY: json.dumps(["_", "p"])})
    with pytest.raises(WrongWeights, match=r"phoneme"):
        read_network(path)


def test_the_card_is_of_the_shipped_file_and_all_weights_stay_small():
    card, (file,) = STARTER_VISEMES.read_card(), STARTER_VISEMES.files
    assert (card["sha256"], card["bytes"]) == (file.sha256, file.n_bytes)
    for result in card["results"].values():
        assert result["viseme"] > 1.5 * result["always_the_same"]["viseme"]
    shipped = [(one.shipped_in, f) for one in REGISTRY.values() if one.shipped_in for f in one.files]
    assert sum((folder / f.name).stat().st_size for folder, f in shipped) < 40e6
