"""Audio with the mouths that belong to it: measured on faces, or derived from the phonemes of timed speech.

An opening is counted in the speaker's own: 0 is closed lips, 1 the widest. So examples of all sources fit together,
and lips that are pressed together, as in b, m and p, are below 0.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.rendering.mouth_shape import MouthShape
from inference.speaker.synthesis import synthesise, synthesise_with_formants
from training.common.arrays import Floats, Integers
from training.common.espeak import (
    MARKS,
    PAUSE,
    PHONEME_VISEMES,
    Espeak,
    TimedPhoneme,
    mouth_shapes_at,
)
from training.common.lips import measure_shapes, shape_gap
from training.common.mel_windows import FAST_LENGTH, N_DEGRADED, ClipMels, Samples, draw_silence, make_clip_mels
from training.common.speech import count_frames, resample, synthesise_utterance, to_int16
from training.common.synthetic_clips import FIRST_SEED, FPS, make_clip

SHAPES = ("opening", "height", "width")
CLOSED, WIDEST = 8, 97  # percentiles of a speaker's gaps
PRESSED = 0.25  # lips pressed together are this far below 0
AT_REST = -0.1  # the opening in silence
SHUT_BELOW = 0.03  # smaller openings count as shut
N_DEGRADED_SPEECH = 2  # degraded copies of timed speech, of which there is more than of real clips
FORMANT_EVERY = 4  # one in this many sentences of the synthetic speaker has a formant voice instead of espeak-ng's
SPEEDS = (0.88, 1.13)  # range of factors of the speed of real audio, and so of its pitch
N_SPEEDS = 2  # copies of a real clip with another speed
SILENT_SHARE = 0.1  # share of windows with silence and a mouth at rest
UNKNOWN = -1
BILABIALS = frozenset("pbm")
PHONEME_CLASSES = (PAUSE, *sorted({name.rstrip(MARKS) or name for name in PHONEME_VISEMES}))
CLASS_NUMBERS = {name: i for i, name in enumerate(PHONEME_CLASSES)}
PRESS = list(MouthShape.__dataclass_fields__).index("press")
ALL_KNOWN: Floats = np.ones(len(SHAPES), np.float32)
OPENING_KNOWN: Floats = np.array([1, 0, 0], np.float32)


@dataclass(frozen=True)
class MouthExample:
    """Audio and the mouth of each frame.

    shapes: (T, 3) float32, opening, and the height and width of the lips in standard deviations of the speaker's.
    known: (3,) 1 for the numbers that are known. classes: (T,) of PHONEME_CLASSES; UNKNOWN for real voices.
    """

    name: str
    audio: ClipMels
    shapes: Floats
    known: Floats
    classes: Integers

    @property
    def n_frames(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True)
class RecordedLips:
    """A clip of a person. lips: (T, 20, 2) float32, px. samples: (N,) int16, 16 kHz mono."""

    name: str
    person: str
    lips: Floats
    samples: Samples


@dataclass(frozen=True)
class MouthBatch:
    """mels: (B, 1, 80, 16). shapes and known: (B, 3). classes: (B,)."""

    mels: Tensor
    shapes: Tensor
    known: Tensor
    classes: Tensor


def measure_examples(
    clips: Iterable[RecordedLips], n_speeds: int = N_SPEEDS, n_degraded: int = N_DEGRADED
) -> list[MouthExample]:
    """Return examples of real clips, as recorded and at other speeds. Gaps are scaled by those of the same person.

    n_degraded: degraded copies of the audio of each.
    """
    by_person: dict[str, list[RecordedLips]] = defaultdict(list)
    for clip in clips:
        by_person[clip.person].append(clip)
    examples = []
    for own in by_person.values():
        measured = [measure_shapes(clip.lips) for clip in own]
        every = np.concatenate(measured)
        closed, widest = np.percentile(every[:, 0], (CLOSED, WIDEST))
        offset = np.array([closed, 0, 0])
        factor = np.array([max(widest - closed, 1e-3), *np.maximum(every[:, 1:].std(0), 1e-3)])
        for clip, shapes in zip(own, measured, strict=True):
            scaled = ((shapes - offset) / factor).astype(np.float32)
            scaled[scaled[:, 0] < 0, 0] = AT_REST
            examples += vary_speed(clip, scaled, n_speeds, n_degraded)
    return examples


def vary_speed(clip: RecordedLips, shapes: Floats, n_speeds: int, n_degraded: int = N_DEGRADED) -> list[MouthExample]:
    """Return the clip as recorded, and played faster or slower."""
    seed = zlib.crc32(clip.name.encode())
    speeds = [1.0, *np.random.default_rng(seed).uniform(*SPEEDS, n_speeds)]
    examples = []
    for k, speed in enumerate(speeds):
        n_frames = int(len(shapes) / speed)
        at = np.arange(n_frames) * speed
        moved = np.stack([np.interp(at, np.arange(len(shapes)), column) for column in shapes.T], axis=1)
        samples = clip.samples.astype(np.float32) / np.float32(32768)
        n_samples = round(len(samples) / speed / FAST_LENGTH) * FAST_LENGTH
        audio = make_clip_mels(to_int16(resample(samples, n_samples)), n_frames, (seed, k), n_degraded)
        unknown = np.full(n_frames, UNKNOWN, np.int64)
        examples.append(MouthExample(clip.name, audio, moved.astype(np.float32), ALL_KNOWN, unknown))
    return examples


def label_speech(
    name: str, samples: Floats, phonemes: Sequence[TimedPhoneme], n_degraded: int = N_DEGRADED_SPEECH
) -> MouthExample:
    """Label timed speech, (N,) at 16 kHz, with the mouths of its phonemes. Only their opening is known reliably."""
    n_frames = count_frames(samples)
    times = np.arange(n_frames) / FPS
    shapes = scale_mouths(mouth_shapes_at(phonemes, times))[:, None] * OPENING_KNOWN
    classes = classes_at(phonemes, times)
    audio = make_clip_mels(to_int16(samples), n_frames, (zlib.crc32(name.encode()),), n_degraded)
    return MouthExample(name, audio, shapes, OPENING_KNOWN, classes)


def speaker_examples(n_sentences: int, first_seed: int = FIRST_SEED) -> list[MouthExample]:
    """Return sentences of the synthetic speaker, as `training.common.face_packs` renders them, without rendering."""
    examples = []
    for seed in range(first_seed, first_seed + n_sentences):
        speech = make_clip(seed, seed).speech
        n_frames = round(speech.length_s * FPS)
        mouths = np.stack([shape.row() for shape in speech.mouth_shapes(np.arange(n_frames) / FPS)])
        with_formants = seed % FORMANT_EVERY == 0
        samples = synthesise_with_formants(speech, seed) if with_formants else synthesise(speech, seed)
        audio = make_clip_mels(to_int16(samples), n_frames, (seed,), N_DEGRADED_SPEECH)
        shapes = scale_mouths(mouths.astype(np.float32))[:, None] * OPENING_KNOWN
        unknown = np.full(n_frames, UNKNOWN, np.int64)
        examples.append(MouthExample(f"speaker {seed}", audio, shapes, OPENING_KNOWN, unknown))
    return examples


def scale_mouths(mouths: Floats) -> Floats:
    """Return the openings (T,) of rows of MouthShape (T, 7)."""
    gaps = shape_gap(mouths)
    openings = gaps / max(float(np.percentile(gaps, WIDEST)), 1e-3) - PRESSED * mouths[:, PRESS]
    return np.where(openings < SHUT_BELOW, openings + AT_REST, openings).astype(np.float32)


def classes_at(phonemes: Sequence[TimedPhoneme], times_s: npt.NDArray[np.float64]) -> Integers:
    """Return the class of the phoneme at each time: (T,). It is a pause before and after the speech."""
    classes = np.zeros(len(times_s), np.int64)
    for phoneme in phonemes:
        classes[(times_s >= phoneme.start_s) & (times_s < phoneme.end_s)] = class_of(phoneme.name)
    return classes


def class_of(name: str) -> int:
    """Return the class of a phoneme by espeak-ng's name. Raises: KeyError if it is not English."""
    if not name or name.startswith(PAUSE):
        return CLASS_NUMBERS[PAUSE]
    bare = name.rstrip(MARKS) or name[0]
    return CLASS_NUMBERS[name] if name in CLASS_NUMBERS else CLASS_NUMBERS.get(bare, CLASS_NUMBERS[bare[0]])


def synthesise_examples(n_utterances: int, seed: int, *, held_out: bool = False) -> list[MouthExample]:
    """Return utterances of espeak-ng's voices. Raises: FileNotFoundError if espeak-ng is not installed."""
    espeak, examples = Espeak(), []
    for i in range(n_utterances):
        rng = np.random.default_rng((seed, i))
        samples, phonemes = synthesise_utterance(espeak, rng, held_out=held_out)
        examples.append(label_speech(f"espeak {seed} {i}", samples, phonemes))
    return examples


def draw_batch(kinds: Sequence[Sequence[MouthExample]], size: int, rng: np.random.Generator) -> MouthBatch:
    """Draw varied windows, from each kind of examples equally often; some are silence instead."""
    mels, shapes, known, classes = [], [], [], []
    for _ in range(size):
        kind = kinds[int(rng.integers(len(kinds)))]
        one = kind[int(rng.integers(len(kind)))]
        frame = int(rng.integers(one.n_frames))
        is_silent = rng.random() < SILENT_SHARE
        mels.append(draw_silence(rng) if is_silent else one.audio.draw_window(frame, rng))
        shapes.append(AT_REST * OPENING_KNOWN if is_silent else one.shapes[frame])
        known.append(OPENING_KNOWN if is_silent else one.known)
        classes.append(CLASS_NUMBERS[PAUSE] if is_silent else int(one.classes[frame]))
    return MouthBatch(
        torch.from_numpy(np.stack(mels)[:, None]),
        torch.from_numpy(np.stack(shapes).astype(np.float32)),
        torch.from_numpy(np.stack(known)),
        torch.tensor(classes),
    )
