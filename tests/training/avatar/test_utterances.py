from __future__ import annotations

import numpy as np
import pytest

from inference.audio.avatar_features import mel_of_window
from inference.audio.mel import SILENCE
from inference.avatar.utterance import Utterance
from training.avatar.utterances import (
    WIDEST_GAP,
    draw_utterances,
    label_clips,
    label_utterance,
    make_silence,
    vary_mel,
)
from training.common.espeak import TimedPhoneme, has_library
from training.common.face_packs import FaceClip
from training.common.mouth_examples import BILABIALS, CLASS_NUMBERS, UNKNOWN

needs_espeak = pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")


@pytest.mark.parametrize("look_ahead", [6, 1])
def test_training_uses_the_same_windows_as_a_session(look_ahead: int):
    samples = (np.random.default_rng(0).standard_normal(16_000) * 0.1).astype(np.float32)
    windows = label_utterance("noise", samples, (), 0).windows(range(25), look_ahead)
    assert windows.shape == (25 + 15, 80, 16)
    utterance = Utterance(16_000, look_ahead)
    utterance.push(np.round(samples * 32767).astype(np.int16))
    utterance.end()
    for frame in range(25):
        new = [mel_of_window(window) for window in utterance.take_windows()]
        # The spectrogram of whole audio reflects it at its ends, that of a session pads it with zeros.
        if 4 <= frame <= 18 - look_ahead:
            assert windows[frame + 16 - len(new) : frame + 16] == pytest.approx(np.stack(new), abs=4e-3)  # float16
        utterance.advance([mel[0] for mel in new])


def test_a_piece_is_part_of_the_whole():
    samples = (np.random.default_rng(0).standard_normal(16_000) * 0.1).astype(np.float32)
    one = label_utterance("noise", samples, (), 1)
    assert np.array_equal(one.windows(range(5, 9), 1, version=1), one.windows(range(25), 1, version=1)[5 : 9 + 15])
    assert not np.array_equal(one.windows(range(5, 9), 1), one.windows(range(5, 9), 1, version=1))


def test_timed_speech_has_mouths_and_classes():
    names = [("_", 0.2), ("A:", 0.3), ("b", 0.12), ("A:", 0.3)]
    ends = np.cumsum([length for _, length in names])
    phonemes = [TimedPhoneme(name, end - length, end) for (name, length), end in zip(names, ends, strict=True)]
    one = label_utterance("aba", np.zeros(round(ends[-1] * 16_000), np.float32), phonemes)
    middle = round(0.56 * 25)
    assert one.gaps[middle] < 0.1
    assert one.gaps[9] > 0.5
    assert one.mouths is not None
    assert one.mouths[middle, 3] > 0.8  # press
    assert one.classes[middle] in {CLASS_NUMBERS[name] for name in BILABIALS}


def test_real_openings_count_from_closed_to_the_widest_of_rendered_speech():
    lips = np.zeros((75, 20, 2), np.float32)
    lips[:, 6, 0], lips[:, 9, 1] = 30, 10 + np.linspace(0, 9, 75)
    lips[:, [19, 18, 17], 1] = np.linspace(0, 9, 75)[:, None]
    samples = np.random.default_rng(1).normal(0, 2000, 48_000).astype(np.int16)
    plain, faster = label_clips([FaceClip("a_1", "a", np.zeros(0, np.uint8), lips, samples)], n_speeds=1)
    assert plain.mouths is None
    assert plain.gaps[:5].tolist() == [0] * 5
    assert plain.gaps[72] == pytest.approx(WIDEST_GAP, abs=0.03)
    assert (plain.classes == UNKNOWN).all()
    assert faster.n_frames != plain.n_frames


def test_the_mouth_is_closed_in_silence():
    silence = make_silence(6, 0)
    assert silence.gaps.tolist() == [0] * 75
    assert (silence.windows(range(75), 1) == SILENCE).all()
    assert max(silence.windows(range(75), 1, version=k).max() for k in range(1, 6)) > SILENCE + 1  # faint noise may not


def test_varied_audio_stays_in_its_range():
    mel = np.random.default_rng(0).uniform(SILENCE, 4, (80, 40)).astype(np.float32)
    varied = [vary_mel(mel, np.random.default_rng(i)) for i in range(20)]
    assert len({one.tobytes() for one in varied}) > 5
    assert all(one.min() >= SILENCE and one.max() <= 4 and one.shape == mel.shape for one in varied)


@needs_espeak
def test_voices_and_texts_depend_on_the_seed():
    one, other = draw_utterances(1, 5), draw_utterances(1, 6)
    assert one[0].n_frames != other[0].n_frames
    assert len(one[0].mouths) == len(one[0].classes) == one[0].n_frames
    assert one[0].gaps.max() > 0.3
