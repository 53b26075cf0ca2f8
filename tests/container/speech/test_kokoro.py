"""Kokoro with a small network of the real one's inputs and output, and with the real one if it is installed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from support.fake_espeak import write_fake_espeak
from support.waiting import PATIENCE_S

from container.speech import kokoro as module
from container.speech import kokoro_voices
from container.speech.kokoro import (
    MAX_TOKENS,
    MODEL_SHA256,
    TOKENS,
    KokoroSynthesizer,
    read_installed_model,
    split_tokens,
    to_tokens,
)
from container.speech.requests import SpeechRequest
from container.speech.synthesizer import SpeechSynthesizer
from inference.errors import InvalidRequest, MediaTooLarge, Overloaded, SpeechUnavailable, WrongWeights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
VOICE = "af_heart"


class FakeEspeak(SpeechSynthesizer):
    """Writes what espeak-ng 1.51 writes for "hello" with `-q --ipa -v en-us`, for each paragraph, whatever it says.

    Like espeak-ng, it writes nothing for a dash.
    """

    n_runs = 0

    async def run(self, arguments: list[str], text: str) -> bytes:  # type: ignore[override]
        assert arguments == ["-q", "--ipa", "-v", "en-us"]
        self.n_runs += 1
        return "".join("həlˈoʊ\n" for one in text.split("\n\n") if one != "-").encode()


def small_network() -> bytes:
    """Return a network whose audio has 600 samples for each token, the style's first number times the speed."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Slice", ["style", "zero", "one", "axis"], ["first"]),
        helper.make_node("Mul", ["first", "speed"], ["level"]),
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["n"]),
        helper.make_node("Mul", ["n", "step"], ["length"]),
        helper.make_node("Reshape", ["level", "one"], ["flat"]),
        helper.make_node("Expand", ["flat", "length"], ["audio"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("style", floats, [1, 256]),
        helper.make_tensor_value_info("speed", floats, [1]),
    ]
    outputs = [helper.make_tensor_value_info("audio", floats, [None])]
    constants = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
        for name, value in {"zero": 0, "one": 1, "two": 2, "axis": 1, "step": 600}.items()
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
def kokoro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KokoroSynthesizer:
    style = np.zeros((510, 256), np.float32)
    style[:, 0] = np.arange(510) / 1000  # so that the audio shows which row was used
    (tmp_path / f"{VOICE}.bin").write_bytes(style.tobytes())
    monkeypatch.setitem(kokoro_voices.VOICE_HASHES, VOICE, hashlib.sha256(style.tobytes()).hexdigest())
    monkeypatch.setattr(module, "MODEL_PARTS", ())
    return KokoroSynthesizer(tmp_path, 1, FakeEspeak(str(write_fake_espeak(tmp_path))), small_network)


def speak(kokoro: KokoroSynthesizer, **fields: object) -> np.ndarray:
    audio = asyncio.run(kokoro.synthesize(SpeechRequest.model_validate({"language": "en-us"} | fields)))
    with wave.open(io.BytesIO(audio)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def test_a_text_becomes_tokens_and_these_audio(kokoro: KokoroSynthesizer):
    """By hand: "həlˈoʊ" and a full stop are 7 tokens, so that row 7 is used, and 9 with their ends."""
    samples = speak(kokoro, text="Hello.", rate=350)
    assert len(samples) == 9 * 600
    assert set(samples) == {round(0.007 * 2 * 32767)}
    assert to_tokens("həlˈoʊ.") == [50, 83, 54, 156, 57, 135, 4]


def test_what_it_cannot_speak_is_named(kokoro: KokoroSynthesizer, tmp_path: Path):
    assert kokoro.is_available
    assert kokoro.describe()["voices"] == [VOICE]
    with pytest.raises(InvalidRequest, match='"language": found de; expected en or en-us'):
        speak(kokoro, text="a", language="de")
    with pytest.raises(InvalidRequest, match='"voice": found bf_emma; expected one of af_heart'):
        speak(kokoro, text="a", language="en")
    (tmp_path / f"{VOICE}.bin").write_bytes(b"another")
    with pytest.raises(WrongWeights, match="SHA-256"):
        speak(kokoro, text="a")


def test_long_speech_and_many_texts_are_refused(kokoro: KokoroSynthesizer, monkeypatch: pytest.MonkeyPatch):
    async def flood() -> list[object]:
        request = SpeechRequest(text="Hello.", language="en-us")
        return await asyncio.gather(*(kokoro.synthesize(request) for _ in range(18)), return_exceptions=True)

    assert [type(one) for one in asyncio.run(flood())].count(Overloaded) == 1
    monkeypatch.setattr(module, "MAX_SPEECH_S", 0.2)
    with pytest.raises(MediaTooLarge, match=r"longer than 0\.2 s"):
        speak(kokoro, text="Hello.")
    monkeypatch.setattr(module, "MAX_SPEECH_S", 0.3)
    assert len(speak(kokoro, text="Hello.")) == 9 * 600  # there is room again


def test_a_canceled_run_ends_before_the_next_begins(kokoro: KokoroSynthesizer, monkeypatch: pytest.MonkeyPatch):
    begun: list[int] = []
    may_end = threading.Event()

    def run(tokens: list[int], _voice: str, _rate: int) -> np.ndarray:
        begun.append(len(tokens))
        may_end.wait(PATIENCE_S)
        return np.zeros(600, np.float32)

    monkeypatch.setattr(kokoro, "_run", run)
    request = SpeechRequest(text="Hello.", language="en-us")

    async def go() -> None:
        first = asyncio.create_task(kokoro.synthesize(request))
        while not begun:
            await asyncio.sleep(0.001)
        first.cancel()
        second = asyncio.create_task(kokoro.synthesize(request))
        await asyncio.wait({second}, timeout=0.1)
        assert first.cancelled()
        assert len(begun) == 1
        may_end.set()
        await second

    try:
        asyncio.run(go())
    finally:
        may_end.set()
    assert len(begun) == 2


@pytest.mark.parametrize(
    ("text", "phonemes", "n_runs"),
    [
        ("Hello, you: hello!", "həlˈoʊ, həlˈoʊ: həlˈoʊ!", 1),
        ("Hello, -, hello", "həlˈoʊ, , həlˈoʊ", 4),  # a line is missing: one run for each text
        ("...", "...", 0),
    ],
)
def test_one_process_makes_the_phonemes_of_a_text(kokoro: KokoroSynthesizer, text: str, phonemes: str, n_runs: int):
    assert asyncio.run(kokoro._phonemise(text, "en-us")) == phonemes
    assert kokoro._espeak.n_runs == n_runs  # type: ignore[attr-defined]


@pytest.mark.parametrize("missing", ["espeak", "model", "voices"])
def test_without_its_parts_it_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setattr(module, "MODEL_PARTS", ("no_such_package",) if missing == "model" else ())
    espeak = SpeechSynthesizer(str(tmp_path / "none" if missing == "espeak" else write_fake_espeak(tmp_path)))
    kokoro = KokoroSynthesizer(tmp_path, 1, espeak, small_network)
    assert not kokoro.is_available
    expected = {"espeak": "espeak-ng", "model": "extra tts", "voices": "VISEME_KOKORO_VOICES"}[missing]
    with pytest.raises(SpeechUnavailable, match=expected):
        speak(kokoro, text="a")


def test_many_tokens_are_several_runs_that_end_at_spaces():
    tokens = ([TOKENS["a"]] * 9 + [TOKENS[" "]]) * 120
    runs = list(split_tokens(tokens))
    assert [token for run in runs for token in run] == tokens
    assert all(len(run) <= MAX_TOKENS for run in runs)
    assert all(run[0] == TOKENS[" "] for run in runs[1:])
    assert [len(run) for run in split_tokens([TOKENS["a"]] * 1000)] == [MAX_TOKENS, 1000 - MAX_TOKENS]


def test_the_installed_model_is_the_known_one():
    try:
        model = read_installed_model()
    except SpeechUnavailable:
        pytest.skip("the extra tts is not installed")
    assert hashlib.sha256(model).hexdigest() == MODEL_SHA256
