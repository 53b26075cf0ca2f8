"""Kokoro's timed symbols. The model is a download; a small graph with its inputs and outputs stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training.common.espeak import Espeak, has_library
from training.common.kokoro import (
    DURATIONS,
    HELD_OUT_VOICES,
    LATE_S,
    N_STYLE,
    N_STYLES,
    RATE,
    VOICES,
    Kokoro,
    KokoroSpeech,
    load_packs,
    phonemise,
    time_symbols,
    write_pack,
)
from training.common.kokoro import TOKENS as NUMBERS


def test_marks_belong_to_their_neighbours():
    symbols = ["", "m", "ˈ", "ɑ", "ː", " ", "p", ",", ""]
    lengths = np.array([0.3, 0.1, 0.04, 0.1, 0.06, 0.025, 0.1, 0.2, 0.1], np.float32)
    found = [
        (one.name, round(one.start_s + LATE_S, 3), round(one.end_s + LATE_S, 3))
        for one in time_symbols(symbols, lengths)
    ]
    assert found == [
        ("_", LATE_S, 0.3),
        ("m", 0.3, 0.42),
        ("A", 0.42, 0.625),
        ("p", 0.625, 0.725),
        ("_", 0.725, 0.925),
        ("_", 0.925, pytest.approx(1.025 + LATE_S)),
    ]


def test_a_long_space_is_a_pause():
    assert [one.name for one in time_symbols(["", "s", " ", "s", ""], np.full(5, 0.2, np.float32))] == list("_s_s_")


def test_packs_have_what_was_written(tmp_path: Path):
    rng = np.random.default_rng(1)
    written = [
        KokoroSpeech(rng.uniform(-1, 1, n).astype(np.float32), ("", "a", ""), np.array([0.1, 0.2, 0.1], np.float32))
        for n in (50, 70)
    ]
    write_pack(written, tmp_path / "a.npz")
    for one, read in zip(written, load_packs(tmp_path), strict=True):
        assert np.allclose(one.samples, read.samples, atol=1e-4)
        assert one.symbols == read.symbols
        assert np.array_equal(one.lengths_s, read.lengths_s)
    with pytest.raises(FileNotFoundError, match="timed speech"):
        load_packs(tmp_path / "none")


def test_held_out_voices_are_not_trained_on():
    assert not set(VOICES.split()) & set(HELD_OUT_VOICES.split())
    assert len(VOICES.split()) >= 20


@pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")
def test_texts_become_symbols_that_have_numbers():
    found = phonemise(Espeak(), "Maybe, people jump!", "en-us")
    assert found == "mˈeɪbiː, pˈiːpəl dʒˈʌmp!"
    assert all(symbol in NUMBERS for symbol in found)


@pytest.mark.skipif(not has_library(), reason="espeak-ng is not installed")
def test_durations_are_read_from_the_graph(tmp_path: Path):
    """The stand-in has the inputs, the output and the tensor of durations of the real graph; a token lasts 3 steps."""
    espeak = Espeak()
    with pytest.raises(ValueError, match="no tensor"):
        Kokoro(save_graph(tmp_path / "other.onnx", "something"), tmp_path, espeak)
    kokoro = Kokoro(save_graph(tmp_path / "kokoro.onnx", DURATIONS), tmp_path, espeak)
    np.zeros((N_STYLES, N_STYLE), np.float32).tofile(tmp_path / "af_x.bin")
    speech = kokoro.synthesise("a map", "af_x")
    assert speech.symbols == ("", *phonemise(espeak, "a map", "en-us"), "")
    assert speech.lengths_s == pytest.approx(np.full(len(speech.symbols), 3 * 600 / RATE))
    np.zeros(5, np.float32).tofile(tmp_path / "af_x.bin")
    with pytest.raises(ValueError, match="5 numbers found, 510 x 256 expected"):
        kokoro.synthesise("a map", "af_x")


def save_graph(path: Path, name: str) -> Path:
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, N_STYLE]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    nodes = [
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "zero"], ["none"]),
        helper.make_node("Add", ["none", "three"], [name]),
        helper.make_node("Tile", [name, "repeats"], ["audio"]),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("three", TensorProto.FLOAT, [1], [3.0]),
        helper.make_tensor("repeats", TensorProto.INT64, [2], [1, 1800]),
    ]
    output = helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, "samples"])
    graph = helper.make_graph(nodes, "kokoro", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path
