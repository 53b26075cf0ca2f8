"""Speech of a long text, part by part."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator

import numpy as np

from container.speech.requests import SpeechRequest
from container.speech.sentences import split_sentences
from container.speech.synthesizer import Synthesizer
from inference.audio.mel import Samples
from inference.audio.resample import Resampler


async def speak_parts(synthesizer: Synthesizer, request: SpeechRequest, sample_rate: int) -> AsyncIterator[Samples]:
    """Yield the speech of each part of a text once it is made: (n,) int16 mono.

    Raises: the errors of `Synthesizer.synthesize`; InvalidRequest if the rate is not one of speech.
    """
    for part in split_sentences(request.text):
        file = await synthesizer.synthesize(request.model_copy(update={"text": part}))
        yield await asyncio.to_thread(read_wav, file, sample_rate)


def read_wav(file: bytes, sample_rate: int) -> Samples:
    """Return the samples of a synthesiser's WAV file at another rate: (n,) int16 mono."""
    with wave.open(io.BytesIO(file)) as content:
        rate, samples = content.getframerate(), np.frombuffer(content.readframes(content.getnframes()), "<i2")
    resampler = Resampler(rate, sample_rate)
    return np.concatenate([resampler.push(samples.astype(np.int16)), resampler.finish()])
