"""Training data of the avatar's audio encoder: audio, and the mouth and the phoneme of each frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.audio.avatar_features import AVATAR_FPS, FEATURE_ROWS, avatar_window_start
from inference.audio.mel import MAX_MEL, SAMPLE_RATE, SILENCE
from inference.audio.wav2lip_windows import MEL_WINDOW
from inference.rendering.mouth_shape import MouthShape
from training.common.arrays import Floats, Integers
from training.common.espeak import PAUSE, Espeak, TimedPhoneme, mouth_shapes_at
from training.common.face_packs import FaceClip
from training.common.kokoro import KokoroSpeech
from training.common.lips import shape_gap
from training.common.mel_windows import COLUMNS_BEFORE, DECIBEL, ClipMels, make_clip_mels, scale_frequencies
from training.common.mouth_examples import CLASS_NUMBERS, MouthExample, RecordedLips, classes_at, measure_examples
from training.common.speech import count_frames, draw_noise, synthesise_utterance, to_int16

N_DEGRADED = 1  # degraded copies of timed speech, which are varied further
WIDEST_GAP = 1.1  # of rendered speech, 97th percentile: what a real speaker's widest opening counts as
FARTHEST = 64  # columns of silence before and after the audio: more than any look-ahead or look-back
SILENCE_S = 3  # length of an utterance without speech
NOISE_DB = (-80, -35)  # level of a room's noise, re full scale
TRACT_FACTORS = (0.84, 1.2)  # range of factors of all frequencies of a voice
TRACT_SHARE, LOUDNESS_SHARE, NOISE_SHARE = 0.5, 0.5, 0.3  # shares of pieces with each change


@dataclass(frozen=True)
class LabelledUtterance:
    """Audio and the mouth of each of T frames.

    mouths: (T, 7) float32, rows of MouthShape; None for a real voice, of which only the gap between the lips was
    measured. gaps: (T,) float32, that gap. classes: (T,) of PHONEME_CLASSES; UNKNOWN for real voices.
    """

    name: str
    audio: ClipMels
    mouths: Floats | None
    gaps: Floats
    classes: Integers

    @property
    def n_frames(self) -> int:
        return len(self.gaps)

    def windows(self, frames: range, look_ahead: int, version: int = 0) -> Floats:
        """Return the mel windows that consecutive frames take: (T + 15, 80, 16); frame i takes rows i .. i + 15.

        look_ahead: the window of the last row, counted from the frame.
        """
        return cut_windows(self.audio.mels[version].astype(np.float32), frames, look_ahead)

    def draw_windows(self, frames: range, look_ahead: int, rng: np.random.Generator) -> Floats:
        """Draw a varied copy of these windows, as of another speaker in another room."""
        version = int(rng.integers(len(self.audio.mels)))
        return cut_windows(vary_mel(self.audio.mels[version].astype(np.float32), rng), frames, look_ahead)


def cut_windows(mel: Floats, frames: range, look_ahead: int) -> Floats:
    """Cut the windows of consecutive frames, (T + 15, 80, 16), from a mel with 8 columns before the audio."""
    padded = np.pad(mel, ((0, 0), (FARTHEST, FARTHEST)), constant_values=SILENCE)
    windows = range(frames.start + look_ahead - FEATURE_ROWS + 1, frames.stop + look_ahead)
    starts = [FARTHEST + COLUMNS_BEFORE + avatar_window_start(k) for k in windows]
    return np.stack([padded[:, at : at + MEL_WINDOW] for at in starts])


def vary_mel(mel: Floats, rng: np.random.Generator) -> Floats:
    """Change the loudness and the size of the vocal tract, and add a noise floor, each with a chance."""
    if rng.random() < TRACT_SHARE:
        mel = scale_frequencies(mel, rng.uniform(*TRACT_FACTORS))
    if rng.random() < LOUDNESS_SHARE:
        mel = np.where(mel > SILENCE, mel + rng.uniform(-14, 8) * DECIBEL, mel)
    if rng.random() < NOISE_SHARE:
        mel = np.maximum(mel, draw_noise_floor(mel.shape, rng))
    return np.clip(mel, SILENCE, MAX_MEL).astype(np.float32)


def draw_noise_floor(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw the faint noise of a room: (80, T)."""
    floor = rng.uniform(-95, -50) + np.linspace(0, rng.uniform(-25, 5), shape[0])[:, None]
    levels = SILENCE + (floor + 100 + rng.normal(0, 4, shape)) * DECIBEL
    return np.clip(levels, SILENCE, MAX_MEL).astype(np.float32)


def label_utterance(
    name: str, samples: Floats, phonemes: Sequence[TimedPhoneme], n_degraded: int = N_DEGRADED
) -> LabelledUtterance:
    """Label timed speech, (N,) at 16 kHz, with the mouths of its phonemes."""
    n_frames = count_frames(samples)
    times = np.arange(n_frames) / AVATAR_FPS
    mouths = mouth_shapes_at(phonemes, times)
    audio = make_clip_mels(to_int16(samples), n_frames, (zlib.crc32(name.encode()),), n_degraded)
    return LabelledUtterance(name, audio, mouths, shape_gap(mouths), classes_at(phonemes, times))


def draw_utterances(n_utterances: int, seed: int, *, held_out: bool = False) -> list[LabelledUtterance]:
    """Draw utterances of espeak-ng's voices.

    Texts and voices are the same for the same seed; samples may differ, as espeak-ng keeps state between utterances.
    """
    espeak, utterances = Espeak(), []
    for i in range(n_utterances):
        samples, phonemes = synthesise_utterance(
            espeak, np.random.default_rng((seed, int(held_out), i)), held_out=held_out
        )
        utterances.append(label_utterance(f"espeak {seed} {i}", samples, phonemes))
    return utterances


def label_kokoro(spoken: Iterable[KokoroSpeech]) -> list[LabelledUtterance]:
    """Label the speech of Kokoro's packs."""
    return [label_utterance(f"kokoro {i}", one.samples, one.phonemes) for i, one in enumerate(spoken)]


def label_clips(clips: Iterable[FaceClip], n_speeds: int = 0) -> list[LabelledUtterance]:
    """Label real clips with the measured gap between the lips, on the scale of rendered speech, per person.

    n_speeds: copies of each clip with another speed.
    """
    recorded = [RecordedLips(one.name, one.person, one.lips, one.samples) for one in clips]
    return [scale_to_rendered(one) for one in measure_examples(recorded, n_speeds, N_DEGRADED)]


def scale_to_rendered(example: MouthExample) -> LabelledUtterance:
    """Scale a person's openings: 0 stays closed lips, and 1, the widest, becomes the widest of rendered speech."""
    gaps: npt.NDArray[np.float32] = np.maximum(example.shapes[:, 0], 0) * np.float32(WIDEST_GAP)
    return LabelledUtterance(example.name, example.audio, None, gaps, example.classes)


def make_silence(n_versions: int, seed: int) -> LabelledUtterance:
    """Return an utterance without speech: digital silence, then the noise of rooms. The mouth is at rest."""
    n_samples = SILENCE_S * SAMPLE_RATE
    n_frames = n_samples * AVATAR_FPS // SAMPLE_RATE
    mels: list[npt.NDArray[np.float16]] = []
    for k in range(n_versions):
        rng = np.random.default_rng((seed, k))
        level = 10 ** (rng.uniform(*NOISE_DB) / 20) if k else 0.0
        samples = to_int16(draw_noise(n_samples, rng) * np.float32(level))
        mels += make_clip_mels(samples, n_frames, (seed, k), n_degraded=0).mels
    mouths = np.tile(MouthShape().row(), (n_frames, 1)).astype(np.float32)
    classes = np.full(n_frames, CLASS_NUMBERS[PAUSE], np.int64)
    return LabelledUtterance("silence", ClipMels(tuple(mels)), mouths, shape_gap(mouths), classes)
