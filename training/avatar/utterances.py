"""Training data of the avatar's audio encoder: the mel windows of an utterance, and the mouth of each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.audio.avatar_features import AVATAR_FPS, FIRST_WINDOW, LAST_WINDOW, avatar_window_start
from inference.audio.mel import HOP, SAMPLE_RATE, mel_columns
from inference.audio.wav2lip_windows import MEL_WINDOW
from inference.rendering.mouth_shape import MouthShape
from training.common.arrays import Floats
from training.common.espeak import Espeak, TimedPhoneme, mouth_shapes_at
from training.common.lips import shape_gap
from training.common.speech import count_frames, degrade, draw_noise, synthesise_utterance

PADDING_S = 0.5  # silence before and after the audio, for windows that extend beyond it
SILENCE_S = 3  # length of an utterance without speech


@dataclass(frozen=True)
class LabelledUtterance:
    """The mel windows of T frames, and the mouth of each frame.

    mels: (T + 15, 80, 16) float16; frame i uses rows i .. i + 15. mouths: (T, 7) float32, rows of MouthShape; None for
    a real voice, of which only the gap between the lips was measured. gaps: (T,) float32, that gap.
    """

    mels: npt.NDArray[np.float16]
    mouths: Floats | None
    gaps: Floats

    @property
    def n_frames(self) -> int:
        return len(self.gaps)


def cut_windows(samples: Floats, n_frames: int) -> npt.NDArray[np.float16]:
    """Return the mel windows of all frames: (n_frames + FEATURE_ROWS - 1, 80, 16), of (N,) samples at 16 kHz, -1..1."""
    padding = round(PADDING_S * SAMPLE_RATE)
    padded = np.round(np.clip(np.pad(samples, padding), -1, 1) * 32767).astype(np.int16)
    starts = [avatar_window_start(k) for k in range(FIRST_WINDOW, n_frames + LAST_WINDOW)]
    shift = padding // HOP
    mel = mel_columns(padded, shift + starts[0], shift + starts[-1] + MEL_WINDOW)
    return np.stack([mel[:, at - starts[0] : at - starts[0] + MEL_WINDOW] for at in starts]).astype(np.float16)


def label_utterance(samples: Floats, phonemes: tuple[TimedPhoneme, ...]) -> LabelledUtterance:
    """Label audio, (N,) at 16 kHz, with the mouths of its phonemes."""
    n_frames = count_frames(samples)
    mouths = mouth_shapes_at(phonemes, np.arange(n_frames) / AVATAR_FPS)
    return LabelledUtterance(cut_windows(samples, n_frames), mouths, shape_gap(mouths))


def draw_silence(rng: np.random.Generator) -> LabelledUtterance:
    """Draw an utterance without speech, often with the noise of a room: the mouth is at rest."""
    n_samples = SILENCE_S * SAMPLE_RATE
    samples = np.zeros(n_samples, np.float32)
    if rng.random() < 0.7:
        samples += draw_noise(n_samples, rng) * np.float32(10 ** (rng.uniform(-80, -35) / 20))
    mouths = np.tile(MouthShape().row(), (count_frames(samples), 1)).astype(np.float32)
    return LabelledUtterance(cut_windows(samples, len(mouths)), mouths, shape_gap(mouths))


def draw_utterances(n_utterances: int, seed: int, *, held_out: bool = False) -> list[LabelledUtterance]:
    """Draw utterances; one in twenty is silence.

    Texts and voices are the same for the same seed; samples may differ, as espeak-ng keeps state between utterances.
    """
    espeak = Espeak()
    utterances = []
    for i in range(n_utterances):
        rng = np.random.default_rng((seed, int(held_out), i))
        if i % 20 == 19:
            utterances.append(draw_silence(rng))
            continue
        samples, phonemes = synthesise_utterance(espeak, rng, held_out=held_out)
        utterances.append(label_utterance(degrade(samples, rng), phonemes))
    return utterances
