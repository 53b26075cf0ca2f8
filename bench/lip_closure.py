"""Whether lips shut on b, m and p: in the shape that the audio encoder predicts, and in the generated video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bench.lips import FPS, Curve
from inference.audio.mel import SAMPLE_RATE
from inference.lip_sync.model import find_checkpoint
from inference.media.audio_convert import Samples
from inference.models import Wav2Lip
from inference.settings import Settings
from inference.weights.architectures import WAV2LIP, load_module
from training.common.arrays import Floats
from training.common.espeak import TimedPhoneme
from training.common.kokoro import KokoroSpeech
from training.common.mel_windows import make_clip_mels
from training.common.mouth_examples import BILABIALS
from training.common.speech import to_int16
from training.lip_sync.shape_encoding import ShapeEncoding, layers_of
from training.lip_sync.train import LipSyncRecipe

WITHIN_S = 0.08  # from the middle of the phoneme
SHUT_SHARE = 0.1  # lips are shut below this share of the widest opening
WIDEST_PERCENTILE = 95  # of the openings in speech
TOLERANCE = 0.01  # relative error of an audio encoder's outputs as an encoded shape


@dataclass(frozen=True)
class TimedAudio:
    """Speech with the times of its b, m and p. middles_s: (N,) seconds."""

    samples: Samples
    middles_s: tuple[float, ...]

    @classmethod
    def of_kokoro(cls, speech: KokoroSpeech) -> TimedAudio:
        return cls(to_int16(speech.samples), bilabial_middles(speech.phonemes))

    @property
    def n_frames(self) -> int:
        return int(len(self.samples) * FPS / SAMPLE_RATE)


def bilabial_middles(phonemes: Iterable[TimedPhoneme]) -> tuple[float, ...]:
    return tuple((one.start_s + one.end_s) / 2 for one in phonemes if one.name.lower() in BILABIALS)


def count_shut(opening: Curve, middles_s: Sequence[float], closed: float = 0.0) -> tuple[int, int]:
    """Return for how many of the phonemes the lips are shut, and how many there are.

    opening: (T,) of each frame. closed: what is measured between closed lips. Phonemes beyond the last frame are left
    out.
    """
    limit = closed + SHUT_SHARE * (np.percentile(opening, WIDEST_PERCENTILE) - closed)
    times = np.arange(len(opening)) / FPS
    least = [
        opening[np.abs(times - middle) <= WITHIN_S + 1e-9].min() for middle in middles_s if middle < len(opening) / FPS
    ]
    return sum(one < limit for one in least), len(least)


class ShapeReader:
    """Reads the predicted opening out of the audio encoder of a narrow Wav2Lip that was trained here."""

    def __init__(self, checkpoint: str) -> None:
        """Load a checkpoint. Raises: ValueError if its audio encoder does not encode shapes of mouths."""
        found = find_checkpoint(checkpoint, Settings.from_env().weight_sources)
        network = cast(Wav2Lip, load_module(found.path, WAV2LIP)[1]).float().eval()
        self._encoder, encoding = network.audio_encoder, ShapeEncoding(LipSyncRecipe.seed)
        conv, _ = layers_of(self._encoder[-1])
        weight = conv.weight.detach()[:, :, 0, 0]
        if weight.shape[0] != len(encoding.mixture):
            raise ValueError(f"{found.label}: {weight.shape[0]} outputs found, {len(encoding.mixture)} expected")
        self._to_shape: Tensor = torch.linalg.pinv(encoding.mixture)
        error = (encoding.mixture @ (self._to_shape @ weight) - weight).norm() / weight.norm()
        if error > TOLERANCE:
            raise ValueError(f"{found.label}: its audio encoder does not encode shapes ({error:.2f} of it is other)")
        self._kink = encoding.kink

    @torch.no_grad()
    def opening(self, samples: Samples, n_frames: int) -> Curve:
        """Return the predicted opening of each frame, less that in silence: (n_frames,) as the encoding takes it."""
        spoken = self._gaps(make_clip_mels(samples, n_frames, (), 0).windows(n_frames))
        silent = self._gaps(make_clip_mels(np.zeros(SAMPLE_RATE, np.int16), 1, (), 0).windows(1))
        return np.asarray(spoken - silent[0], np.float64)

    def _gaps(self, mels: Floats) -> Floats:
        conv, norm = layers_of(self._encoder[-1])
        before = norm(conv(self._encoder[:-1](torch.from_numpy(mels)))).flatten(1)  # before its ReLU
        return np.asarray(((before + self._kink) @ self._to_shape.T)[:, 0].numpy(), np.float32)


def read_shapes(checkpoint: str | Path) -> ShapeReader | None:
    """Return a reader of a checkpoint's shapes; None, with a message, if it has none."""
    try:
        return ShapeReader(str(checkpoint))
    except ValueError as err:
        print(f"no correlation of the encoder: {err}")
        return None
